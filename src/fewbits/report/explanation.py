"""What an explanation says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewbits.measure.flipping import FlippingCurve


@dataclass(frozen=True)
class Sampled:
    """Weights of a layer for a scatter plot: a fixed random choice, or all of them if they are few.

    Attributes:
        weight, relevance: of the float network, signed. kept: whether they are non-zero now.
    """

    weight: tuple[float, ...]
    relevance: tuple[float, ...]
    kept: tuple[bool, ...]


@dataclass(frozen=True)
class LayerExplanation:
    """Relevance of one clustered or pruned tensor, on the float network. Shares are 0 to 1.

    Attributes:
        weights: number of weights. total: sum of their |relevance|, mean over samples, in units of the score.
        weights_kept: share of weights that are not zero; also the share of |relevance| that as many weights,
            drawn at random, keep in expectation.
        relevance_kept: share of |relevance| that sits on those weights (``None`` if there is none at all).
        relevance_kept_by_magnitude: share that the same number of weights of largest magnitude would keep;
            weights of equal magnitude count in their order in the tensor.
        relevance_kept_at_best: share that the same number of most relevant weights would keep.
        spearman: rank correlation of |weight| and |relevance|.
        pearson_signed: correlation of weight and relevance (as in ECQx, fig. 4).
        pearson_absolute: correlation of |weight| and |relevance|.

    Correlations are ``None`` where one side is constant.
    """

    name: str
    weights: int
    total: float
    weights_kept: float
    relevance_kept: float | None
    relevance_kept_by_magnitude: float | None
    relevance_kept_at_best: float | None
    spearman: float | None
    pearson_signed: float | None
    pearson_absolute: float | None
    sampled: Sampled


@dataclass(frozen=True)
class Opinion:
    """What a network says of an image. ``confidence``: softmax probability of the predicted class, 0 to 1."""

    predicted: str
    confidence: float


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Relevance of an image's pixels for one class, in both networks.

    Attributes:
        target: the class that is explained in both: the sample's own.
        image: float32 [C, H, W], as the network sees it (normalised).
        before, after: float32 [H, W], relevance summed over channels; sums approach the class score.
        correlation: Pearson correlation of both maps over pixels; ``None`` where one is constant.
    """

    target: str
    image: Tensor
    before: Tensor
    after: Tensor
    opinion_before: Opinion
    opinion_after: Opinion
    correlation: float | None


@dataclass(frozen=True)
class TokenMap:
    """Relevance of a text's tokens for one class, in both networks.

    Attributes:
        target: the class that is explained in both: the sample's own.
        tokens: text of each, or its number. before, after: their relevance, in units of the class score.
        length: tokens of the whole text, of which these are the first.
        correlation: Pearson correlation over all tokens; ``None`` where one side is constant.
    """

    target: str
    tokens: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    length: int
    opinion_before: Opinion
    opinion_after: Opinion
    correlation: float | None


@dataclass(frozen=True)
class Faithfulness:
    """Curves of pixel flipping by one method, each network by its own maps.

    Attributes:
        why: there are no curves, if not ``None``.
    """

    method: str
    before: FlippingCurve | None
    after: FlippingCurve | None
    why: str | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which weights mattered in the float network, and what became of them.

    Attributes:
        samples: samples that relevance is a mean over.
        agreement: share of decisions (classes, for example) that are the same in both networks, 0 to 1; ``None`` where
            outputs are numbers.
        accuracy_before, accuracy_after: on the same samples. metric: their scale, as of a report.
        rules, start: how relevance was propagated, and what it started from.
        maps, tokens: heat maps of images, or of texts. faithfulness: of maps of pixels, by several methods.
        kind: what was done to the weights, in a word: ``clustered``, ``quantized`` (INT8), or ``pruned`` where they
            stayed numbers.
    """

    layers: tuple[LayerExplanation, ...]
    samples: int
    agreement: float | None
    accuracy_before: float
    accuracy_after: float
    rules: str
    start: str
    maps: tuple[HeatMap, ...] = ()
    tokens: tuple[TokenMap, ...] = ()
    faithfulness: tuple[Faithfulness, ...] = ()
    kind: str = "clustered"
    metric: str = "percent"

    @property
    def weights_kept(self) -> float:
        """Share of all clustered, quantized or pruned weights that are left and not zero."""
        count = sum(x.weights for x in self.layers)
        return sum(x.weights_kept * x.weights for x in self.layers) / max(1, count)

    @property
    def relevance_kept(self) -> float | None:
        """Share of the |relevance| of all layers together that sits on non-zero weights."""
        total = sum(x.total for x in self.layers)
        return sum((x.relevance_kept or 0.0) * x.total for x in self.layers) / total if total else None

    def layer(self, name: str) -> LayerExplanation:
        """The layer of that name, or a KeyError."""
        return {layer.name: layer for layer in self.layers}[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; tensors become nested lists."""
        plain = {name: value for name, value in vars(self).items() if name not in _PARTS}
        plain["layers"] = [vars(layer) | {"sampled": vars(layer.sampled)} for layer in self.layers]
        plain["maps"] = [_plain(m) for m in self.maps]
        plain["tokens"] = [asdict(m) for m in self.tokens]
        plain["faithfulness"] = [asdict(m) for m in self.faithfulness]
        return plain | {"weights_kept": self.weights_kept, "relevance_kept": self.relevance_kept}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Explanation:
        """The explanation that :meth:`as_dict` gave, also by way of JSON."""
        derived = ("weights_kept", "relevance_kept", *_PARTS)
        layers = tuple(
            LayerExplanation(**x | {"sampled": Sampled(**{k: tuple(v) for k, v in x["sampled"].items()})})
            for x in plain["layers"]
        )
        rest = {name: value for name, value in plain.items() if name not in derived}
        return Explanation(
            layers=layers,
            maps=tuple(_heat_map(m) for m in plain["maps"]),
            tokens=tuple(_token_map(m) for m in plain.get("tokens", ())),
            faithfulness=tuple(_faithfulness(m) for m in plain.get("faithfulness", ())),
            **rest,
        )


_PARTS = ("layers", "maps", "tokens", "faithfulness")
_TENSORS = ("image", "before", "after")
_OPINIONS = ("opinion_before", "opinion_after")


def _plain(heat: HeatMap) -> dict[str, Any]:
    tensors = {name: getattr(heat, name).tolist() for name in _TENSORS}
    return vars(heat) | tensors | {name: vars(getattr(heat, name)) for name in _OPINIONS}


def _heat_map(plain: Mapping[str, Any]) -> HeatMap:
    tensors = {name: torch.tensor(plain[name], dtype=torch.float32) for name in _TENSORS}
    opinions = {name: Opinion(**plain[name]) for name in _OPINIONS}
    return HeatMap(**{**plain, **tensors, **opinions})


def _token_map(plain: Mapping[str, Any]) -> TokenMap:
    rows = {name: tuple(plain[name]) for name in ("tokens", "before", "after")}
    return TokenMap(**{**plain, **rows, **{name: Opinion(**plain[name]) for name in _OPINIONS}})


def _faithfulness(plain: Mapping[str, Any]) -> Faithfulness:
    def curve(of: Mapping[str, Any] | None) -> FlippingCurve | None:
        return None if of is None else FlippingCurve(tuple(of["shares"]), tuple(of["scores"]))

    return Faithfulness(plain["method"], curve(plain["before"]), curve(plain["after"]), plain["why"])
