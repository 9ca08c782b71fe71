"""Other operations in a network: whatever calls them, modules or functions, without reading its structure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from fewbits.approximation import HOOK, Approximation, approximations_of
from fewbits.ops._calls import ATTENTION, HEADS, attention, called, heads
from fewbits.ops._evaluate import Evaluator, exporting

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called")
Seen = Callable[[str, Tensor, dict[str, Any]], None]
"""Told of each operation: its name, its input and its options."""


class Mode(TorchFunctionMode):
    """Between a network and torch: what is called goes on as it is, or by an approximation.

    Args:
        evaluators: by operation. seen: told of every operation, approximated or not.
    """

    def __init__(self, evaluators: Mapping[str, Evaluator], seen: Seen | None = None) -> None:
        super().__init__()
        self.evaluators, self.seen = evaluators, seen
        self.rows = seen is not None or "softmax" in evaluators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.rows and func is ATTENTION:
            return attention(self._softmax, *args, **kwargs)
        if self.rows and func is HEADS:
            return heads(self._softmax, partial(attention, self._softmax))(*args, **kwargs)
        found = called(func, args, kwargs)
        return func(*args, **kwargs) if found is None else self._done(func, args, kwargs, *found)

    def _softmax(self, x: Tensor, dim: int = -1, **kwargs: Any) -> Tensor:
        found: Tensor = self._done(torch.softmax, (x, dim), {}, "softmax", x, {"dim": dim})
        return found

    def _done(self, func: Any, args: Any, kwargs: Any, name: str, x: Tensor, options: dict[str, Any]) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return func(*args, **kwargs)
        if self.seen is not None:
            self.seen(name, x, options)
        evaluator = self.evaluators.get(name)
        if evaluator is None:
            return func(*args, **kwargs)
        if evaluator.approximation.kind in ("relu", "squared-relu"):
            return evaluator.replaced(x, **options).to(x.dtype)
        values = evaluator(x, **options)
        in_place = kwargs.get("inplace") or getattr(func, "__name__", "").endswith("_") or args[1:] == (True,)
        if not in_place and (exporting() or not torch.is_grad_enabled() or not _followed(args, kwargs)):
            values = values.to(kwargs.get("dtype") or x.dtype)
            if exporting() or values.stride() == x.stride() or name == "softmax":
                return values
            return torch.empty_like(x, dtype=values.dtype).copy_(values)  # laid out as torch does it
        # The operation's own node of the graph, and with it its gradient and its relevance; the numbers are ours.
        result = func(*args, **kwargs)
        result.data.copy_(values)
        return result


def _followed(args: Any, kwargs: Any) -> bool:
    """Whether a gradient is wanted of a call."""
    return any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values()))


class Swapped:
    """What hooks into a network's forward pass: the mode is on from its beginning to its end."""

    def __init__(self, approximations: Mapping[str, Approximation]) -> None:
        setattr(self, HOOK, dict(approximations))
        self.evaluators = {name: Evaluator(found) for name, found in approximations.items()}
        self._running = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Swapped:
        made = object.__new__(Swapped)
        memo[id(self)] = made
        made.__dict__ |= self.__dict__ | {"_running": threading.local()}
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_running"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_running": threading.local()}

    @property
    def _stack(self) -> list[Mode | None]:
        return self._running.__dict__.setdefault("stack", [])

    def enter(self, *_: Any) -> None:
        """A forward pass begins; one within another changes nothing."""
        mode = None if any(self._stack) else Mode(self.evaluators)
        if mode is not None:
            mode.__enter__()
        self._stack.append(mode)

    def leave(self, *_: Any) -> None:
        """It ends, also by an error."""
        if self._stack and (mode := self._stack.pop()) is not None:
            mode.__exit__(None, None, None)


def swap(model: nn.Module, approximations: Mapping[str, Approximation]) -> None:
    """Let a network compute by approximations from now on, in place; those that it has had go.

    Modules, functions and methods are all caught, whoever calls them, while the network's forward pass runs; only what
    torch computes within one function of its own, as in recurrent layers, is not. Names and tensors stay what they are,
    and copies compute likewise. In training the gradient is that of the operation itself.

    Args:
        approximations: by operation, as :func:`fewbits.ops.fit` gives them; none: the network is as it was.
    """
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "__self__", None), Swapped):
                del hooks[key]
                model._forward_hooks_always_called.pop(key, None)
    if approximations:
        swapped = Swapped(approximations)
        model.register_forward_pre_hook(swapped.enter, prepend=True)
        model.register_forward_hook(swapped.leave, always_call=True)
        if isinstance(model, fx.GraphModule):  # whose copies lose all hooks, but not what is named here
            kept = {name: vars(model)[name] for name in HOOKS if name in vars(model)}
            model.meta.setdefault("_user_preserved_attributes", {}).update(kept)


def carry(source: nn.Module, target: nn.Module) -> None:
    """Let a network made of another one compute with the same approximations, in place."""
    swap(target, approximations_of(source))


def inline(model: nn.Module) -> nn.Module:
    """The network with the approximations in its ``forward`` itself, for exporters, which call no hooks.

    Of a network without any it is the network. A traced graph becomes a module of a class of its own, as exporters
    would read the graph and not run it.
    """
    found = approximations_of(model)
    if not found:
        return model
    swap(model, {})
    evaluators = {name: Evaluator(one) for name, one in found.items()}
    forward = type(model).forward

    @wraps(forward)
    def with_mode(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with Mode(evaluators):
            return forward(self, *args, **kwargs)

    base = nn.Module if isinstance(model, fx.GraphModule) else type(model)
    made: nn.Module = nn.Module.__new__(type(type(model).__name__, (base,), {"forward": with_mode}))
    made.__dict__ |= vars(model)
    return made


@contextmanager
def computing(model: nn.Module) -> Iterator[None]:
    """What a network's hooks do around its forward pass, for a call of ``model.forward`` itself."""
    found = approximations_of(model)
    with Mode({name: Evaluator(one) for name, one in found.items()}) if found else nullcontext():
        yield
