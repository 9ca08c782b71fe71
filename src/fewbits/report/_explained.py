"""The part of a page about an explanation."""

from __future__ import annotations

from fewbits.report import plots
from fewbits.report._document import picture, section, table
from fewbits.report._markup import Markup, el
from fewbits.report.explanation import Explanation, LayerExplanation
from fewbits.report.words import accuracy, measure_word, percent, shorten

SCATTERED = 4  # layers that get a scatter plot: those with the most weights
_HEADERS = (
    "tensor",
    "weights",
    "kept %",
    "relevance kept %",
    "by |weight| %",
    "at best %",
    "rank correlation",
    "Pearson signed",
    "Pearson absolute",
)
_COLUMNS = (
    "kept %: weights that are not zero; as many drawn at random keep that share of relevance in expectation. "
    "by |weight|, at best: relevance that as many weights of largest magnitude, or of most relevance, would "
    "keep. rank correlation and Pearson absolute: of |weight| and |relevance|. Pearson signed: of weight and "
    "relevance."
)
_LOOK = (
    "Relevance of each pixel for the image's own class: red for it, blue against it. Both maps of an image "
    "have the same colour scale, so a paler map carries less relevance. Above each map: the class that the "
    "network predicts, and its softmax probability; orange if it is wrong."
)


def explained(found: Explanation) -> Markup:
    """Which weights mattered: a paragraph, a table, and pictures."""
    overall = f"{percent(found.weights_kept)} % of the {found.kind} weights are left"
    if found.relevance_kept is not None:
        overall += f", and {percent(found.relevance_kept)} % of the relevance sits on them"
    largest = sorted(filter(_drawable, found.layers), key=lambda layer: -layer.weights)[:SCATTERED]
    scatters = [
        picture(
            plots.relevance_v_magnitude(found, layer.name),
            f"Scatter plot of magnitude and relevance of weights of {layer.name}.",
            f"{shorten(layer.name, 60)}: {len(layer.sampled.weight):,} of its {layer.weights:,} weights. "
            "Dots high on the left are small weights that matter.",
        )
        for layer in sorted(largest, key=found.layers.index)
    ]
    return section(
        "What mattered",
        el("p", f"{overall}. {_how(found)}"),
        table(_HEADERS, [_row(layer) for layer in found.layers], caption=_COLUMNS),
        picture(
            plots.kept(found),
            f"Per layer, the share of weights kept beside the share of relevance kept: {overall}.",
            "The longer the grey bar, the better the kept weights are than a random choice of as many.",
        ),
        el("div", *scatters, class_="pairs"),
    )


def looked(found: Explanation) -> Markup:
    """Heat maps of the inputs."""
    known = [m.correlation for m in found.maps if m.correlation is not None]
    mean = f"; their mean correlation is {sum(known) / len(known):+.2f}" if known else ""
    classes = ", ".join(m.target for m in found.maps)
    alt = f"Heat maps of input relevance before and after compression for the classes {classes}{mean}."
    return section("Where the networks look", picture(plots.heatmaps(found), alt, _LOOK))


def _how(found: Explanation) -> str:
    word, metric = measure_word(found.metric), found.metric
    same = f" predict the same class for {percent(found.agreement)} % of them;" if found.agreement is not None else ":"
    return (
        f"Relevance is that of the float network's weights, by layer-wise relevance propagation (rules "
        f"{found.rules}, started from the {found.start}), mean over {found.samples:,} samples. Both networks"
        f"{same} {word} on them is {accuracy(found.accuracy_before, metric)} before and "
        f"{accuracy(found.accuracy_after, metric)} after."
    )


def _row(layer: LayerExplanation) -> list[str]:
    shares = (layer.relevance_kept, layer.relevance_kept_by_magnitude, layer.relevance_kept_at_best)
    correlations = (layer.spearman, layer.pearson_signed, layer.pearson_absolute)
    return [
        layer.name,
        f"{layer.weights:,}",
        percent(layer.weights_kept),
        *("-" if share is None else percent(share) for share in shares),
        *("-" if c is None else f"{c:+.3f}" for c in correlations),
    ]


def _drawable(layer: LayerExplanation) -> bool:
    pairs = zip(layer.sampled.weight, layer.sampled.relevance, strict=True)
    return any(weight and relevance for weight, relevance in pairs)
