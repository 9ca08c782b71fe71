"""What a network calls, computed in integers: between the network and torch, function by function.

A tensor that is on a grid carries its levels with it, and its own numbers are what the levels stand for. Gradients are
those of the float operations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fewbits.approximation import approximations_of
from fewbits.errors import UnsupportedError
from fewbits.int8.affine_grid import LEVELS
from fewbits.int8.alone.grids import Grids, grid
from fewbits.int8.alone.tape import SUMS, Levels, Tape, factors
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.ops._calls import ATTENTION, HEADS, attention, heads
from fewbits.ops._evaluate import Evaluator

TAG = "_fewbits_on_grid"
OTHER = "_fewbits_of_inputs"  # marks what is computed of inputs, and not in integers: masks of tokens
RESERVED = frozenset(vars(Grids(RangedQuantizer)))


@dataclass(frozen=True)
class OnGrid:
    """What a tensor carries: it stands for ``scale * levels``.

    Attributes:
        levels: less the zero point; ``None`` while ranges are measured.
        eight: whether they have eight bits (nine, without the zero point); else they are sums.
        mask: what no share of a softmax goes to.
    """

    levels: Levels | None
    scale: float = 1.0
    eight: bool = True
    mask: Tensor | None = None


class _Exact(torch.autograd.Function):
    """The exact numbers, with the gradient of the float operation."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, exact: Tensor) -> Tensor:
        return exact

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def on_grid(value: Any) -> OnGrid | None:
    """What a tensor carries, if anything."""
    return getattr(value, TAG, None) if isinstance(value, Tensor) else None


def tagged(value: Tensor, found: OnGrid) -> Tensor:
    """The tensor with what it carries."""
    if on_grid(value) is not None:
        value = value.view_as(value)  # others still have it with what it carried before
    setattr(value, TAG, found)
    return value


