"""The pages: sentences that can be read in one breath, and links that lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from prose import PAGES, ROOT, anchors, broken, sentences, words

LONGEST = 41  # words; the aim is 25


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_no_sentence_is_too_long(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    long = [f"line {line}, {words(s)} words: {s}" for line, s in sentences(text) if words(s) > LONGEST]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert not broken(page)


def test_what_counts_as_a_sentence() -> None:
    text = """# A heading of so many words

**Bold.** One two `three is one word` four, five. Six et al. seven [eight nine](x.md)
ten! (Eleven.)

| a table | is none |
- an item, of
  two lines
- another

```
code is none
```
<!-- made -->
Neither is what a script pastes.
<!-- /made -->
"""
    found = [(line, words(sentence)) for line, sentence in sentences(text)]
    assert found == [(3, 1), (3, 5), (3, 7), (3, 1), (7, 5), (9, 1)]


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Its `title`, so\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#its-title-so) [c](#here) ![p](gone.png) [d](other.md#twice-1) [e](#there)\n"
        "[f](https://elsewhere.org) `[g](none.md)` [h](docs/other.md)\n```\n[i](none.md)\n```\n"
    )
    assert broken(page) == ["gone.png", "#there", "docs/other.md"]
    assert anchors("# A b\n# A b\n# A b\n") == {"a-b", "a-b-1", "a-b-2"}
