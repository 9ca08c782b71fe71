"""How pictures look: one palette, one kind of axis. The only place that imports matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fewbits.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2430", "#6b7280", "#e3e6ea"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D1F")
"""Okabe and Ito's colours for colour-blind readers; yellow, unreadable on white, became brown."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
KEPT, ZEROED = PALETTE[0], PALETTE[1]

_SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a tensor's name is a dollar sign
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def drawing() -> Iterator[None]:
    """fewbits's style while a figure is built; the caller's own settings stay as they are.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "drawing a report") from error
    # The backend is the caller's: it says nothing about looks, and rc_context would not restore it.
    theirs = ("backend", "backend_fallback", "interactive")
    settings: dict[Any, Any] = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in theirs}
    with matplotlib.rc_context(settings | _SETTINGS):
        yield


def figure(width: float = 8.0, height: float = 4.2) -> Figure:
    """An empty figure (inches), without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def figure_png(fig: Figure, dpi: int = 144) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with drawing():
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def byte_axis(axis: Any, low: float, high: float) -> None:
    """Readable ticks on a logarithmic axis of bytes that reaches from ``low`` to ``high``."""
    log_axis(axis, low, high, size_label)


def log_axis(axis: Any, low: float, high: float, words: Callable[[float], str] = "{:g}".format) -> None:
    """Readable ticks on any logarithmic axis that reaches from ``low`` to ``high``."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Three to nine round numbers within ``low`` and ``high`` where there are as many, coarse before fine."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within: list[float] = []
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        within = [t for d in decades for m in digits if low <= (t := float(f"{m}e{d}")) <= high]
        if len(within) >= 3:
            break
    else:  # a small part of a decade: equal steps
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step = next((step * k for k in (5, 2) if (high - low) / (step * k) >= 3), step)
        within = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return within[:: -(-len(within) // 9)]


def size_label(value: float) -> str:
    """``20 KB``, without needless digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions at least ``gap`` apart, in the same order and about the same mean: for labels in a column."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # [centre, count] of labels that touch
    for i in order:
        groups.append([positions[i], 1.0])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (c2, n2), (c1, n1) = groups.pop(), groups.pop()
            groups.append([(c1 * n1 + c2 * n2) / (n1 + n2), n1 + n2])
    placed = [c + gap * (k - (n - 1) / 2) for c, n in groups for k in range(int(n))]
    result = [0.0] * len(positions)
    for i, position in zip(order, placed, strict=True):
        result[i] = position
    return result


def label_ends(panels: Mapping[Axes, Sequence[tuple[float, float, str, str]]]) -> None:
    """Write ``(x, y, words, colour)`` in a column right of each of a figure's axes, moved apart where they would touch.

    A faint line leads from each point to its words.
    """
    next(iter(panels)).figure.draw_without_rendering()  # type: ignore[union-attr]  # the layout is known only then
    for axes, ends in panels.items():
        _label(axes, ends)


def _label(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    high, low = axes.transAxes.inverted().transform([(0, 16 * axes.figure.dpi / 72), (0, 0)])[:, 1]
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((x, y))[1] for x, y, _, _ in ends]
    for (x, y, words, colour), at in zip(ends, spread(heights, high - low), strict=True):
        axes.annotate(
            words, (x, y), xytext=(1.03, at), textcoords="axes fraction", color=colour, va="center",
            fontsize=9.5, fontweight="bold", annotation_clip=False,
            # From the middle of the left side; looking for where the line leaves the words takes most of the time.
            arrowprops={
                "arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.8, "shrinkB": 4, "patchA": None,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip
