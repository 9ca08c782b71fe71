"""Pictures of an explanation: which weights and pixels mattered, and what was kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fewbits.errors import DataError
from fewbits.report._style import FAINT, GRID, INK, KEPT, PALETTE, ZEROED, drawing, figure, log_axis
from fewbits.report.explanation import Explanation, HeatMap, Opinion
from fewbits.report.words import shorten, shorten_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLOOR = 1e-6  # relevances below this share of the layer's largest are drawn at the lower edge


def relevance_v_magnitude(explanation: Explanation, layer: str) -> Figure:
    """|weight| and |relevance| of a fixed choice of weights; those that became zero are orange.

    Raises:
        KeyError: no such layer. DataError: it has no weight of which both are above zero.
    """
    shown = explanation.layer(layer)
    size, amount = (np.abs(np.array(v)) for v in (shown.sampled.weight, shown.sampled.relevance))
    kept, positive = np.array(shown.sampled.kept, dtype=bool), (size > 0) & (amount > 0)
    if not positive.any():
        raise DataError(f"{layer}: no weight with a relevance to draw")
    floor = amount.max() * _FLOOR
    absent = int((~positive).sum())
    with drawing():
        fig = figure(5.4, 4.4)
        axes = fig.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for chosen, colour in ((positive & ~kept, ZEROED), (positive & kept, KEPT)):
            axes.plot(
                size[chosen], np.maximum(amount[chosen], floor), "o", color=colour, alpha=0.45,
                markersize=3.4, markeredgewidth=0,
            )  # fmt: skip
        for axis, values in (("x", size[positive]), ("y", np.maximum(amount[positive], floor))):
            low, high = values.min() / 1.3, values.max() * 1.3
            getattr(axes, f"set_{axis}lim")(low, high)
            log_axis(getattr(axes, f"{axis}axis"), low, high)
        axes.set_xlabel("|weight| (no unit, log scale)")
        axes.set_ylabel("|relevance| (score per sample, log scale)")
        axes.set_title(shorten(layer, 42))
        note = f"rank correlation {_signed(shown.spearman)};  Pearson: signed {_signed(shown.pearson_signed)}, "
        note += f"absolute {_signed(shown.pearson_absolute)}"
        if absent:
            note += f"\n{absent:,} of the {len(size):,} weights chosen are 0 or have relevance 0: no dot"
        fig.supxlabel(note, fontsize=8.5, color=FAINT)
        _key(axes, (("kept", KEPT, "o"), ("became zero", ZEROED, "o")))
    return fig


def kept(explanation: Explanation) -> Figure:
    """Per layer: share of the weights that are not zero, and of the relevance that sits on them."""
    shown = explanation.layers
    names = shorten_all([layer.name for layer in shown], 34)
    marks = (
        ("weights (= relevance of a random choice)", "weights_kept", FAINT, "o"),
        ("relevance kept", "relevance_kept", PALETTE[0], "o"),
        ("relevance by |weight| alone", "relevance_kept_by_magnitude", PALETTE[1], "D"),
        ("most relevance possible", "relevance_kept_at_best", PALETTE[2], "|"),
    )
    with drawing():
        fig = figure(8.4, 0.34 * len(shown) + 1.6)
        axes = fig.add_subplot()
        for row, layer in enumerate(shown):
            if layer.relevance_kept is not None:
                ends = [100 * layer.weights_kept, 100 * layer.relevance_kept]
                axes.plot(ends, [row, row], color=GRID, linewidth=5, solid_capstyle="round", zorder=1)
        for _, field, colour, marker in marks:
            values = [(100 * v, row) for row, x in enumerate(shown) if (v := getattr(x, field)) is not None]
            if values:
                axes.plot(
                    *zip(*values, strict=True),
                    linestyle="none",
                    clip_on=False,
                    zorder=3,
                    **_mark(colour, marker),
                )
        axes.set_yticks(range(len(shown)), names)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("kept (% of the layer's weights, or of their |relevance|)")
        _key(axes, [(words, colour, marker) for words, _, colour, marker in marks])
    return fig


def _key(axes: Any, entries: Any) -> None:
    """A line above the axes that says what the marks are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", **_mark(colour, marker)) for _, colour, marker in entries]
    axes.figure.legend(
        handles, [words for words, _, _ in entries], loc="outside upper center", ncols=len(handles),
        frameon=False, fontsize=9, handletextpad=0.1, columnspacing=1.4,
    )  # fmt: skip


