"""The build knows of every C source: a changed header that it does not list would leave the old extension in place."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src/fewbits/codec/csrc"


def test_the_build_lists_every_source() -> None:
    (extension,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    assert extension["name"] == "fewbits.codec._coder"
    listed = sorted(ROOT / path for path in (*extension["sources"], *extension["depends"]))
    assert listed == sorted(SOURCES.iterdir())


@pytest.mark.parametrize("header", [path.name for path in SOURCES.glob("*.h")])
def test_every_header_is_guarded_by_its_name(header: str) -> None:
    guard = f"FEWBITS_{header.removesuffix('.h').upper()}_H"
    lines = [line for line in (SOURCES / header).read_text().splitlines() if line.startswith("#")]
    assert lines[:2] == [f"#ifndef {guard}", f"#define {guard}"]
    assert lines[-1] == "#endif"
