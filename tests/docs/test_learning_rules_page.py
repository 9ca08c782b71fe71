"""The page of learning rules has all of them, with all of their options."""

from __future__ import annotations

import inspect
import re

from prose import ROOT

from fewbits.train.rules import RULES

PAGE = (ROOT / "docs" / "learning-rules.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_rule_is_in_every_table() -> None:
    for title in ("What each of them does", "What each of them trains, and what not", "What they hold in memory"):
        rows = "".join(line.split("|")[1] for line in section(title).splitlines() if line.startswith("| "))
        assert set(re.findall("`(.*?)`", rows)) == set(RULES), title


def test_every_option_is_named() -> None:
    rows = [line.split("|") for line in section("Options").splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): set(re.findall("`([a-z_]+)`", row[2])) for row in rows}
    for name, row in RULES.items():
        options = set(inspect.signature(row.make).parameters)
        assert options <= told.get(name, set()), name
