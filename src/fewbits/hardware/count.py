"""Parameters and multiplications of a network, dense and with its zeros left out.

Counted in the traced graph, call by call: a layer that is used twice multiplies twice (hooks on modules, or a sum over
modules, see it once). The figures are theoretical: no runtime is promised to skip a scattered zero.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fewbits.errors import MismatchError, UnsupportedError, did_you_mean
from fewbits.graph.traced import graph_of, placed
from fewbits.plan import Plan
from fewbits.task.batches import called, sample_of, told
from fewbits.weights import WEIGHTED, aliases, parameters_of

# Multiplications with a weight that is not a layer's: better refused than left out.
_UNCOUNTED = (
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.bilinear, F.scaled_dot_product_attention,
    torch.matmul, torch.mm, torch.bmm, torch.mv, torch.dot, torch.vdot, torch.inner, torch.outer, torch.tensordot,
    torch.addmm, torch.addmv, torch.addbmm, torch.baddbmm, torch.chain_matmul, torch.linalg.multi_dot,
    torch.linalg.matmul, torch.linalg.vecdot, torch.einsum, operator.matmul,
    "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer", "addmm", "addmv", "addbmm", "baddbmm",
)  # fmt: skip

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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


class _Watch(fx.Interpreter):
    """Runs the graph on one sample, and notes how large each layer's outputs are."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False  # an error of ours stays one sentence
        self.uses: dict[str, int] = {}
        self.paths: dict[int, str] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(str(target))
        weighted = isinstance(module, WEIGHTED + TRANSPOSED)
        without = isinstance(module, nn.Embedding | nn.LayerNorm)  # rows are taken as they are; norms are not counted
        if not weighted and not without and any(parameter.dim() > 1 for parameter in module.parameters()):
            raise UnsupportedError(f"cannot count the multiplications of {target}: {type(module).__name__}")
        result = super().call_module(target, args, kwargs)
        if weighted:
            path = self.paths.setdefault(id(module.weight), str(target))  # a weight that layers share is stored once
            self.uses[path] = self.uses.get(path, 0) + _uses(module, args[0] if args else kwargs["input"], result)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._refuse(target)
        return super().call_function(target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._refuse(target)
        return super().call_method(target, args, kwargs)

    def _refuse(self, target: Any) -> None:
        if target in _UNCOUNTED:
            name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            raise UnsupportedError(f"cannot count the multiplications of a free {name!r}: put its weight in a layer")


def _uses(module: nn.Module, given: Tensor, result: Tensor) -> int:
    """Places at which each number of a layer's weight is multiplied: those of outputs, or of inputs if transposed."""
    if isinstance(module, TRANSPOSED):  # padding cuts some of the products off, which are made all the same
        return given.numel() // module.in_channels
    outputs: Any = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    return int(result.numel() // outputs)


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
    training = {module: module.training for module in model.modules()}
    watch = _Watch(model, graph_of(model))
    parameter = next(model.parameters(), torch.zeros(()))
    model.eval()
    try:
        watch.run(*placed(watch.graph, *called(sample_of(input_shape, parameter))))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedError(
            f"cannot count multiplications: the network does not take a sample of {told(input_shape)} "
            f"({' '.join(str(error).split())})"
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode
    first = aliases(model)
    names = {path: first.get(f"{path}.weight", f"{path}.weight") for path in watch.uses}
    return Count(parameters_of(model), tuple(_layer(model, names[p], p, uses, plan) for p, uses in watch.uses.items()))


def _layer(model: nn.Module, name: str, path: str, uses: int, plan: Mapping[str, Any] | None) -> LayerCount:
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    kept = weight
    if plan is not None:
        if name not in plan:
            raise MismatchError(f"the plan lacks {name!r}, a layer of the network{did_you_mean(name, plan)}")
        kept = plan[name].values()
        if kept.shape != weight.shape:
            raise MismatchError(f"{name}: {tuple(kept.shape)} in the plan, {tuple(weight.shape)} in the network")
    return LayerCount(name, prod(weight.shape), int(kept.count_nonzero()), uses)
