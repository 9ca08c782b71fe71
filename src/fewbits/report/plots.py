"""Pictures of a compression and of benchmarks. Every function returns a matplotlib ``Figure``.

All of them raise MissingExtraError without matplotlib: ``pip install 'fewbits[report]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fewbits.errors import DataError
from fewbits.report._input_pictures import flipping, tokens
from fewbits.report._pictures import heatmaps, kept, relevance_v_magnitude
from fewbits.report._points import Row, is_number
from fewbits.report._points import points as points_of
from fewbits.report._style import (
    FAINT,
    MARKERS,
    PALETTE,
    byte_axis,
    drawing,
    figure,
    figure_png,
    label_ends,
    log_axis,
    size_label,
)
from fewbits.report.report import Report
from fewbits.report.table import clustered_bytes
from fewbits.report.words import human, percent, shorten, shorten_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_v_bytes",
    "figure_png",
    "flipping",
    "heatmaps",
    "history",
    "kept",
    "layers",
    "relevance_v_magnitude",
    "tokens",
]

_NAME = 34  # characters of a tensor's name beside its bar
_LABEL = 34  # characters of a method beside its curve


def accuracy_v_bytes(points: Sequence[Row], baseline: float | None = None) -> Figure:
    """Accuracy over the size of the file: a line of means per method, and each seed as a faint dot.

    Args:
        points: rows of a benchmark on one model and one data set; those without ``accuracy`` (percent) and
            ``bytes`` are left out. Rows with a ``source`` are quoted from elsewhere: their lines are dashed.
        baseline: accuracy of the float network, percent; default: the mean of the measured rows' own.

    Raises:
        DataError: no row has both figures.
    """
    usable = [
        row for row in points if is_number(row.get("accuracy")) and is_number(row.get("bytes")) and row["bytes"] > 0
    ]
    if not usable:
        raise DataError("no row has both an accuracy and bytes: nothing to draw")
    own = [row for row in usable if not row.get("source")] or usable
    floats = [row["baseline_accuracy"] for row in own if is_number(row.get("baseline_accuracy"))]
    if baseline is None and floats:
        baseline = sum(floats) / len(floats)
    methods: dict[str, list[tuple[float, float]]] = {}
    members: dict[str, list[Row]] = {}
    for point in points_of(usable):
        size, score = point.mean("bytes"), point.mean("accuracy")
        assert size is not None  # usable
        assert score is not None
        methods.setdefault(point.method, []).append((size, score))
        members.setdefault(point.method, []).extend(point.rows)
    with drawing():
        fig = figure(8.0, max(4.6, 0.26 * len(methods) + 1.6))
        axes = fig.add_subplot()
        axes.set_xscale("log")
        ends = []
        labels = dict(zip(methods, shorten_all(list(methods), _LABEL), strict=True))
        for number, (method, path) in enumerate(methods.items()):
            colour, marker = PALETTE[number % 8], MARKERS[number // 8 % 8]
            path.sort()
            mine = members[method]
            axes.plot(
                [r["bytes"] for r in mine], [r["accuracy"] for r in mine], marker, color=colour, alpha=0.28,
                markersize=4.5, markeredgewidth=0, zorder=2,
            )  # fmt: skip
            quoted = any(row.get("source") for row in mine)
            axes.plot(
                *zip(*path, strict=True), color=colour, marker=marker, markersize=5.5, zorder=3,
                linewidth=1.1 if quoted else 1.6, linestyle=(0, (4, 2)) if quoted else "-",
            )  # fmt: skip
            ends.append((*path[-1], labels[method], colour))
        sizes = [row["bytes"] for row in usable]
        low, high = min(sizes) / 1.18, max(sizes) * 1.18
        axes.set_xlim(low, high)
        byte_axis(axes.xaxis, low, high)
        if baseline is not None:
            axes.axhline(baseline, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1)
            ends.append((high, baseline, f"float32 {baseline:.2f} %", FAINT))
        _accuracy_axis(axes, [*(row["accuracy"] for row in usable), *([] if baseline is None else [baseline])])
        axes.set_xlabel("size of the file that decodes (bytes, log scale)")
        axes.set_title(shorten(_of(usable, "model") + " on " + _of(usable, "data"), 60))
        label_ends({axes: ends})
    return fig


def _of(rows: Sequence[Row], key: str) -> str:
    return ", ".join(dict.fromkeys(str(row.get(key, "-")) for row in rows))


def _accuracy_axis(axes: Axes, scores: Sequence[float]) -> None:
    """An axis around the scores (percent) without ticks above 100."""
    pad = max(0.08 * (max(scores) - min(scores)), 0.3)
    low, high = min(scores) - pad, max(scores) + pad
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    axes.set_ylabel("accuracy (%)")


def layers(report: Report) -> Figure:
    """Bytes of each clustered tensor, and of the rest of the file, beside the share of zeros."""
    held = clustered_bytes(report)
    names = [*shorten_all([row.name for row in report.tensors], _NAME), "floats, header, checks"]
    sizes = [*(row.bytes for row in report.tensors), report.file_bytes - held]
    zeros = [100 * row.zeros for row in report.tensors]
    with drawing():
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        fig = figure(8.4, 0.27 * len(names) + 1.3)
        left, right = fig.subplots(1, 2, width_ratios=(3, 2), sharey=True)
        rows = range(len(names))
        left.barh(rows, sizes, height=0.68, color=[PALETTE[0]] * len(zeros) + [FAINT])
        left.set_yticks(rows, names)
        left.set_ylim(len(names) - 0.4, -0.6)
        left.grid(axis="y", visible=False)
        left.tick_params(axis="y", length=0)
        for row, size in enumerate(sizes):
            words = f" {human(size)} ({percent(size / report.file_bytes)} %)"
            left.text(size, row, words, va="center", fontsize=8.5)
        left.set_xlim(0, 1.55 * max(sizes))  # room for the words
        left.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_label(value)))
        left.set_xlabel("bytes in the file")
        left.set_title("Where the bytes are")
        right.hlines(range(len(zeros)), 0, zeros, color=PALETTE[4], linewidth=1.6, zorder=2)
        right.plot(zeros, range(len(zeros)), "o", color=PALETTE[0], markersize=6, zorder=3, clip_on=False)
        right.set_xlim(0, 100)
        right.tick_params(axis="y", left=False, labelleft=False)
        right.grid(axis="y", visible=False)
        right.set_xlabel("zeros (% of the tensor's weights)")
        right.set_title("Weights that became zero")
    return fig


def history(report: Report) -> Figure:
    """Size of the file, accuracy and strength of the entropy term over the training steps.

    Raises:
        DataError: the report has no history.
    """
    rounds = report.history
    if not rounds:
        raise DataError("this report has no history of steps: nothing to draw")
    steps = [r.steps for r in rounds]
    with drawing():
        fig = figure(8.0, 5.6)
        top, middle, bottom = fig.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
        sizes = [r.bytes for r in rounds]
        top.plot(steps, sizes, "o-", color=PALETTE[0], markersize=4, linewidth=1.6)
        if report.target is not None:
            top.axhline(report.target, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2)
        top.set_yscale("log")
        bounds = [*sizes, *([report.target] if report.target else [])]
        low, high = min(bounds) / 1.15, max(bounds) * 1.15
        top.set_ylim(low, high)
        byte_axis(top.yaxis, low, high)
        top.set_ylabel("file (bytes, log)")
        top.set_title("Size of the file")
        if report.target is not None:
            label_ends({top: [(steps[-1], report.target, f"asked: {human(report.target)}", FAINT)]})
        known = [(r.steps, r.accuracy) for r in rounds if r.accuracy is not None]
        if known:
            middle.plot(*zip(*known, strict=True), "o-", color=PALETTE[1], markersize=4, linewidth=1.6)
            _accuracy_axis(middle, [score for _, score in known])
        else:
            middle.text(0.5, 0.5, "not evaluated on the way", transform=middle.transAxes, ha="center", color=FAINT)
        middle.set_title("Accuracy on validation data")
        bottom.plot(steps, [r.lam for r in rounds], "o-", color=PALETTE[2], markersize=4, linewidth=1.6)
        strengths = [r.lam for r in rounds if r.lam > 0]
        if strengths and max(strengths) / min(strengths) > 10:
            bottom.set_yscale("log")
            bottom.set_ylim(min(strengths) / 1.5, max(strengths) * 1.5)
            log_axis(bottom.yaxis, min(strengths) / 1.5, max(strengths) * 1.5)
        bottom.set_ylabel("lambda (no unit)")
        bottom.set_title("Strength of the entropy term")
        bottom.set_xlabel("training steps")
    return fig
