"""Attention that keeps its number of heads as an attribute: told from the sizes of its layers, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.weights import is_turned

COUNTS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "heads",
    "num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head",
)  # fmt: skip
SIZES = ("head_dim", "attention_head_size", "dim_head", "head_size", "key_value_proj_dim")
WIDTHS = ("attn_dim", "all_head_size", "inner_dim", "val_attn_dim", "split_size")


@dataclass(frozen=True)
class Heads:
    """What a module says of its heads.

    Attributes:
        size: numbers of a head.
        counts: ``{attribute: heads}``, also of keys and values that several queries share.
        widths: ``{attribute: numbers of all heads}``.
        layers: for each attribute of ``counts`` the linear layers with so many rows, by name, and how often each has
            the heads; the likeliest first.
    """

    size: int
    counts: Mapping[str, int]
    widths: Mapping[str, int]
    layers: Mapping[str, list[tuple[str, int]]]


def heads_of(module: nn.Module) -> Heads | None:
    """The heads of a module of one's own, which has linear layers with rows for them; ``None`` if it has none.

    PyTorch's own attention takes the size of a head from that of its inputs, so it cannot have fewer.
    """
    if type(module).__module__.startswith("torch."):
        return None
    numbers = {name: value for name, value in vars(module).items() if type(value) is int}
    sizes = {numbers[name] for name in SIZES if name in numbers}
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    rows = {name: count for name, child in module.named_children() if (count := rows_of(child)) is not None}
    layers: dict[str, list[tuple[str, int]]] = {}
    for attribute in COUNTS:
        width = numbers.get(attribute, 0) * size
        fitting = [(name, times) for times in (1, 3, 2) for name, count in rows.items() if count == times * width > 0]
        if fitting:
            layers[attribute] = fitting
    counts = {name: numbers[name] for name in layers}
    all_widths = {count * size for count in counts.values()}
    widths = {name: numbers[name] for name in WIDTHS if numbers.get(name) in all_widths}
    return Heads(size, counts, widths, layers) if counts else None


def rows_of(module: nn.Module) -> int | None:
    """Outputs of a linear layer; ``None`` of any other."""
    if not isinstance(module, nn.Linear) and not is_turned(module):
        return None
    weight: Any = module.weight
    return int(weight.shape[int(is_turned(module))])


def fewer(heads: Heads, kept: Mapping[str, Tensor]) -> dict[str, int]:
    """The attributes that change where whole heads go.

    Args:
        kept: ``{name of a linear layer: bool, the rows of it that stay}``.
    """
    found: dict[str, int] = {}
    for attribute, layers in heads.layers.items():
        count = heads.counts[attribute]
        rows = [(kept[layer], times) for layer, times in layers if layer in kept]
        wholes = [mask.reshape(n, count, heads.size) for mask, n in rows if len(mask) == n * count * heads.size]
        for whole in wholes:
            if torch.equal(whole, whole[:1, :, :1].expand_as(whole)):
                left = int(whole[0, :, 0].sum())
                widths = [name for name, width in heads.widths.items() if width == count * heads.size]
                found |= {attribute: left, **dict.fromkeys(widths, left * heads.size)}
                break
    return found
