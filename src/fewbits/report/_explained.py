"""The part of a page about an explanation."""

from __future__ import annotations

from collections.abc import Sequence

from fewbits.report import plots
from fewbits.report._document import picture, section, table
from fewbits.report._markup import Markup, el
from fewbits.report.explanation import Explanation, HeatMap, LayerExplanation, TokenMap
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
_FLIP = (
    "Pixels are set to the mean colour, those first that a method calls most relevant; each network by its own maps. "
    "The faster the probability of the class falls, the more faithful the method. under: mean height of the curve, "
    "less is more faithful. over: mean fall from where it begins, more is more faithful."
)
_TOKENS = (
    "Relevance of each token for the text's own class: red for it, blue against it. Both lines of a text have the same "
    "colour scale. Above them: what the networks predict, and its softmax probability."
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


def looked(found: Explanation) -> list[Markup]:
    """Heat maps of the inputs, and how faithful those of pixels are: a section for each that there is."""
    sections = []
    if found.maps:
        alt = f"Heat maps of input relevance before and after compression for the classes {_alike(found.maps)}."
        sections.append(section("Where the networks look", picture(plots.heatmaps(found), alt, _LOOK)))
    if found.tokens:
        alt = f"Tokens coloured by relevance before and after compression for the classes {_alike(found.tokens)}."
        sections.append(section("Which tokens matter", picture(plots.tokens(found), alt, _TOKENS)))
    if any(one.before for one in found.faithfulness):
        sections.append(_flipped(found))
    return sections


def _alike(maps: Sequence[HeatMap | TokenMap]) -> str:
    known = [m.correlation for m in maps if m.correlation is not None]
    mean = f"; their mean correlation is {sum(known) / len(known):+.2f}" if known else ""
    return ", ".join(m.target for m in maps) + mean


def _flipped(found: Explanation) -> Markup:
    """Curves of pixel flipping with their areas."""
    rows = [
        [one.method, *(f"{value:.3f}" for value in (b.under, a.under, b.over, a.over))]
        for one in found.faithfulness
        if (b := one.before) and (a := one.after)
    ]
    best = min(rows, key=lambda row: row[1])
    alt = (
        f"Probability of the class over the pixels taken away, by {len(rows)} methods; {best[0]} falls fastest before."
    )
    left = [f"No curve of {one.method}: {one.why}." for one in found.faithfulness if one.why]
    headers = ("method", "under, before", "under, after", "over, before", "over, after")
    return section(
        "How faithful maps of pixels are",
        picture(plots.flipping(found), alt, "The horizontal scale gives the first pixels more room."),
        table(headers, rows, caption=_FLIP),
        *(el("p", text) for text in left),
    )


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
