"""The room's names: the same for readers and at run time, and a client's are there without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fewbits import private


def test_names_are_the_same_for_readers_and_at_run_time() -> None:
    tree = ast.parse(Path(private.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    static = {str(node.module).rpartition(".")[2]: {name.name for name in node.names} for node in block.body}
    assert static == {module: set(names) for module, names in private._HOMES.items()}
    assert (
        sorted(name for names in static.values() for name in names) == sorted(private.__all__) == sorted(dir(private))
    )
    for name in private.__all__:
        assert getattr(private, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Cliente'"):
        private.Cliente  # noqa: B018


def test_a_client_needs_no_torch() -> None:
    code = (
        "import sys\nfrom fewbits.private import Client, Connection, Profile, generate\nimport fewbits.cli.app\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
