"""Every how-to does what it says: its files are written to an empty folder, and its commands and code are run there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r"^```(?:python|yaml)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = """
import shlex, sys
from fewbits import cli

for line in {lines!r}:
    sys.argv = shlex.split(line, comments=True)
    assert sys.argv[0] == "fewbits", line
    try:
        cli.main()
    except SystemExit as done:
        assert not done.code, line

"""
"""The commands of a page, in one process: starting takes longest."""
PROMISED = {
    "a-quantizer": 2,
    "a-pruning-criterion": 2,
    "a-family": 1,
    "a-grid": 2,
    "a-cost": 1,
    "a-machine": 1,
    "a-learning-rule": 2,
    "a-relevance-rule": 1,
    "many-tasks": 1,
    "own-network": 2,
    "any-network-and-task": 1,
    "your-own-loop": 1,
    "cheaper-operations": 2,
    "encrypted-network": 2,
}
"""How many files each may ask for."""
SLOW = {  # what they use has unit tests
    "a-cost", "a-family", "a-grid", "a-learning-rule", "a-machine", "a-pruning-criterion", "a-quantizer",
    "any-network-and-task", "cheaper-operations", "encrypted-network", "many-tasks", "own-network",
    "your-own-loop",
}  # fmt: skip


def test_every_page_is_known() -> None:
    assert [page.stem for page in PAGES] == sorted(PROMISED)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.long) if page.stem in SLOW else page for page in PAGES],
    ids=lambda page: page.stem,
)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    files = {title: code for title, code in blocks if title}
    assert 1 <= len(files) <= PROMISED[page.stem]
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    use = "\n".join(code for title, code in blocks if not title)
    assert "assert" in use
    lines = "".join(SHELL.findall(page.read_text(encoding="utf-8"))).splitlines()
    commands = COMMANDS.format(lines=lines) if lines else ""
    ran = subprocess.run([sys.executable, "-c", commands + use], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
