"""What goes into each layer, and the gradient that comes back to it, one layer at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.task import main_output, run
from fewbits.weights import aliases, is_turned, layers, turned

_FORWARDS = {kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)}
_CONVOLVES = {kind._conv_forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)}


@dataclass(eq=False)
class Call:
    """One use of a layer in a forward pass.

    Attributes:
        name: the weight's. layer: the module.
        inputs: ``[n, ...]``, what the layer saw. delta: ``[n, ...]``, the gradient at its output, once it came.
    """

    name: str
    layer: nn.Module
    inputs: Tensor
    version: int
    delta: Tensor | None = None

    def check(self) -> None:
        """Raise UnsupportedError if the input was overwritten since the layer saw it."""
        if self.inputs._version != self.version:
            raise UnsupportedError(
                f"{self.name}: the layer's input is overwritten in place after it was used; write that out of place"
            )


# Called with all the calls that share one weight, under the weight's first name, when their gradients are there.
Consumer = Callable[[str, list[Call]], None]


class _Tap(torch.autograd.Function):
    """The identity; hands the gradient that passes to ``take``. ``anchor`` makes the backward pass come by."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, take: Callable[[Tensor], None]) -> Tensor:
        ctx.mark_dirty(output)  # the tensor itself, so that an activation may still overwrite it
        ctx.take = take
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.take(gradients[0])
        return gradients[0], None, None


class Taps:
    """Hooks on the layers of the chosen weights.

    A backward pass through :meth:`backward` computes no gradient of any weight, and lets go of a layer's output
    gradient as soon as ``consume`` has seen it. A layer that is used several times, or several layers that share
    a weight, are handed over together.

    Args:
        model: the network. weights: the chosen tensors by name, as :func:`fewbits.weights.select` gives them.

    Raises:
        UnsupportedError: a layer that computes something else than its class says.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        first = aliases(model)
        self.layers: list[tuple[str, str, nn.Module]] = []  # the weight's name here and its first, the layer
        for path, layer in (*layers(model).items(), *turned(model).items()):
            name = f"{path}.weight".lstrip(".")
            if first.get(name, name) in weights:
                self.layers.append((name, first.get(name, name), layer))
        known = {shared for _, shared, _ in self.layers}
        for name in weights:
            if name not in known:
                raise UnsupportedError(
                    f"{name}: gradients of single samples are known for linear and convolutional layers and "
                    "transformers' Conv1D; estimator='hutchinson' takes any, or leave it out of include"
                )
        for name, _, tapped in self.layers:
            _check_layer(name, tapped)
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.anchor = torch.zeros((), requires_grad=True, device=next(model.parameters()).device)
        self.consume: Consumer | None = None
        self.keep = False

    @contextmanager
    def watch(self) -> Iterator[Taps]:
        """Follow the forward passes inside the ``with`` block."""
        with ExitStack() as hooks:
            for name, shared, layer in self.layers:
                # First of all hooks, so that it sees what the layer itself computed.
                handle = layer.register_forward_hook(self._hook(name, shared), prepend=True)
                hooks.callback(handle.remove)
            try:
                yield self
            finally:
                self.calls.clear()

    def forward(self, model: nn.Module, inputs: Any) -> Tensor:
        """The network's outputs, with everything needed for passes back kept until the next call."""
        self.calls.clear()
        return main_output(run(model, inputs))

    def backward(self, loss: Tensor, consume: Consumer, *, keep: bool) -> None:
        """Propagate back from ``loss`` and hand each weight's calls to ``consume``. ``keep`` allows another pass."""
        for calls in self.calls.values():
            for call in calls:
                call.delta = None
        self.consume, self.keep = consume, keep
        try:
            if loss.requires_grad:
                torch.autograd.grad(loss, self.anchor, retain_graph=keep, allow_unused=True)
            for name, calls in self.calls.items():
                reached = [call for call in calls if call.delta is not None]
                if reached:  # the rest of its calls has no influence on the loss
                    self._hand_over(name, reached)
        finally:
            self.consume = None

    def _hook(self, name: str, shared: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return output
            if not args:
                raise UnsupportedError(f"{name}: the layer's input is passed by keyword; pass it by position")
            call = Call(name, layer, args[0].detach(), args[0]._version)
            self.calls[shared].append(call)

            def take(delta: Tensor) -> None:
                call.delta = delta
                if all(c.delta is not None for c in self.calls[shared]):
                    self._hand_over(shared, self.calls[shared])

            whole = output.clone() if output._is_view() else output
            tapped: Tensor = _Tap.apply(whole, self.anchor, take)
            return tapped

        return hook

    def _hand_over(self, name: str, calls: list[Call]) -> None:
        assert self.consume is not None
        for call in calls:
            call.check()
        self.consume(name, calls)
        for call in calls:
            call.delta = None
            if not self.keep:  # the graph holds the call for longer
                call.inputs, call.version = call.inputs.new_empty(0), 0


def _check_layer(name: str, layer: nn.Module) -> None:
    own = type(layer)
    forwards = {vars(cls).get("forward") for cls in own.__mro__ if cls.__name__ == "Conv1D"}
    known = forwards if is_turned(layer) else _FORWARDS
    plain = own.forward in known and getattr(own, "_conv_forward", None) in {None, *_CONVOLVES}
    if not plain:
        raise UnsupportedError(
            f"{name}: {own.__name__} has a forward of its own, so gradients of single samples are unknown; "
            "estimator='hutchinson' takes any layer"
        )
