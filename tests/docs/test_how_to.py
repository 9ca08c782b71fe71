"""Every how-to does what it says: its files are written to an empty folder, and its code is run there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r"^```python(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISED = {
    "a-quantizer": 2,
    "a-pruning-criterion": 2,
    "a-grid": 2,
    "a-cost": 1,
    "a-learning-rule": 1,
    "a-relevance-rule": 1,
    "any-network-and-task": 1,
    "your-own-loop": 1,
}
"""How many files each may ask for."""


def test_every_page_is_known() -> None:
    assert [page.stem for page in PAGES] == sorted(PROMISED)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    files = {title: code for title, code in blocks if title}
    assert 1 <= len(files) <= PROMISED[page.stem]
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    use = "\n".join(code for title, code in blocks if not title)
    assert "assert" in use
    ran = subprocess.run([sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
