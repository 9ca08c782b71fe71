"""The API pages: every public name of every room is described once."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from prose import ROOT

import api_pages

SOURCE = ROOT / "src"


def test_every_public_name_is_described_once() -> None:
    described = []
    for path, text in api_pages.pages(SOURCE).items():
        room = path.removeprefix("api/").removesuffix(".md")
        here = re.findall(r"^::: (\S+)\.(\w+)$", text, re.MULTILINE)
        there = re.findall(r"^- \[`(\w+)`\]", text, re.MULTILINE)
        names = [name for place, name in here if place == room]
        assert sorted([*names, *there]) == sorted(import_module(room).__all__)
        described += [(getattr(import_module(room), name), name) for name in names]
    objects = [id(thing) for thing, _ in described if isinstance(thing, type) or callable(thing)]
    assert len(set(objects)) == len(objects) > 100


def test_a_name_is_described_where_it_lives(tmp_path: Path) -> None:
    for path, text in {
        "fewbits/__init__.py": '__all__ = ["f", "g"]\nif 1:\n    from fewbits.room import f, g\n',
        "fewbits/room/__init__.py": '__all__ = ["f"]\nfrom fewbits.room.inner import f, h as g\n',
        "fewbits/room/inner.py": "def f(): ...\n",
        "fewbits/bare/__init__.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    pages = api_pages.pages(tmp_path)
    assert list(pages) == ["api/fewbits.md", "api/fewbits.room.md"]
    assert "- [`f`](fewbits.room.md#fewbits.room.f)" in pages["api/fewbits.md"]
    assert "::: fewbits.g" in pages["api/fewbits.md"]
    assert "::: fewbits.room.f" in pages["api/fewbits.room.md"]
    assert api_pages.definition("fewbits", "g", tmp_path) == "fewbits.room.inner"
