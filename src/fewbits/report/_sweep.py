"""A sweep's trials: a picture with the front marked, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewbits.errors import DataError
from fewbits.report._document import picture, table
from fewbits.report._markup import Markup
from fewbits.report._points import Row, is_number
from fewbits.report._style import FAINT, PALETTE, byte_axis, drawing, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Keys of a trial's row that are no settings and have columns of their own, or none.
_FIGURES = (
    "model", "data", "method", "seed", "split", "accuracy", "baseline_accuracy", "bytes", "float_bytes", "ratio",
    "sparsity", "bits", "epochs", "seconds", "file", "front", "trial", "test_accuracy", "parameters", "macs", "flops",
    "experiment", "commit",
)  # fmt: skip


def is_trial(row: Row) -> bool:
    """Whether a row is a trial of a sweep."""
    return isinstance(row.get("front"), bool) and is_number(row.get("accuracy")) and is_number(row.get("bytes"))


def trials(rows: Sequence[Row], name: str) -> list[Markup]:
    """A picture and a table of the trials among ``rows``; nothing where there are none."""
    mine = sorted(filter(is_trial, rows), key=lambda row: (row["bytes"], -row["accuracy"]))
    if not mine:
        return []
    best = [row for row in mine if row["front"]]
    return [
        picture(
            front(mine),
            f"Accuracy over bytes of the file on {name}: {len(mine)} trials of a sweep as dots, {len(best)} of them on "
            "the front and joined by a line.",
            "Up and to the left is better. No trial is better than one on the front in every objective.",
        ),
        _table(mine),
    ]


def front(rows: Sequence[Row]) -> Figure:
    """Accuracy over bytes of every trial; those on the front are filled and joined.

    Raises:
        DataError: no trial. MissingExtraError: matplotlib is not installed.
    """
    mine = [row for row in rows if is_trial(row) and row["bytes"] > 0]
    if not mine:
        raise DataError("no row is a trial of a sweep: nothing to draw")
    floats = [row["baseline_accuracy"] for row in mine if is_number(row.get("baseline_accuracy"))]
    best = sorted((row for row in mine if row["front"]), key=lambda row: (row["bytes"], -row["accuracy"]))
    others = [row for row in mine if not row["front"]]
    steps, highest = [], float("-inf")  # with more objectives, some of the front lie below others in this plane
    for row in best:
        if row["accuracy"] > highest:
            steps.append(row)
            highest = row["accuracy"]
    split = ", ".join(dict.fromkeys(str(row.get("split", "-")) for row in mine))
    with drawing():
        fig = figure(8.0, 4.8)
        axes = fig.add_subplot()
        axes.set_xscale("log")
        axes.plot(
            [r["bytes"] for r in others], [r["accuracy"] for r in others], "o", markerfacecolor="none",
            markeredgecolor=FAINT, markersize=5, label=f"other trials ({len(others)})", zorder=2,
        )  # fmt: skip
        axes.plot(
            [r["bytes"] for r in steps], [r["accuracy"] for r in steps], "-", color=PALETTE[0], linewidth=1.4,
            drawstyle="steps-post", alpha=0.6, zorder=3,
        )  # fmt: skip
        axes.plot(
            [r["bytes"] for r in best], [r["accuracy"] for r in best], "o", color=PALETTE[0], markersize=7,
            label=f"front ({len(best)})", zorder=4,
        )  # fmt: skip
        if floats:
            base = sum(floats) / len(floats)
            axes.axhline(
                base, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1, label=f"float32 {base:.2f} %"
            )
        sizes = [r["bytes"] for r in mine]
        low, high = min(sizes) / 1.18, max(sizes) * 1.18
        axes.set_xlim(low, high)
        byte_axis(axes.xaxis, low, high)
        scores = [*(r["accuracy"] for r in mine), *floats]
        pad = max(0.06 * (max(scores) - min(scores)), 0.3)
        axes.set_ylim(min(scores) - pad, max(scores) + pad)
        axes.set_yticks(
            [tick for tick in axes.get_yticks() if min(scores) - pad <= tick <= min(max(scores) + pad, 100)]
        )
        axes.set_xlabel("size of the file that decodes (bytes, log scale)")
        axes.set_ylabel(f"accuracy on {split} data (%)")
        axes.set_title(f"{_of(mine, 'model')} on {_of(mine, 'data')}: {len(mine)} trials")
        axes.legend(loc="lower right", frameon=False)
    return fig


def _of(rows: Sequence[Row], key: str) -> str:
    return ", ".join(dict.fromkeys(str(row.get(key, "-")) for row in rows))


def _table(rows: Sequence[Row]) -> Markup:
    settings = list(dict.fromkeys(key for row in rows for key in row if key not in _FIGURES))
    costs = [key for key in ("parameters", "macs", "flops") if any(is_number(row.get(key)) for row in rows)]
    tested = any(is_number(row.get("test_accuracy")) for row in rows)
    headers = ["trial", "accuracy, %", *(["test accuracy, %"] if tested else []), "bytes", "ratio", *costs, *settings]
    body = []
    for row in rows:
        cells = [str(row.get("trial", "")), f"{row['accuracy']:.2f}"]
        if tested:
            cells.append(f"{row['test_accuracy']:.2f}" if is_number(row.get("test_accuracy")) else "")
        cells += [f"{row['bytes']:,}", f"{row['ratio']:.1f}x" if is_number(row.get("ratio")) else ""]
        cells += [f"{row[key]:,.0f}" if is_number(row.get(key)) else "" for key in costs]
        body.append([*cells, *(_setting(row.get(key)) for key in settings)])
    marked = {number: "sum" for number, row in enumerate(rows) if row["front"]}
    split = ", ".join(dict.fromkeys(str(row.get("split", "-")) for row in rows))
    caption = f"Every trial, smallest file first; bold: on the front. Accuracy is of {split} data"
    return table(
        headers, body, marked=marked,
        caption=caption + (", and for the front also of test data, which chose nothing." if tested else "."),
    )  # fmt: skip


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
