"""Pictures of learning rules: accuracy over epochs, data, sparsity and noise, and angles to the gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fewbits.errors import DataError
from fewbits.report._document import picture
from fewbits.report._markup import Markup
from fewbits.report._points import Row, is_number
from fewbits.report._style import FAINT, MARKERS, PALETTE, drawing, figure, label_ends, log_axis
from fewbits.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATHS = ("curve", "angles")
"""Keys of rows that hold what was measured on the way: ``[[epochs, value], ...]``, of angles one for each layer."""
SPARSITY = {0: "pruned_0", 50: "pruned_50", 80: "pruned_80", 90: "pruned_90", 95: "pruned_95"}
NOISES = {"none": "pruned_0", "Gaussian": "gaussian", "salt, pepper": "salt_and_pepper", "blur": "blurred"}
"""What a row says of one set of images, pruned by so many percent, or spoiled."""

Lines = Mapping[str, Mapping[float, Sequence[float]]]
"""Of each rule, what the seeds gave at each place."""


def check_paths(row: Row) -> None:
    """Raises DataError if what a row holds under one of :data:`PATHS` is not made of pairs of numbers."""
    for key, found in ((key, row[key]) for key in PATHS if row.get(key) is not None):
        for path in found.values() if key == "angles" and isinstance(found, dict) else [found]:
            pairs = path if isinstance(path, list) else [None]
            if not all(isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in pairs):
                raise DataError(f"{key} must be pairs of finite numbers, [epochs, value], for example [[1, 40.5]]")


def learning(rows: Sequence[Row], name: str) -> list[Markup]:
    """Pictures of the rows that name a rule, as far as they have figures for them; nothing where there are none."""
    mine = [row for row in rows if row.get("rule") is not None]
    looks = {rule: number for number, rule in enumerate(dict.fromkeys(str(row["rule"]) for row in mine))}
    parts = []
    for draw, words in (
        (epochs, "Accuracy over epochs"), (data, "Accuracy over training images"),
        (sparsity, "Accuracy over sparsity"), (noise, "Accuracy on spoiled images"), (angles, "Angles to the gradient"),
    ):  # fmt: skip
        made = draw(mine, looks)
        if made is not None:
            note = f"{words}. Lines join means over seeds; bands go from the lowest to the highest seed."
            parts.append(picture(made, f"{words} for learning rules on {name}: {', '.join(looks)}.", note))
    return parts


def epochs(rows: Sequence[Row], looks: Mapping[str, int]) -> Figure | None:
    """Validation accuracy on the way, a panel for each number of training images."""
    panels: dict[str, Lines] = {}
    for images in sorted({row["images"] for row in rows if row.get("curve")}):
        found = [row for row in rows if row.get("curve") and row["images"] == images]
        panels[f"{images:,} images"] = _gathered((str(row["rule"]), x, y) for row in found for x, y in row["curve"])
    return _drawn(panels, looks, "epochs (log scale)", "validation accuracy (%)", log=True)


def data(rows: Sequence[Row], looks: Mapping[str, int]) -> Figure | None:
    """Accuracy over training images, a panel for each number of epochs; what is not trained is in all of them."""
    plain = [row for row in _plain(rows) if is_number(row.get("images")) and is_number(row.get("accuracy"))]
    panels = {}
    for count in sorted({row["epochs"] for row in plain if is_number(row.get("epochs"))}):
        found = [row for row in plain if row.get("epochs") in (count, None)]
        lines = _gathered((str(row["rule"]), row["images"], row["accuracy"]) for row in found)
        if any(len(line) > 1 for line in lines.values()):
            panels[_epochs(count)] = lines
    return _drawn(panels, looks, "training images (log scale)", "accuracy (%)", log=True)


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'s' * (count != 1)}"


def sparsity(rows: Sequence[Row], looks: Mapping[str, int]) -> Figure | None:
    """Accuracy after one global threshold on all weights, for the trainings that most rules have."""
    return _each(rows, looks, SPARSITY, "weights that are zero (%)")


def noise(rows: Sequence[Row], looks: Mapping[str, int]) -> Figure | None:
    """Accuracy on images with noise, for the trainings that most rules have; trained on noise in a panel of its own."""
    return _each(rows, looks, dict(enumerate(NOISES.values())), "noise at test", list(NOISES), noisy=True)


def angles(rows: Sequence[Row], looks: Mapping[str, int]) -> Figure | None:
    """Degrees between what a rule teaches and the gradient, a panel for each layer."""
    found = [row for row in rows if row.get("angles")]
    panels = {
        layer: _gathered((str(row["rule"]), x, y) for row in found for x, y in row["angles"].get(layer, ()))
        for layer in dict.fromkeys(layer for row in found for layer in row["angles"])
    }
    return _drawn(panels, looks, "epochs", "angle to the gradient (degrees)", line=90.0)


def _plain(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("noise") in (None, "none")]


def _each(
    rows: Sequence[Row], looks: Mapping[str, int], keys: Mapping[int, str], label: str,
    words: list[str] | None = None, *, noisy: bool = False,
) -> Figure | None:  # fmt: skip
    """A panel for the largest training that most rules have, one for the smaller one, and one with noise in it."""
    usable = [row for row in rows if all(is_number(row.get(key)) for key in keys.values()) and "images" in row]
    panels: dict[str, Lines] = {}
    for kinds in (_plain(usable), [row for row in usable if row not in _plain(usable)] if noisy else []):
        trained = Counter({(r["images"], r["epochs"], r["rule"]): 1 for r in kinds if is_number(r.get("epochs"))})
        settings = Counter((images, count) for images, count, _ in trained)
        for images, count in sorted(key for key, _ in settings.most_common(2)):
            here = [r for r in kinds if r["images"] == images and r.get("epochs") in (count, None)]
            spoiled = noisy and here[0].get("noise", "none") != "none"
            title = f"{images:,} images, {_epochs(count)}" + (f", with {here[0]['noise']} noise" if spoiled else "")
            panels[title] = _gathered((str(r["rule"]), x, r[key]) for r in here for x, key in keys.items())
    return _drawn(panels, looks, label, "accuracy (%)", words=words)


def _gathered(found: Any) -> dict[str, dict[float, list[float]]]:
    lines: dict[str, dict[float, list[float]]] = {}
    for rule, x, y in found:
        lines.setdefault(rule, {}).setdefault(float(x), []).append(float(y))
    return lines


def _drawn(
    panels: Mapping[str, Lines], looks: Mapping[str, int], across: str, up: str, *,
    log: bool = False, words: list[str] | None = None, line: float | None = None,
) -> Figure | None:  # fmt: skip
    """A figure of panels, one below the other; ``None`` without any."""
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return None
    with drawing():
        heights = [max(3.2, 0.27 * len(lines) + 1.2) for lines in panels.values()]
        fig = figure(8.4, sum(heights))
        below = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        ends = {}
        for axes, (title, lines) in zip(below, panels.items(), strict=True):
            places = sorted({x for line_ in lines.values() for x in line_})
            if log:
                axes.set_xscale("log")
                low, high = places[0] / 1.1, places[-1] * 1.1
                axes.set_xlim(low, high)
                log_axis(axes.xaxis, low, high, "{:,g}".format)
            if words:
                axes.set_xticks(range(len(words)), words)
            if line is not None:
                axes.axhline(line, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1)
            ends[axes] = [_line(axes, rule, dict(found), looks[rule]) for rule, found in lines.items()]
            axes.set_title(shorten(title, 60))
            axes.set_xlabel(across)
            axes.set_ylabel(up)
        label_ends(ends)
    return fig


def _line(axes: Axes, rule: str, found: Mapping[float, Sequence[float]], look: int) -> tuple[float, float, str, str]:
    """Draws a rule's means and their range; where the line ends, and what it is called."""
    colour, marker, places = PALETTE[look % 8], MARKERS[look // 8 % 8], sorted(found)
    lowest, highest, means = ([how(found[x]) for x in places] for how in (min, max, fmean))
    axes.plot(places, means, color=colour, marker=marker, markersize=4, linewidth=1.5, zorder=3)
    axes.fill_between(places, lowest, highest, color=colour, alpha=0.15, linewidth=0, zorder=2)
    return places[-1], means[-1], shorten(rule, 34), colour
