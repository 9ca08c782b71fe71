"""The frame of a page, and the few kinds of block it is made of."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fewbits import files
from fewbits.report._markup import Markup, el
from fewbits.report._style import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is loaded or run
_CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6472; --line: #dde1e7; --page: #fff;
  --card: #f5f7f9; --accent: #0072b2; --good: #00734f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e8eaee; --soft: #a3acb9; --line: #363c47; --page: #15181d;
  --card: #1f242c; --accent: #56b4e9; --good: #3ecf9b; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: break-word; }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(2, 1fr); gap: .8rem; margin: 1.3rem 0 0; }
@media (min-width: 46rem) { .cards { grid-template-columns: repeat(3, 1fr); } }
.card { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; min-width: 0; }
.card dt { color: var(--soft); font-size: .85rem; }
.card dd { margin: 0; font-size: 1.55rem; font-weight: 650; line-height: 1.25; }
.card dd.soft { font-size: .82rem; font-weight: 400; line-height: 1.35; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: baseline; }
th:first-child, td:first-child, .words { text-align: left; padding-left: 0; }
.words { padding-left: .7rem; } td.words { white-space: normal; }
thead th { white-space: normal; vertical-align: bottom; color: var(--soft); font-weight: 600;
  border-bottom: 2px solid var(--line); }
tbody th { font-weight: 500; }
tr.sum > * { font-weight: 700; border-top: 2px solid var(--line); }
.bar { width: 30%; min-width: 7rem; } .bar span { display: block; height: .75rem; border-radius: .2rem;
  background: var(--soft); min-width: 2px; } .ours .bar span { background: var(--accent); }
dl.facts { display: grid; grid-template-columns: 13rem 1fr; gap: .35rem 1rem; margin: 0;
  font-size: .95rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; grid-column: 2; }
@media (max-width: 40rem) { dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin: 0; grid-column: 1; } dl.facts dt { margin-top: .6rem; } }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1rem; }
.pairs figure { min-width: 0; } .pairs .picture img { min-width: 20rem; }
figure { margin: 1rem 0; } .picture img { display: block; width: 100%; min-width: 34rem; height: auto; }
.picture .scroll { background: #fff; border: 1px solid var(--line); border-radius: .6rem; padding: .7rem; }
.picture figcaption { padding-top: .4rem; } .table figcaption { padding-bottom: .4rem; max-width: 46rem; }
pre { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; font-size: .85rem;
  white-space: pre-wrap; }
"""


def document(title: str, *sections: str) -> str:
    """A complete HTML page that needs nothing but itself."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Markup(_CSS)),
    )
    return "<!DOCTYPE html>\n" + el("html", head, el("body", el("main", *sections)), lang="en") + "\n"


def section(heading: str, *blocks: str) -> Markup:
    """A section with its heading."""
    return el("section", el("h2", heading), *blocks)


def picture(fig: Figure, alt: str, caption: str) -> Markup:
    """A figure, embedded; ``alt`` says in words what it shows."""
    data = base64.b64encode(figure_png(fig)).decode("ascii")
    image = el("img", src=f"data:image/png;base64,{data}", alt=alt)
    box = el("div", image, class_="scroll", tabindex="0")
    return el("figure", box, el("figcaption", caption), class_="picture")


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    words: Sequence[str] = (),
    marked: dict[int, str] | None = None,
) -> Markup:
    """A table that scrolls in its own box, below a caption that does not.

    Args:
        headers, rows: cells; each row's first cell is its heading.
        words: headers of the columns that are aligned left.
        marked: CSS class by row number.
    """
    classes = [{"class_": "words"} if h in words else {} for h in headers]
    head = el("tr", *(el("th", h, scope="col", **c) for h, c in zip(headers, classes, strict=True)))
    body = []
    for number, row in enumerate(rows):
        cells = [el("th", row[0], scope="row")]
        for cell, extra in zip(row[1:], classes[1:], strict=True):
            cells.append(cell if isinstance(cell, Markup) else el("td", cell, **extra))
        mark = (marked or {}).get(number)
        body.append(el("tr", *cells, **({"class_": mark} if mark else {})))
    whole = el("table", el("thead", head), el("tbody", *body))
    box = el("div", whole, class_="scroll", tabindex="0")
    return el("figure", el("figcaption", caption), box, class_="table")


def write_page(path: str | os.PathLike[str], html: str) -> None:
    """Write a page, wholly or not at all.

    Raises:
        FileError: it cannot be written.
    """
    files.write(path, html.encode())
