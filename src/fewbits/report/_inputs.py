"""What is shown of inputs: heat maps of pixels and of tokens, and how faithful the maps of pixels are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fewbits.errors import DataError, UnsupportedError
from fewbits.measure.attribution import ATTRIBUTIONS
from fewbits.measure.flipping import FlippingCurve, blank, flipping_curve
from fewbits.measure.relevance import relevance
from fewbits.report.correlation import pearson
from fewbits.report.explanation import Faithfulness, HeatMap, Opinion, TokenMap
from fewbits.task import main_output
from fewbits.task.batches import Inputs, run, tensors_in

MAX_SHOWN = 8
"""Samples that get a heat map, and tokens of each (``MAX_TOKENS``)."""
MAX_TOKENS = 64
FLIPPED = (8, 64, 200_000)
"""Images whose pixels are flipped: at least, at most, and between them as many as have so many numbers together."""

Vocabulary = Mapping[int, str] | Sequence[str]
"""The text of a token by its number."""


def tokens_in(inputs: Any) -> Tensor | None:
    """The tokens among a network's inputs, [n, length]: the integers named ``input_ids``, or the first such tensor."""
    named = inputs.kwargs.get("input_ids") if isinstance(inputs, Inputs) else None
    parts = tensors_in(list(inputs) if isinstance(inputs, Inputs) else inputs)
    return next((x for x in (named, *parts) if isinstance(x, Tensor) and _are_tokens(x)), None)


def _are_tokens(x: Tensor) -> bool:
    return x.dim() == 2 and x.dtype in (torch.int64, torch.int32)


def one_per_class(targets: Tensor) -> Tensor:
    """Index of the first sample of each class, in the order of classes, at most ``MAX_SHOWN``."""
    first: dict[int, int] = {}
    for index, target in enumerate(targets.tolist()):
        first.setdefault(target, index)
    return torch.tensor([first[target] for target in sorted(first)][:MAX_SHOWN], dtype=torch.int64)


def pixel_maps(
    networks: tuple[nn.Module, nn.Module], images: Tensor, targets: Tensor, label: Callable[[int], str], how: Any
) -> tuple[HeatMap, ...]:
    """Heat maps of the first image of each class, by both networks."""
    chosen = one_per_class(targets)
    images, targets = images[chosen], targets[chosen].cpu()
    if not len(images):
        return ()
    views = []
    for model in networks:
        inputs = relevance(model, [(images, targets)], inputs=True, **how).inputs
        assert inputs is not None  # asked for
        views.append((inputs.detach().sum(1).float().cpu(), _opinions(model, images, label)))
    (first, said_before), (second, said_after) = views
    return tuple(
        HeatMap(
            label(int(target)),
            images[n].detach().float().cpu(),
            first[n],
            second[n],
            said_before[n],
            said_after[n],
            pearson(first[n].flatten().double(), second[n].flatten().double()),
        )
        for n, target in enumerate(targets)
    )


def token_maps(
    networks: tuple[nn.Module, nn.Module],
    inputs: Any,
    targets: Tensor,
    label: Callable[[int], str],
    how: Any,
    vocabulary: Vocabulary | None,
) -> tuple[TokenMap, ...]:
    """Relevance of each token of the first text of each class, without those that an ``attention_mask`` hides."""
    chosen = one_per_class(targets)
    inputs, targets = _rows(inputs, chosen), targets[chosen].cpu()
    tokens = tokens_in(inputs)
    if tokens is None or not len(targets):
        return ()
    mask = inputs.kwargs.get("attention_mask") if isinstance(inputs, Inputs) else None
    seen = mask.cpu() != 0 if isinstance(mask, Tensor) and mask.shape == tokens.shape else torch.ones_like(tokens) > 0
    views = []
    for model in networks:
        found = relevance(model, [(inputs, targets)], inputs=True, **how).inputs
        if found is None or found.shape != tokens.shape:
            return ()  # integers that no table turns into data
        views.append((found.detach().double().cpu(), _opinions(model, inputs, label)))
    maps = []
    for n, target in enumerate(targets.tolist()):
        own = seen[n].cpu()
        (first, said_before), (second, said_after) = ((heat[n, own], said[n]) for heat, said in views)
        words = tuple(_word(number, vocabulary) for number in tokens[n].cpu()[own].tolist())
        agreed = pearson(first, second)
        short = slice(MAX_TOKENS)
        maps.append(
            TokenMap(
                label(target), words[short], tuple(first[short].tolist()), tuple(second[short].tolist()), len(words),
                said_before, said_after, agreed,
            )
        )  # fmt: skip
    return tuple(maps)


def faithfulness(
    networks: tuple[nn.Module, nn.Module], images: Tensor, targets: Tensor, how: Any
) -> tuple[Faithfulness, ...]:
    """Curves of pixel flipping of each method, of each network by its own maps, over the first images."""
    least, most, numbers = FLIPPED
    count = min(most, max(least, numbers // max(1, images[0].numel())))
    found = []
    for name in ATTRIBUTIONS:
        try:
            before, after = (_curve(model, images[:count], targets[:count], name, how) for model in networks)
            found.append(Faithfulness(name, before, after))
        except (UnsupportedError, DataError) as error:
            found.append(Faithfulness(name, None, None, str(error)))
    return tuple(found)


def _curve(model: nn.Module, images: Tensor, targets: Tensor, name: str, how: Any) -> FlippingCurve:
    place = next(model.parameters()).device
    x, y = images.detach().to(place), targets.to(place)
    heat = ATTRIBUTIONS[name](model, x, y, blank(x), **(how if name == "LRP" else {}))
    return flipping_curve(model, x, y, heat, blank(x))


@torch.no_grad()
def _opinions(model: nn.Module, inputs: Any, label: Callable[[int], str]) -> list[Opinion]:
    place = next(model.parameters()).device
    scores = main_output(run(model, tree_map_only(Tensor, lambda x: x.to(place), inputs))).cpu()
    confidence, predicted = scores.softmax(1).max(1)
    return [Opinion(label(int(p)), float(c)) for p, c in zip(predicted, confidence, strict=True)]


def _rows(inputs: Any, chosen: Tensor) -> Any:
    """Some samples of inputs; by name, the tokens first: relevance of inputs is that of the first."""
    taken = tree_map_only(Tensor, lambda x: x[chosen], inputs)
    if not isinstance(taken, Inputs) or "input_ids" not in taken.kwargs:
        return taken
    return Inputs(taken.args, {"input_ids": taken.kwargs["input_ids"]} | taken.kwargs)


def _word(number: int, vocabulary: Vocabulary | None) -> str:
    """The text of a token, or its number where the vocabulary has none."""
    if isinstance(vocabulary, Mapping):
        return vocabulary.get(number, str(number))
    return vocabulary[number] if vocabulary is not None and 0 <= number < len(vocabulary) else str(number)
