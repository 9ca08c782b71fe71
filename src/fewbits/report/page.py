"""One self-contained HTML page about a compression."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from fewbits.report import plots
from fewbits.report._document import document, picture, section, table, write_page
from fewbits.report._explained import explained, looked
from fewbits.report._markup import Markup, el, joined
from fewbits.report._points import Row
from fewbits.report.explanation import Explanation
from fewbits.report.report import Report
from fewbits.report.results import sections
from fewbits.report.table import (
    HEADERS,
    OTHERS_MEAN,
    OURS,
    RATIO_MEANS,
    WRITTEN,
    cells,
    clustered_bytes,
    comparison,
    facts,
    kind_of,
    title,
    total,
)
from fewbits.report.words import accuracy, human, lost, measure_word, percent, times

__all__ = ["page", "write_page"]


def page(report: Report, explanation: Explanation | None = None, results: Sequence[Row] | None = None) -> str:
    """A page that needs no network, no script and no other file.

    Args:
        report: what the compression did.
        explanation: adds which weights and pixels mattered.
        results: rows of a benchmark to show it among (see ``results/*.json``).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    parts = [el("header", el("h1", title(report)), _headline(report)), _summary(report)]
    if report.tensors:  # else only channels went
        parts.append(_tensors(report))
    if len(report.history) > 1:  # else no way was gone
        parts.append(_history(report))
    parts.append(_others(report))
    if explanation is not None:
        parts.append(explained(explanation))
        parts.extend(looked(explanation))
    if results:
        parts.extend(sections(results))
    parts.append(_recipe(report))
    return document(f"{title(report)}: {human(report.file_bytes)}", *parts)


def _headline(report: Report) -> Markup:
    drop = report.drop
    change = "" if drop is None else f", {lost(drop, report.metric)}"
    word = measure_word(report.metric)
    same, tone = {
        True: ("identical", "good"),
        False: ("NOT identical", "bad"),
        None: ("not checked", ""),
    }[report.identical]
    cards = [
        ("size of the file", human(report.file_bytes), f"{report.file_bytes:,} bytes", ""),
        ("ratio", times(report.ratio), f"float32 was {human(report.float_bytes)}", ""),
        (f"{word} after", accuracy(report.accuracy_after, report.metric), f"{report.split} data{change}", ""),
        (f"{word} before", accuracy(report.accuracy_before, report.metric), f"{report.split} data, float32", ""),
        ("decoded = compressed", same, "outputs of the written file, bit by bit", tone),
    ]
    if report.met is not None:
        asked = next(fact.value for fact in facts(report) if fact.label == "budget").rpartition(":")[0]
        cards.append(("budget", "met" if report.met else "NOT met", asked, "good" if report.met else "bad"))
    return el(
        "dl",
        *(
            el(
                "div",
                el("dt", what),
                el("dd", value, class_=tone),
                el("dd", words, class_="soft"),
                class_="card",
            )
            for what, value, words, tone in cards
        ),
        class_="cards",
    )


def _summary(report: Report) -> Markup:
    lines: list[Markup] = []
    for fact in facts(report):
        tone = {True: "good", False: "bad", None: ""}[fact.good]
        if fact.label:
            lines.append(el("dt", fact.label))
        lines.append(el("dd", fact.value, class_=tone))
    return section("In figures", el("dl", *lines, class_="facts"))


def _tensors(report: Report) -> Markup:
    rows = [list(cells(row).values()) for row in report.tensors] + [list(total(report).values())]
    rest = report.file_bytes - clustered_bytes(report)
    caption = (
        f"{kind_of(report).capitalize()} tensors. zeros %: of the tensor's weights. "
        "bits/weight: of its section in the file. "
        f"entropy: zero-order, bits per weight. Another {rest:,} bytes are floats, header and checks."
    )
    largest = max(report.tensors, key=lambda row: row.bytes, default=None)
    most = f"; the largest is {largest.name} with {human(largest.bytes)}" if largest else ""
    return section(
        "Layer by layer",
        table(HEADERS, rows, caption=caption, words=("shape",), marked={len(rows) - 1: "sum"}),
        picture(
            plots.layers(report),
            f"Bar chart of the bytes of {len(report.tensors)} tensors{most}. Beside it the share of zeros in "
            f"each, {percent(report.zeros)} % overall.",
            "Left: bytes in the file, and their share of it. Right: share of the weights that became zero.",
        ),
    )


def _history(report: Report) -> Markup:
    first, last = report.history[0], report.history[-1]
    return section(
        "On the way",
        picture(
            plots.history(report),
            f"Line charts over the training steps: the file went from {human(first.bytes)} at step "
            f"{first.steps} to {human(last.bytes)} at step {last.steps}; accuracy; lambda.",
            "The size that the file would have had after each round, the accuracy then, and how strongly the "
            "entropy term (lambda) pressed.",
        ),
        *_candidates(report),
    )


def _candidates(report: Report) -> list[Markup]:
    """The final search, if there was anything to choose from."""
    if len(report.search) < 2:
        return []
    rows = [
        [
            WRITTEN.get(t.what, t.what),
            f"{t.lam:.4g}",
            f"{t.bytes:,}",
            accuracy(t.accuracy, report.metric),
            "yes" if t.kept else "",
        ]
        for t in report.search
    ]
    kept = {number: "sum" for number, t in enumerate(report.search) if t.kept}
    caption = "The final search: candidates made without further training. Accuracy is of validation data."
    headers = ("candidate", "lambda", "bytes", "accuracy", "written")
    return [table(headers, rows, caption=caption, marked=kept)]


def _others(report: Report) -> Markup:
    named = comparison(report)
    largest = max(size for _, size, _ in named)
    rows = []
    for name, size, ratio in named:
        share = el("span", style=f"width: {100 * size / largest:.2f}%")
        bar = el("td", share, class_="bar", aria_hidden="true")
        rows.append([name, f"{size:,}", times(ratio), bar])
    ours = [name for name, _, _ in named].index(OURS)
    return section(
        "Beside gzip and zstd",
        table(
            ("the same network as", "bytes", "ratio", ""),
            rows,
            caption=f"Ratio = {RATIO_MEANS}. {OTHERS_MEAN[kind_of(report)]}.",
            marked={ours: "ours"},
        ),
    )


def _recipe(report: Report) -> Markup:
    parts: list[Markup] = []
    if report.recipe:
        dumped = yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True)
        parts += [el("h3", "Recipe"), el("pre", el("code", dumped))]
    if report.versions:
        rows = [[name, version] for name, version in report.versions.items()]
        parts += [el("h3", "Versions"), table(("package", "version"), rows, caption="What made it.")]
    return section("How it was made", *parts) if parts else joined()
