"""Errors that go backward through other weights than the forward ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils.operations import recursively_apply
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.task.batches import input_of
from fewbits.train.rules._cuts import is_norm
from fewbits.train.rules._rule import Batch
from fewbits.weights import WEIGHTED, layers, places

Back = Callable[[str, Any, Tensor, Tensor], Tensor]
"""``back(path, layer, x, errors)``: errors at inputs ``x`` of a layer, from those at its outputs."""

_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def transposed(layer: Any, weight: Tensor, y: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of the linear map that a layer would be with another weight.

    Args:
        layer: linear or convolutional. weight: of the shape of its own.
        y: of the shape of its outputs. shape: of its inputs.
    """
    if isinstance(layer, nn.Linear):
        return y @ weight
    if layer.padding_mode != "zeros":
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = y.new_zeros(shape).requires_grad_()
            found: Tensor = torch.autograd.grad(
                layer._conv_forward(x, weight, None), x, y, create_graph=differentiable
            )[0]
        return found
    space = weight.dim() - 2
    whole = _TRANSPOSED[space](y, weight, None, layer.stride, 0, 0, layer.groups, layer.dilation)
    cut: list[int] = []  # from the last axis on: what padding added in front, and what the stride left over behind
    for axis in range(1, space + 1):
        front = layer._reversed_padding_repeated_twice[2 * axis - 2]
        cut += [-front, shape[-axis] + front - whole.shape[-axis]]
    return F.pad(whole, cut)


class _Route(torch.autograd.Function):
    """Passes outputs on; their errors go to the weights as they are, and to the inputs by ``back``.

    ``y`` is handed on as if it were changed in place, since a view of it would forbid activations in place. Where it is
    a view already, as a linear layer's outputs on sequences are, autograd takes the first gradient for its own.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, Tensor, None]:
        return errors, ctx.back(errors), None


@contextmanager
def rerouted(network: nn.Module, back: Back) -> Iterator[None]:
    """Inside, every linear and convolutional layer hands errors to its inputs by ``back``; its own gradient stays."""
    handles = []
    for path, layer in layers(network).items():
        inputs: list[Tensor] = []  # of calls that have not ended

        def enter(module: Any, args: Any, kwargs: Any, inputs: list[Tensor] = inputs) -> Any:
            inputs.append(input_of(args, kwargs))
            return (inputs[-1].detach(),), {}

        def leave(module: Any, args: Any, y: Tensor, inputs: list[Tensor] = inputs, path: str = path) -> Tensor:
            x = inputs.pop()
            if not x.requires_grad:
                return y
            found: Tensor = _Route.apply(y, x, lambda errors: back(path, module, x, errors))
            return found

        handles += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trainable(network: nn.Module, rule: str) -> None:
    """Raise UnsupportedError, naming it, for a weight through which errors would go as in backpropagation."""
    for name, own in places(network).items():
        stored, module = own[0].stored, own[0].module
        if not isinstance(stored, nn.Parameter) or stored.dim() < 2 or isinstance(module, WEIGHTED) or is_norm(module):
            continue
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise UnsupportedError(
                f"{rule}: {name} is of {type(module).__name__}, no linear or convolutional layer, so errors would go "
                "through it as in backpropagation"
            )


def through(network: nn.Module, batch: Batch, back: Back, at: Callable[[Any], None] = lambda outputs: None) -> Any:
    """Outputs and loss without a graph, after a backward pass by ``back`` has left directions.

    Args:
        at: is shown the outputs before the backward pass.
    """
    with rerouted(network, back):
        outputs, loss = batch.forward()
        at(outputs)
        batch.backward(loss)
    return recursively_apply(lambda tensor: tensor.detach(), outputs), loss.detach()


def drawn(shape: Sequence[int], size: float, seed: int, place: int, like: Tensor) -> Tensor:
    """Normal random numbers of a standard deviation, in float32, the same wherever and whenever they are drawn."""
    generator = torch.Generator().manual_seed((1_000_003 * seed + place) % 2**63)
    return torch.randn(*shape, generator=generator).mul_(size).to(like.device)


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs of one output, and outputs of one input, of a layer's weight."""
    each = weight[0, 0].numel()
    return weight.shape[1] * each, weight.shape[0] * each


def magnitudes(network: nn.Module, seed: int) -> Mapping[str, Tensor]:
    """Random weights of every layer's shape, of standard deviation ``sqrt(2 / (fan_in + fan_out))`` (Glorot)."""
    found = {}
    for place, (path, layer) in enumerate(layers(network).items()):
        weight = layer.weight.detach()
        found[path] = drawn(weight.shape, (2 / sum(fans(weight))) ** 0.5, seed, place, weight)
    return found
