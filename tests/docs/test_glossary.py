"""The glossary: one word per idea, and names that the code has."""

from __future__ import annotations

import re
from itertools import chain

from prose import ROOT

PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
TERMS = [row for row in ROWS if len(row) == 3 and row[0] not in ("term", "word", "---")]


def test_no_term_is_there_twice() -> None:
    words = [row[0].lower() for row in TERMS[: -len(confused())]]
    assert len(words) > 90
    assert len(set(words)) == len(words)


def test_every_name_is_in_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "fewbits").glob("**/*.py"))
    places = {path.stem for path in (ROOT / "src" / "fewbits").glob("**/*")}
    used = set(re.findall(r"\w+", source)) | places
    names = set(
        chain.from_iterable(re.findall(r"\w+", code) for row in TERMS for code in re.findall("`(.*?)`", row[2]))
    )
    assert names - used == set()


def confused() -> list[str]:
    """The rows of the last table, which tells words apart that were told before."""
    last = PAGE[PAGE.index("## Not to be confused") :]
    return [line for line in last.splitlines() if line.startswith("| ")][2:]
