"""Pictures of many tasks in one network: who goes where, who is like whom, and what is forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewbits.report._style import FAINT, INK, PALETTE, drawing, figure
from fewbits.report.words import shorten_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 18  # characters of a task's name on an axis
_NUMBERS = 20  # columns beyond which cells have no room for numbers
_COLUMNS = 4  # matrices beside each other

Matrix = Sequence[Sequence[float | None]]


def matrices(
    found: Sequence[tuple[str, Matrix]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    form: str,
    scale: str,
    signed: bool = False,
    low: float | None = None,
    high: float | None = None,
    framed: Sequence[tuple[int, int]] = (),
    across: str = "",
    down: str = "",
) -> Figure:
    """Matrices of numbers beside each other, in one scale of colours; what is ``None`` stays white.

    Args:
        found: title and matrix of each. form: of the numbers. scale: what the colours mean, in words.
        signed: whether zero is white, and both signs have a colour. low, high: ends of the scale; default: of the data.
        framed: cells with a frame. across, down: what columns and rows are.
    """
    arrays = [np.array([[np.nan if x is None else x for x in row] for row in each], float) for _, each in found]
    every = np.concatenate([each[np.isfinite(each)].ravel() for each in arrays]) if arrays else np.zeros(0)
    most = max(1e-9, float(np.abs(every).max()) if len(every) else 1.0)
    low = (-most if signed else float(min(every, default=0.0))) if low is None else low
    high = (most if signed else float(max(every, default=1.0))) if high is None else high
    high = high if high > low else low + 1e-9
    count, numbers = len(columns), len(columns) <= _NUMBERS
    wide = min(len(found), _COLUMNS)
    lines = -(-len(found) // wide)
    one = max(2.2, (0.52 if numbers else 0.16) * count) + 0.5
    with drawing():
        fig = figure(min(12.0, max(8.0, one * wide + 1.9)), lines * (max(1.2, 0.36 * len(rows)) + 1.0) + 0.5)
        every_axes = np.atleast_1d(fig.subplots(lines, wide, squeeze=False)).ravel()
        shown: Any = None
        for number, axes in enumerate(every_axes):
            if number >= len(found):
                axes.set_visible(False)
                continue
            shown = axes.imshow(
                arrays[number], cmap="RdBu" if signed else "Blues", vmin=low, vmax=high, aspect="auto",
                interpolation="nearest",
            )  # fmt: skip
            axes.set_title(found[number][0])
            _ticks(axes, rows, columns, labelled=number % wide == 0)
            axes.set_xlabel(across)
            axes.set_ylabel(down if number % wide == 0 else "")
            if numbers:
                _write(axes, arrays[number], form, low, high, signed)
            for row, column in framed:
                axes.add_patch(_frame(row, column))
        bar = fig.colorbar(shown, ax=list(every_axes), shrink=0.8, pad=0.02)
        bar.set_label(scale)
        bar.outline.set_visible(False)
    return fig


def _ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str], *, labelled: bool) -> None:
    axes.set_yticks(range(len(rows)), shorten_all(list(rows), _NAME) if labelled else [""] * len(rows))
    short = shorten_all(list(columns), _NAME)
    upright = max(map(len, short)) > 3
    axes.set_xticks(range(len(columns)), short, rotation=60 if upright else 0, ha="right" if upright else "center")
    if upright:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write(axes: Axes, values: Any, form: str, low: float, high: float, signed: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            share = (value - low) / (high - low)
            dark = abs(share - 0.5) > 0.36 if signed else share > 0.6
            words = form.format(value)
            words = words.lstrip("+-") if not float(words.replace(",", "")) else words  # no minus zero
            axes.text(column, row, words, ha="center", va="center", fontsize=8, color="white" if dark else INK)


def _frame(row: int, column: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=PALETTE[1], linewidth=1.8)


def graph(users: Mapping[tuple[int, int], Sequence[str]], tasks: Sequence[str], layers: int, modules: int) -> Figure:
    """Segments as boxes, layer by layer; a dot in a box for each task that goes through it, and thin lines along paths.

    A box with one dot is private; a dashed one is of no task.
    """
    colours = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(tasks)}
    across = max(1, -(-len(tasks) // 2))  # dots of a box in two rows
    width = max(0.62, 0.17 * across + 0.12)
    step, faint = width + 0.75, 0.35 if len(tasks) <= 6 else 0.16
    with drawing():
        from matplotlib.lines import Line2D
        from matplotlib.patches import FancyBboxPatch

        fig = figure(
            min(12.0, max(8.0, step * layers * 0.95 + 1.6)), 0.62 * modules + 0.9 + 0.25 * (-(-len(tasks) // 6))
        )
        axes = fig.add_subplot()
        places: dict[tuple[int, int, str], tuple[float, float]] = {}
        for layer in range(layers):
            for module in range(modules):
                own = users.get((layer, module), ())
                x, y = layer * step, float(module)
                edge = FAINT if len(own) != 1 else colours[own[0]]
                axes.add_patch(FancyBboxPatch(
                    (x, y - 0.34), width, 0.68, boxstyle="round,pad=0,rounding_size=0.08", zorder=2,
                    facecolor="none", edgecolor=edge, alpha=1.0 if own else 0.4,
                    linestyle="-" if own else (0, (4, 3)), linewidth=1.8 if len(own) == 1 else 1.0,
                ))  # fmt: skip
                for name in own:
                    number = list(tasks).index(name)
                    dot = (
                        x + 0.06 + (width - 0.12) * (number % across + 0.5) / across,
                        y + (-0.16, 0.16)[number // across],
                    )
                    places[layer, module, name] = dot
                    axes.plot(*dot, _marker(number), color=colours[name], markersize=6, zorder=4, markeredgewidth=0)
        for (layer, _, name), (x, y) in places.items():
            for (after, _, task), (x_to, y_to) in places.items():
                if task == name and after == layer + 1:
                    axes.plot([x, x_to], [y, y_to], color=colours[name], alpha=faint, linewidth=1.0, zorder=1)
        axes.set_xlim(-0.15, step * (layers - 1) + width + 0.15)
        axes.set_ylim(modules - 0.4, -0.6)
        axes.set_xticks([layer * step + width / 2 for layer in range(layers)], [f"layer {n}" for n in range(layers)])
        axes.set_yticks(range(modules), [f"segment {n}" for n in range(modules)])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        handles = [
            Line2D(
                [], [], linestyle="none", marker=_marker(number), color=colours[name], markersize=7, markeredgewidth=0
            )
            for number, name in enumerate(tasks)
        ]
        fig.legend(
            handles, shorten_all(list(tasks), _NAME), loc="outside upper center", ncols=min(6, len(tasks)),
            frameon=False, fontsize=9, handletextpad=0.1,
        )  # fmt: skip
    return fig


def _marker(number: int) -> str:
    return ("o", "s", "^", "D")[number // len(PALETTE) % 4]