class Alone(TorchFunctionMode):
    """A forward pass in integers.

    Args:
        net: the network. grids: what it keeps.
        call: computes a function of tensors on grids, see :func:`fewbits.int8.alone.functions.call`.
    """

    def __init__(self, net: nn.Module, grids: Grids, call: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.grids, self.call = net, grids, call
        self.tape = grids.tape or Tape()
        self.evaluators = {name: Evaluator(one) for name, one in approximations_of(net).items()}
        self.used: set[str] = set()
        self.tokens: list[Tensor] = []
        self.measuring = grids.growing or any(isinstance(m, RangedQuantizer) and m.observing for m in grids.children())

    # -- ends ------------------------------------------------------------------------------------------------

    def given(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of the network, tensors of floats on grids."""

        def one(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._input(value) if value.is_floating_point() else self._tokens(value)
            if isinstance(value, tuple | list):
                return type(value)(map(one, value))
            return {name: one(part) for name, part in value.items()} if isinstance(value, dict) else value

        return tuple(map(one, args)), {name: one(value) for name, value in kwargs.items()}

    def _input(self, x: Tensor) -> Tensor:
        name, quantizer = self._quantizer("input")
        found = quantizer(x)
        found = x.view_as(x) if found is x else found
        if self.measuring:
            return tagged(found, OnGrid(None))
        scale, zero = grid(quantizer)
        unit = torch.tensor(scale, dtype=torch.float32, device=x.device)
        levels = self.tape.given((x.detach().float() / unit).round().clamp(-zero, LEVELS - zero).to(torch.int64))
        self.tape.named(levels, name, scale, zero)
        return tagged(found, OnGrid(levels, scale))

    def _tokens(self, x: Tensor) -> Tensor:
        found = x.view_as(x)
        setattr(found, OTHER, True)
        self.tokens.append(found)
        return found

    def read(self, x: Tensor) -> Levels:
        """Whole numbers that a table is read at: an input, or a constant."""
        if any(x is own for own in self.tokens):
            return self.tape.given(x.to(torch.int64))
        if self.tape.steps is not None and hasattr(x, OTHER):
            raise self.unsupported("a table that is read at what is computed of the inputs", "only the inputs are")
        return self.tape.constant(x.to(torch.int64))

    def done(self, returned: Any) -> Any:
        """What the network gives, its sums on grids."""
        if isinstance(returned, tuple | list):
            return type(returned)(map(self.done, returned))
        if isinstance(returned, dict):
            return {name: self.done(value) for name, value in returned.items()}
        if on_grid(returned) is None:
            if isinstance(returned, Tensor) and returned.is_floating_point():
                raise self.unsupported("an output that depends on no input on a grid")
            return returned
        x = self.eight(returned, "output")
        found = on_grid(x)
        if found is not None and found.levels is not None:
            self.tape.output = found.levels.place
            self.tape.grids.setdefault(found.levels.place, ("output", found.scale, 0))
        return x

    # -- places ----------------------------------------------------------------------------------------------

    def _quantizer(self, what: str) -> tuple[str, nn.Module]:
        first = name = f"{self.grids.path}_{what}".replace(".", "_").lstrip("_")
        while name in self.used or hasattr(nn.Module, name) or name in RESERVED:
            found = re.fullmatch(rf"{re.escape(first)}_(\d+)", name)
            name = f"{first}_{int(found[1]) + 1 if found else 2}"
        self.used.add(name)
        return name, self.grids.at(name, next(self.net.parameters()).device)

    def place(
        self, what: str, soft: Callable[[], Tensor], terms: list[tuple[OnGrid, Tensor]], offset: Tensor | None = None
    ) -> Tensor:
        """``sum levels * reals + offset`` on the grid of a place of its own.

        Args:
            what: names the place. soft: the float operation, on the tensors as they are.
            terms: with each term's real factors, float64 on the CPU. offset: a float tensor.
        """
        self.unmasked(*(term for term, _ in terms))
        result, scale, zero, name = self.on_place(what, soft)
        if self.measuring:
            assert result is not None
            return tagged(result, OnGrid(None))
        reals = [real / scale for _, real in terms]
        whole, start, shift = factors(reals, None if offset is None else offset.detach().double().cpu() / scale)
        given = [term.levels for term, _ in terms if term.levels is not None]
        levels = self.tape.rescale(given, whole, start, shift, -zero, LEVELS - zero)
        self.tape.named(levels, name, scale, zero)
        return self.valued(result, OnGrid(levels, scale))

    def on_place(self, what: str, soft: Callable[[], Tensor]) -> tuple[Tensor | None, float, int, str]:
        """What a place makes of a float operation, where gradients or ranges are wanted; its scale, zero and name."""
        name, quantizer = self._quantizer(what)
        result = quantizer(soft()) if torch.is_grad_enabled() or self.measuring else None
        return result, *grid(quantizer), name

    def valued(self, soft: Tensor | None, found: OnGrid) -> Tensor:
        """A tensor of what the levels stand for; it hands gradients on to ``soft``, if there is one."""
        assert found.levels is not None
        exact = found.levels.numbers.to(torch.float32) * found.scale
        return tagged(exact if soft is None else _Exact.apply(soft, exact), found)

    def computed(self, soft: Callable[[], Tensor], found: Callable[[], OnGrid], *, eight: bool = False) -> Tensor:
        """What is on a grid without a quantizer, in eight bits or as sums."""
        if self.measuring:
            return tagged(soft(), OnGrid(None, eight=eight))
        return self.valued(soft() if torch.is_grad_enabled() else None, found())

    def eight(self, x: Tensor, what: str) -> Tensor:
        """With eight bits: as it is, or on the grid of a new place."""
        found = on_grid(x)
        assert found is not None
        if found.eight and (found.mask is None):
            return x
        return self.place(f"{what}_input" if what != "output" else what, lambda: x, [(found, real(found.scale))])

    # -- functions -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = every(args, kwargs)
        other = any(hasattr(x, OTHER) for x in given if isinstance(x, Tensor))
        if not any(on_grid(x) is not None for x in given):
            if func is functional.embedding:
                return self.call(self, func, args, kwargs)
            found = func(*args, **kwargs)
            for x in every((found,), {}) if other else ():
                if isinstance(x, Tensor):
                    setattr(x, OTHER, True)
            return found
        if other and self.tape.steps is not None:
            raise self.unsupported(
                "what depends on other inputs, such as masks of tokens,", "its program has one input"
            )
        if func is ATTENTION:
            with self:
                return attention(torch.softmax, *args, **kwargs)
        if func is HEADS:
            with self:
                return heads(torch.softmax, partial(attention, torch.softmax))(*args, **kwargs)
        return self.call(self, func, args, kwargs)

    def unsupported(self, what: str, way: str = "leave activations.alone out") -> UnsupportedError:
        """An error that names the user's layer."""
        path = self.grids.path
        kind = type(self.net.get_submodule(path)).__name__
        return UnsupportedError(f"{path or 'the network'} ({kind}): {what} has no form in integers alone; {way}")

    def unmasked(self, *found: OnGrid) -> None:
        """Refuse what only a softmax can take."""
        if any(one.mask is not None for one in found):
            raise self.unsupported("a mask that is read by anything but a softmax")

    def bounded(self, largest: int) -> None:
        """Refuse sums that may leave 32 bits."""
        if largest >= SUMS:
            raise self.unsupported(f"a sum of up to {largest}, beyond 32 bits,")


def every(args: Any, kwargs: Any) -> list[Any]:
    """Arguments, and the parts of those that are lists."""
    found: list[Any] = []
    for value in (*args, *kwargs.values()):
        found += value if isinstance(value, tuple | list) else [value]
    return found


def real(*parts: Any) -> Tensor:
    """The product of numbers and tensors, float64 on the CPU."""
    found = torch.ones((), dtype=torch.float64)
    for part in parts:
        found = found * torch.as_tensor(part).detach().cpu().double()
    return found


def scaled(found: OnGrid, factor: float) -> OnGrid:
    """The same levels for a multiple, by a positive factor, of what they stood for."""
    return replace(found, scale=found.scale * factor)
