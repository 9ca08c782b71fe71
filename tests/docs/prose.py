"""What the tests of the pages read out of Markdown: sentences, links and the anchors of headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("**/*.md")])

_MADE = re.compile(r"<!-- (\w+) -->.*?<!-- /\1 -->", re.DOTALL)  # tables and output that a script pastes
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.DOTALL | re.MULTILINE)
_NO_PROSE = re.compile(r" *(\||#|<!--|!\[|---)")
_ITEM = re.compile(r"^ *(?:[*-]|\d+\.) +")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]*)\)")
_ABBREVIATION = re.compile(r"\b(?:et al|fig|e\.g|i\.e|vs|cf|approx|resp|No)\.$")
_END = re.compile(r"""[.!?]["')\]*]*\s+(?=["'(\[*`]*[A-Z0-9`])""")


def _blanked(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def without_code(text: str) -> str:
    """The page with code blocks and what scripts paste left out; lines keep their numbers."""
    return _FENCE.sub(_blanked, _MADE.sub(_blanked, text))


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Each paragraph or item of a list, and the number of its first line. Tables, headings and pictures are none."""
    start, held = 0, ""
    for number, line in enumerate([*without_code(text).splitlines(), ""], start=1):
        stop = not line.strip() or bool(_NO_PROSE.match(line))
        if held and (stop or _ITEM.match(line)):
            yield start, held
            held = ""
        if not stop:
            start, held = (start, f"{held} {line.strip()}") if held else (number, _ITEM.sub("", line, count=1).strip())


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence, and the line on which its paragraph begins."""
    for line, paragraph in paragraphs(text):
        plain = _LINK.sub(lambda found: found[2], re.sub(r"`+[^`]+`+", "`code`", paragraph))
        begin = 0
        for end in _END.finditer(plain):
            if not _ABBREVIATION.search(plain[: end.start() + 1]):
                yield line, plain[begin : end.end()].strip()
                begin = end.end()
        yield line, plain[begin:].strip()


def words(sentence: str) -> int:
    """Words and numbers; code in backticks is one word."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures outside of code."""
    bare = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", text))
    yield from (found[3] for found in _LINK.finditer(bare))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them; mkdocs makes the same but for repeated hyphens, and checks its own."""
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.*?) *$", _FENCE.sub("", text), re.MULTILINE):
        plain = _LINK.sub(lambda link: link[2], title).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.add(f"{slug}-{count}" if count else slug)
    return found


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere, or to no heading."""
    wrong = []
    for target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            wrong.append(target)
    return wrong
