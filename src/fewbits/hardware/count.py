"""Parameters and multiplications of a network, dense and with its zeros left out.

Counted in the traced graph, call by call: a layer that is used twice multiplies twice (hooks on modules, or a sum over
modules, see it once). The figures are theoretical: no runtime is promised to skip a scattered zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import MismatchError, did_you_mean
from fewbits.hardware.calls import calls
from fewbits.plan import Plan
from fewbits.weights import parameters_of


@dataclass(frozen=True)
class LayerCount:
    """One linear or convolutional layer, for one sample.

    Attributes:
        weights: numbers of its weight. nonzero: those that are not zero.
        uses: how many outputs each weight takes part in, over all calls (positions of a convolution).
    """

    name: str
    weights: int
    nonzero: int
    uses: int

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
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Zeros among the weights of layers."""
        return self.weights - sum(layer.nonzero for layer in self.layers)

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
        UnsupportedError: a structure that cannot be read, or multiplications that cannot be counted.
        MismatchError: the plan lacks a layer of the model, or has it in another shape.
    """
    uses: dict[str, int] = {}
    weights: dict[str, Tensor] = {}
    for call in calls(model, input_shape):
        uses[call.name] = uses.get(call.name, 0) + call.positions
        weights.setdefault(call.name, call.module.weight)
    return Count(parameters_of(model), tuple(_layer(name, weights[name], uses[name], plan) for name in uses))


def _layer(name: str, weight: Tensor, uses: int, plan: Mapping[str, Any] | None) -> LayerCount:
    kept = weight if plan is None else planned(plan, name, tuple(weight.shape)).values()
    return LayerCount(name, prod(weight.shape), int(kept.count_nonzero()), uses)


def planned(plan: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    """The entry of a layer's weight.

    Raises:
        MismatchError: there is none, or it has another shape.
    """
    if name not in plan:
        raise MismatchError(f"the plan lacks {name!r}, a layer of the network{did_you_mean(name, plan)}")
    if plan[name].shape != shape:
        raise MismatchError(f"{name}: {tuple(plan[name].shape)} in the plan, {shape} in the network")
    return plan[name]