def _mark(colour: str, marker: str) -> dict[str, Any]:
    """Diamonds are hollow, so that a dot under one is seen."""
    hollow = marker == "D"
    return {
        "color": colour,
        "marker": marker,
        "markersize": {"D": 9, "|": 12}.get(marker, 7),
        "markeredgewidth": 0 if marker == "o" else 1.8,
        "markerfacecolor": "none" if hollow else colour,
    }


def heatmaps(explanation: Explanation) -> Figure:
    """Image, relevance before and relevance after, two images per row.

    Red pixels spoke for the class and blue ones against it; both maps of an image have the same scale,
    symmetric around zero.

    Raises:
        DataError: the explanation has no heat maps.
    """
    maps = explanation.maps
    if not maps:
        raise DataError("this explanation has no heat maps: give it images [N, C, H, W] and their targets")
    columns = 1 if len(maps) == 1 else 2
    lines = -(-len(maps) // columns)
    with drawing():
        fig = figure(4.9 * columns, 2.1 * lines + 0.6)
        above, below = np.ravel(np.asarray(fig.subfigures(2, 1, height_ratios=(2.1 * lines, 0.6))))
        blocks = np.atleast_1d(above.subfigures(lines, columns, wspace=0.04)).ravel()
        for block, heat in zip(blocks, maps, strict=False):
            colours = _triple(block, heat)
        bar = fig.colorbar(colours, cax=below.add_axes((0.3, 0.55, 0.4, 0.22)), orientation="horizontal")
        most = scale(maps[-1])
        bar.set_ticks([-most, 0, most], labels=["against the class", "0", "for the class"])
        bar.outline.set_visible(False)
    return fig


def _triple(block: Any, heat: HeatMap) -> Any:
    """The three panels of an image; returns the last one's colours."""
    agreed = "" if heat.correlation is None else f", maps correlate {_signed(heat.correlation)}"
    block.suptitle(f"class {shorten(heat.target, 18)}{agreed}", fontsize=10, fontweight="bold")
    panels = block.subplots(1, 3)
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    panels[0].imshow(displayed(heat.image), cmap="gray", interpolation="nearest")
    panels[0].set_title("image", fontsize=8.5, fontweight="normal", loc="center")
    most = scale(heat)
    for axes, values, said, when in (
        (panels[1], heat.before, heat.opinion_before, "before"),
        (panels[2], heat.after, heat.opinion_after, "after"),
    ):
        colours = axes.imshow(values.numpy(), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        colour = INK if said.predicted == heat.target else PALETTE[1]
        axes.set_title(_opinion(when, said), fontsize=8.5, fontweight="normal", loc="center", color=colour)
    return colours


def scale(heat: HeatMap) -> float:
    """The largest |relevance| in either map: the end of the common colour scale (1 if both are all zero)."""
    return max(float(heat.before.abs().max()), float(heat.after.abs().max())) or 1.0


def displayed(image: Tensor) -> np.ndarray:
    """An image [C, H, W] stretched to 0..1: [H, W, 3] for three channels, else their mean [H, W]."""
    seen = image.permute(1, 2, 0) if image.shape[0] == 3 else image.mean(0)
    low, high = seen.min(), seen.max()
    return ((seen - low) / (high - low if high > low else 1.0)).numpy()


def _opinion(when: str, said: Opinion) -> str:
    return f"{when}: {shorten(said.predicted, 11)}, {100 * said.confidence:.0f} %"


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2f}"
