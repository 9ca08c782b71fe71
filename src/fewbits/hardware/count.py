"""Parameters and multiplications of a network, dense and with its zeros left out.

Counted call by call in a forward pass: a layer that is used twice multiplies twice. The figures are theoretical: no
runtime is promised to skip a scattered zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from fewbits.errors import MismatchError, did_you_mean
from fewbits.hardware.calls import Call, calls
from fewbits.plan import Plan
from fewbits.weights import parameters_of


@dataclass(frozen=True)
class LayerCount:
    """One weight that is multiplied with, for one sample, or one product of two values as attention has them.

    Attributes:
        name: of the weight, or of the module and the product.
        weights: numbers of its weight, or of the second value. nonzero: those that are not zero; of values all.
        uses: how many outputs each weight takes part in, over all calls (positions of a convolution).
        stored: whether it is a weight.
    """

    name: str
    weights: int
    nonzero: int
    uses: int
    stored: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations with every weight; a FLOP count is twice that."""
        return self.weights * self.uses

    @property
    def nonzero_macs(self) -> int:
        """Those with a weight that is not zero."""
        return self.nonzero * self.uses


@dataclass(frozen=True)
class Count:
    """A whole network, for one sample. Biases, normalisation and activations are not counted as multiplications.

    Attributes:
        parameters: trainable numbers, all of them. layers: by weight name, in order of first use.
    """

    parameters: int
    layers: tuple[LayerCount, ...]

    @property
    def weights(self) -> int:
        """Numbers of the weights of layers."""
        return sum(layer.weights for layer in self.layers if layer.stored)

    @property
    def zeros(self) -> int:
        """Zeros among the weights of layers."""
        return self.weights - sum(layer.nonzero for layer in self.layers if layer.stored)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self) -> int:
        return sum(layer.nonzero_macs for layer in self.layers)


@torch.no_grad()
def count(model: nn.Module, input_shape: Any, plan: Plan | None = None) -> Count:
    """Parameters and multiplications for one sample.

    Args:
        model: a plain network; runs once, on zeros, in evaluation mode.
        input_shape: of one sample, without the batch; of other networks the inputs of a batch of one sample.
        plan: where its zeros are; default: the zeros of the model's own weights.

    Raises:
        UnsupportedError: multiplications that cannot be counted. MismatchError: the plan lacks a layer of the model,
            or has it in another shape.
    """
    return Count(parameters_of(model), layers_of(calls(model, input_shape), plan))


def layers_of(
    found: Sequence[Call], plan: Mapping[str, Any] | None = None, *, narrow: bool = False
) -> tuple[LayerCount, ...]:
    """The counts of calls that are known already; see :func:`count`.

    Args:
        narrow: whether the plan may have lost channels.
    """
    uses: dict[str, int] = {}
    first: dict[str, Call] = {}
    for call in found:
        uses[call.name] = uses.get(call.name, 0) + call.positions
        first.setdefault(call.name, call)
    return tuple(_layer(first[name], uses[name], plan, narrow) for name in uses)


def _layer(call: Call, uses: int, plan: Mapping[str, Any] | None, narrow: bool) -> LayerCount:
    weights = prod(call.weight.shape)
    if call.parameter is None:
        return LayerCount(call.name, weights, weights, uses, stored=False)
    if plan is None:
        kept = call.weight
    else:
        kept = call.turned(planned(plan, call.parameter, None if narrow else call.whole).values())
    return LayerCount(call.name, weights, int(kept.count_nonzero()), uses)


def planned(plan: Mapping[str, Any], name: str, shape: tuple[int, ...] | None) -> Any:
    """The entry of a layer's weight, of this shape or of any.

    Raises:
        MismatchError: there is none, or it has another shape.
    """
    if name not in plan:
        raise MismatchError(f"the plan lacks {name!r}, a layer of the network{did_you_mean(name, plan)}")
    if shape is not None and plan[name].shape != shape:
        raise MismatchError(f"{name}: {tuple(plan[name].shape)} in the plan, {shape} in the network")
    return plan[name]
