"""Calls of a network's linear and convolutional layers, as one pass over its traced graph meets them."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph.traced import graph_of, placed
from fewbits.task.batches import called, sample_of, told
from fewbits.weights import WEIGHTED, aliases

# Multiplications with a weight that is not a layer's: better refused than left out.
_UNCOUNTED = (
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.bilinear, F.scaled_dot_product_attention,
    torch.matmul, torch.mm, torch.bmm, torch.mv, torch.dot, torch.vdot, torch.inner, torch.outer, torch.tensordot,
    torch.addmm, torch.addmv, torch.addbmm, torch.baddbmm, torch.chain_matmul, torch.linalg.multi_dot,
    torch.linalg.matmul, torch.linalg.vecdot, torch.einsum, operator.matmul,
    "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer", "addmm", "addmv", "addbmm", "baddbmm",
)  # fmt: skip

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer.

    Attributes:
        name: of the weight, as a plan has it; layers that share one have the same. module: the layer.
        inputs, shape: shapes of what went in and of what came out, with the batch.
        nonzero: where the input was not zero, of its shape; ``None`` unless it was asked for.
    """

    name: str
    module: Weighted | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    nonzero: Tensor | None = field(default=None, repr=False)

    @property
    def positions(self) -> int:
        """How often each weight is multiplied, for the whole batch: at each output, or at each input if transposed."""
        if isinstance(self.module, TRANSPOSED):  # padding cuts some of the products off, which are made all the same
            return prod(self.inputs) // self.module.in_channels
        return prod(self.shape) // self.module.weight.shape[0]


class _Watch(fx.Interpreter):
    """Runs the graph on a batch, and notes every call of a layer."""

    def __init__(self, model: nn.Module, graph: fx.Graph, zeros: bool) -> None:
        super().__init__(model, graph=graph)
        self.zeros = zeros
        self.extra_traceback = False  # an error of ours stays one sentence
        self.calls: list[Call] = []
        self.paths: dict[int, str] = {}
        self.first = aliases(model)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module: Any = self.fetch_attr(str(target))
        weighted = isinstance(module, WEIGHTED + TRANSPOSED)
        without = isinstance(module, nn.Embedding | nn.LayerNorm)  # rows are taken as they are; norms are not counted
        if not weighted and not without and any(parameter.dim() > 1 for parameter in module.parameters()):
            raise UnsupportedError(f"cannot count the multiplications of {target}: {type(module).__name__}")
        inputs = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        before = None if inputs is None else tuple(inputs.shape)
        kept = inputs != 0 if self.zeros and weighted and inputs is not None else None  # before it changes in place
        result = super().call_module(target, args, kwargs)
        if weighted:
            assert before is not None
            path = self.paths.setdefault(id(module.weight), str(target))  # a weight that layers share is stored once
            name = self.first.get(f"{path}.weight", f"{path}.weight")
            self.calls.append(Call(name, module, before, tuple(result.shape), kept))
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


@torch.no_grad()
def calls(model: nn.Module, inputs: Any, zeros: bool = False) -> tuple[Call, ...]:
    """Every call of a linear or convolutional layer in one forward pass, in order.

    Args:
        model: a plain network; runs once, in evaluation mode, and is left as it was.
        inputs: the shape of one sample, without the batch, which runs on zeros; or the inputs of a batch, of which
            the first sample runs.
        zeros: keep where inputs of layers were not zero; then the whole batch runs.

    Raises:
        UnsupportedError: a structure that cannot be read, or multiplications that cannot be counted.
    """
    training = {module: module.training for module in model.modules()}
    watch = _Watch(model, graph_of(model), zeros)
    parameter = next(model.parameters(), torch.zeros(()))
    given = send_to_device(inputs, parameter.device) if zeros else sample_of(inputs, parameter)
    model.eval()
    try:
        watch.run(*placed(watch.graph, *called(given)))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedError(
            f"cannot count multiplications: the network does not take a sample of {told(inputs)} "
            f"({' '.join(str(error).split())})"
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode
    return tuple(watch.calls)
