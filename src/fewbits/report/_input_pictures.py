"""Pictures of what networks look at: curves of pixel flipping, and texts coloured by relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fewbits.errors import DataError
from fewbits.measure.attribution import ATTRIBUTIONS, chance
from fewbits.report._style import FAINT, INK, PALETTE, drawing, figure
from fewbits.report.explanation import Explanation, TokenMap
from fewbits.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE = 16  # tokens of a line
_WORD = 12  # characters of a token


def flipping(explanation: Explanation) -> Figure:
    """Probability of the class over the pixels taken away, before and after compression; random ones are grey.

    Raises:
        DataError: the explanation has no curves.
    """
    shown = [one for one in explanation.faithfulness if one.before and one.after]
    if not shown:
        raise DataError("this explanation has no curves of pixel flipping: give it images [N, C, H, W] and targets")
    with drawing():
        from matplotlib.lines import Line2D

        fig = figure(8.4, 4.0)
        handles = []
        for axes, when in zip(fig.subplots(1, 2, sharey=True), ("before", "after"), strict=True):
            for number, one in enumerate(shown):
                random = ATTRIBUTIONS.get(one.method) is chance
                look: Any = {"color": FAINT if random else PALETTE[number], "linestyle": "--" if random else "-"}
                curve = getattr(one, when)
                # Shares are squares of equal steps: drawn so, the fall at the beginning has room.
                axes.plot(np.sqrt(curve.shares), curve.scores, linewidth=1.6, **look)
                if when == "before":
                    handles.append(Line2D([], [], linewidth=1.6, **look))
            ticks = (0, 1, 5, 10, 25, 50, 100)
            axes.set_xticks([np.sqrt(tick / 100) for tick in ticks], [str(tick) for tick in ticks])
            axes.set_xlabel("pixels taken away (%, square-root scale)")
            axes.set_title(f"{when} compression")
            axes.set_ylim(bottom=0)
        fig.axes[0].set_ylabel("probability of the class")
        fig.legend(
            handles, [one.method for one in shown], loc="outside upper center", ncols=len(handles), frameon=False,
            fontsize=9,
        )  # fmt: skip
    return fig


def tokens(explanation: Explanation) -> Figure:
    """Each text twice, before and after: red tokens spoke for the class, blue ones against it.

    Both lines of a text have the same scale, symmetric around zero.

    Raises:
        DataError: the explanation has no texts.
    """
    maps = explanation.tokens
    if not maps:
        raise DataError("this explanation has no texts: give it tokens, integers [N, length], and their targets")
    lines = [(heat, first) for heat in maps for first in range(0, max(1, len(heat.tokens)), _LINE)]
    with drawing():
        fig = figure(9.6, 1.12 * len(lines) + 0.5)
        for axes, (heat, first) in zip(np.atleast_1d(fig.subplots(len(lines), 1)), lines, strict=True):
            colours = _line(axes, heat, first)
        bar = fig.colorbar(colours, ax=fig.axes, orientation="horizontal", shrink=0.4, aspect=40)
        bar.set_ticks([-1, 0, 1], labels=["against the class", "0", "for the class"])
        bar.outline.set_visible(False)
    return fig


def _line(axes: Any, heat: TokenMap, first: int) -> Any:
    """Some tokens of a text; returns the colours."""
    part = slice(first, first + _LINE)
    most = max((abs(value) for value in (*heat.before, *heat.after)), default=0.0) or 1.0
    rows = np.full((2, _LINE), np.nan)
    for row, values in enumerate((heat.before[part], heat.after[part])):
        rows[row, : len(values)] = np.array(values) / most
        for place, value in enumerate(rows[row, : len(values)]):
            ink = "white" if abs(value) > 0.6 else INK
            word = shorten(heat.tokens[first + place], _WORD)
            axes.text(place, row, word, ha="center", va="center", fontsize=7.5 if len(word) < 8 else 6, color=ink)
    axes.set_yticks((0, 1), ("before", "after"), fontsize=8.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if first == 0:
        axes.set_title(_title(heat), fontsize=9)
    return axes.imshow(rows, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")


def _title(heat: TokenMap) -> str:
    said = [f"{o.predicted}, {100 * o.confidence:.0f} %" for o in (heat.opinion_before, heat.opinion_after)]
    agreed = "" if heat.correlation is None else f"; maps correlate {heat.correlation:+.2f}"
    more = f"; the first {len(heat.tokens)} of {heat.length} tokens" if heat.length > len(heat.tokens) else ""
    return f"class {shorten(heat.target, 18)}; before: {said[0]}; after: {said[1]}{agreed}{more}"
