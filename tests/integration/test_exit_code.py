"""How a process ends at Ctrl-C, as the system sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import importlib

app = importlib.import_module("fewbits.cli.app")

def run(**options):
    exec("raise KeyboardInterrupt")

app.app = run
app.main()
"""


def test_ctrl_c_in_code_that_a_library_makes_ends_with_130_as_well(tmp_path: Path) -> None:
    """Dataclasses are made by ``exec``; under ``-m``, Python takes an interrupted one for the end by the signal."""
    (tmp_path / "script.py").write_text(SCRIPT)
    places = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "script"], env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
