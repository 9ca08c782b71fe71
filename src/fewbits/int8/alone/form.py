"""The form of a network that computes in integers alone: its own forward, under a mode that sees what it calls."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.attach.attach import fold
from fewbits.errors import SelectionError, UnsupportedError
from fewbits.int8.alone.functions import call
from fewbits.int8.alone.grids import Grids, inside
from fewbits.int8.alone.mode import Alone
from fewbits.int8.alone.tape import Tape
from fewbits.int8.inputs import fold_seen, without
from fewbits.task.batches import run
from fewbits.weights import layers

HOLDER, ALONE = "quantizers", "alone"
PREFIX = f"{HOLDER}.{ALONE}"
"""Of the names of such a form's quantizers; those of other forms have one part less."""


class Through(nn.Module):
    """What a chain of layers may call: it changes nothing."""

    def forward(self, x: Any) -> Any:
        return x


class Inside:
    """A hook around a module: whose turn it is."""

    def __init__(self, path: str) -> None:
        self.path = path

    def enter(self, *_: Any) -> None:
        inside().append(self.path)

    def leave(self, *_: Any) -> None:
        inside().pop()


def alone_form(
    model: nn.Module, quantizer: type[nn.Module], *, inputs: Any = None, names: Iterable[str] = ()
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of a network that computes in integers alone, with quantizers ``quantizers.alone.<name>``.

    Args:
        model: with its softmax, normalisation and other functions approximated by integers already.
        inputs: of a batch, on the first samples of which it is seen where quantizers belong, and what is folded.
        names: of the tensors of a form that was made before, in place of inputs.

    Returns:
        The copy, in evaluation mode, and the factors of :func:`fewbits.int8.folding.folded`.

    Raises:
        UnsupportedError: an operation without an integer form; the message names the layer and the operation.
        SelectionError: no layer to quantize.
    """
    if isinstance(model, fx.GraphModule):
        raise UnsupportedError("a traced graph has no form in integers alone: give the network that it was traced from")
    if not layers(model):
        raise SelectionError(f"{type(model).__name__} has no linear or convolutional layer to quantize")
    names = tuple(names)
    net = copy.deepcopy(model).eval()
    fold(net)
    factors = {} if inputs is None else fold_seen(net, inputs)
    if names:
        without(net, set(names))
    grids, holder = Grids(quantizer), Through()
    for path, module in net.named_modules():
        hook = Inside(path)
        module.register_forward_pre_hook(hook.enter, prepend=True)
        module.register_forward_hook(hook.leave, always_call=True)
    for name in dict.fromkeys(name.split(".")[2] for name in names if name.startswith(f"{PREFIX}.")):
        grids.add_module(name, quantizer())
    holder.add_module(ALONE, grids)
    net.add_module(HOLDER, holder)
    net.__class__ = _in_integers(type(net))
    net.to(next(model.parameters()).device)
    if inputs is not None:
        grids.growing = True
        try:
            with torch.no_grad():
                run(net, inputs)
        finally:
            grids.growing = False
    return net.eval(), factors


def _in_integers(cls: type[nn.Module]) -> type[nn.Module]:
    """A class of the same name whose forward runs under the mode."""
    forward = cls.forward

    @wraps(forward)
    def alone(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with Alone(self, grids_of(self), call) as mode:
            args, kwargs = mode.given(args, kwargs)
            return mode.done(forward(self, *args, **kwargs))

    return type(cls.__name__, (cls,), {"forward": alone, "__module__": cls.__module__, "__doc__": cls.__doc__})


def is_alone_plan(names: Iterable[str]) -> bool:
    """Whether the tensors of these names are those of a form in integers alone."""
    return any(name.startswith(f"{PREFIX}.") and name.count(".") == 3 for name in names)


def is_alone(net: nn.Module) -> bool:
    """Whether a network computes in integers alone."""
    return isinstance(getattr(getattr(net, HOLDER, None), ALONE, None), Grids)


def refuse_alone(net: nn.Module, what: str) -> None:
    """Raise UnsupportedError for a network in integers alone.

    Args:
        what: it lacks.
    """
    if is_alone(net):
        raise UnsupportedError(
            f"{type(net).__name__} computes in integers alone, for which there are no {what}: run what "
            "fewbits.int8.program gives, or compress it without activations.alone"
        )


def grids_of(net: nn.Module) -> Grids:
    """The grids of a network in integers alone.

    Raises:
        UnsupportedError: it is none.
    """
    if not is_alone(net):
        raise UnsupportedError(
            f"{type(net).__name__} does not compute in integers alone: compress it with activations: {{alone: true}}"
        )
    found: Grids = net.get_submodule(PREFIX)  # type: ignore[assignment]
    return found


@contextmanager
def recording(net: nn.Module) -> Iterator[Tape]:
    """Note every integer operation of the forward passes meanwhile."""
    grids = grids_of(net)
    grids.tape = Tape([])
    try:
        yield grids.tape
    finally:
        grids.tape = None
