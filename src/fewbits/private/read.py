"""What an encrypted program has to compute: a network as affine maps between squares and products."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fewbits.approximation import Approximation, approximations_of
from fewbits.attach.plain import plain_copy
from fewbits.errors import UnsupportedError
from fewbits.graph.traced import defaults_of, graph_of
from fewbits.ops.swap import Mode
from fewbits.private._affine import JOINS, PARTS, PRODUCTS, SHAPED, TURNS, is_affine, keeps
from fewbits.private.form import CHUNK, Form, MixedError, TooLargeError, added, flat, mapped
from fewbits.private.polynomial import Polynomial, polynomial_of

INPUT = "input"
MOST_NUMBERS = 2**14  # of a value that is encrypted: the slots of the largest degree
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUBTRACT = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_MULTIPLY = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_DIVIDE = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_SQUARE = (torch.square, "square", "square_")
_POWER = (operator.pow, torch.pow, "pow")


@dataclass(frozen=True)
class Node:
    """A value that is computed by itself: a square, a product of two values, or a value that others read twice.

    Attributes:
        name: as forms of later values call it. where: the layer that it is of, in words.
        form: of which it is the square, or the value itself. other: with which the form is multiplied, else ``None``.
        squared: whether it is a square. shape: of the value.
    """

    name: str
    where: str
    form: Form
    squared: bool = True
    other: Form | None = None
    shape: tuple[int, ...] = ()


@dataclass
class Reading:
    """A network's nodes in order, its output, and the shape of a sample."""

    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    output: Form = field(default_factory=lambda: Form({}, torch.zeros(0)))


def read(model: nn.Module, shape: tuple[int, ...]) -> Reading:
    """A network's arithmetic, in float64.

    Args:
        model: plain or attached; it is not changed. shape: of a sample.

    Raises:
        UnsupportedError: a layer that cannot be computed on encrypted numbers, by its name, and what to do.
    """
    approximations = approximations_of(model)
    model = plain_copy(model).double().eval()
    return _Reader(model, shape, approximations).read()


class _Reader:
    def __init__(self, model: nn.Module, shape: tuple[int, ...], approximations: Mapping[str, Approximation]) -> None:
        self.model, self.approximations = model, approximations
        self.graph = graph_of(model, fixed=defaults_of(model), way="write its forward so that it can be traced")
        self.modules = dict(model.named_modules())
        self.reading = Reading(shape)
        self.values: dict[fx.Node, Any] = {}

    @torch.no_grad()
    def read(self) -> Reading:
        shape = self.reading.shape
        size = int(torch.Size(shape).numel())
        taken = False
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if taken:
                    raise UnsupportedError(
                        f"the network takes a second input, {node.target!r}; an encrypted one takes one"
                    )
                taken = True
                if size > MOST_NUMBERS:
                    raise UnsupportedError(
                        f"an input of {size:,} numbers is encrypted in {MOST_NUMBERS:,} slots at most"
                    )
                unit = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
                self.values[node] = Form({INPUT: unit}, torch.zeros(shape, dtype=torch.float64))
            elif node.op == "output":
                found = self._value(node.args[0])
                if not isinstance(found, Form):
                    raise UnsupportedError("an encrypted network returns one tensor")
                if not found.terms:
                    raise _no_input("the output")
                self.reading.output = flat(found)
            elif node.op == "get_attr":
                value: Any = self.model
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                constant = isinstance(value, Tensor) and value.is_floating_point()  # of the forward's own
                self.values[node] = value.double() if constant else value
            else:
                try:
                    self.values[node] = self._call(node)
                except TooLargeError as error:
                    raise UnsupportedError(
                        f"{self._where(node)}: {error}; take a smaller image, fewer channels, or pool before it"
                    ) from None
                except MixedError:
                    raise UnsupportedError(
                        f"{self._where(node)}: a sample's values depend on the batch that it is in; an encrypted "
                        "sample is computed with alone"
                    ) from None
        return self.reading

    def _value(self, arg: Any) -> Any:
        return fx.node.map_arg(arg, lambda node: self.values[node])

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self._value(node.args), dict(self._value(node.kwargs))
        first = next((name for name in ("input", "tensors") if name in kwargs), None)
        if first is not None and not args:
            args = (kwargs.pop(first),)
        forms = [value for value in (*args, *kwargs.values()) if isinstance(value, Form)]
        target: Any = node.target
        if node.op == "call_module":
            target = self.modules[str(target)]
        listed = [value for arg in args if isinstance(arg, list | tuple) for value in arg if isinstance(value, Form)]
        if listed and target is operator.getitem:
            return args[0][args[1]]  # of several values
        if listed and (target in JOINS or target is torch.stack):
            return self._joined(node, list(args[0]), *args[1:], stacked=target is torch.stack, **kwargs)
        if not forms:
            return self._run(node, target, args, kwargs)
        if target is getattr and args[1] not in TURNS:
            return getattr(_zeros(forms[0]), args[1])
        if target in SHAPED or (keeps(target, args, kwargs) and not isinstance(args[0], Form)):
            return self._run(node, target, *_given(args, kwargs, _zeros))
        if keeps(target, args, kwargs):
            return forms[0]
        if target in _ADD or target in _SUBTRACT:
            return self._sum(node, args, kwargs, -1.0 if target in _SUBTRACT else 1.0)
        if target in _MULTIPLY:
            return self._product(node, *args[:2])
        if target in _DIVIDE and not isinstance(args[1], Form):
            return mapped(forms[0], lambda x: x / args[1])
        if target in _SQUARE:
            return self._square(node, forms[0])
        if target in _POWER and args[1] in (1, 2, 3, 4):
            return self._polynomial(node, forms[0], Polynomial((0.0,) * int(args[1]) + (1.0,)))
        if target in ("view_as", "reshape_as", "expand_as") and args[0] is forms[0]:
            return mapped(forms[0], lambda x: getattr(x, target)(_zeros(args[1]) if len(forms) > 1 else args[1]))
        if len(forms) == 1:
            run = self._running(node, target, args, kwargs)
            if target is getattr or target in PRODUCTS or (args[:1] == (forms[0],) and is_affine(target)):
                return mapped(forms[0], run)
            if target in PARTS and args[:1] == (forms[0],):
                count = len(run(_zeros(forms[0])))
                return tuple(mapped(forms[0], partial(_part, run, part)) for part in range(count))
        if target in PRODUCTS:
            raise UnsupportedError(
                f"{self._where(node)}: it multiplies encrypted values with each other; they are multiplied by weights "
                "(nn.Linear, x @ weight), and with each other one by one (x * y)"
            )
        return self._approximated(node, target, forms[0], args, kwargs)

    def _running(self, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        """The operation as a function of the one value among its arguments."""
        return lambda x: self._run(node, target, *_given(args, kwargs, lambda form: x))

    def _run(self, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        if node.op == "call_method":
            return getattr(args[0], str(target))(*args[1:], **kwargs)
        return target(*args, **kwargs)

    def _sum(self, node: fx.Node, args: Any, kwargs: Any, sign: float) -> Form:
        left, right = args[:2]
        sign *= float(kwargs.get("alpha", 1.0))
        if not isinstance(left, Form):
            return mapped(mapped(right, lambda x: sign * x), lambda x: x + left)
        if not isinstance(right, Form):
            return mapped(left, lambda x: x + sign * right)
        if len(left.shape) != len(right.shape):
            raise MixedError
        return added(left, right, sign)

    def _joined(self, node: fx.Node, parts: list[Any], dim: int = 0, *, stacked: bool) -> Form:
        parts = [self._constant(part) if isinstance(part, Tensor) else part for part in parts]
        if stacked:
            parts = [mapped(part, lambda x: x.unsqueeze(dim)) for part in parts]
        zeros = [_zeros(part) for part in parts]
        found: Form | None = None
        for place, part in enumerate(parts):
            one = mapped(part, partial(_beside, zeros, place, dim))
            found = one if found is None else added(found, one, 1.0)
        assert found is not None
        return found

    def _constant(self, value: Tensor) -> Form:
        """What is the same for each sample."""
        if len(value) != CHUNK or not torch.equal(value, value[:1].expand_as(value)):
            raise MixedError
        return Form({}, value[0].double())

    def _product(self, node: fx.Node, left: Any, right: Any) -> Form:
        if left is right:
            return self._square(node, left)
        if not isinstance(left, Form):
            left, right = right, left
        if not isinstance(right, Form):
            return mapped(left, lambda x: x * right)
        if len(left.shape) != len(right.shape):
            raise MixedError
        if left.shape != right.shape:
            sizes = (CHUNK, *np.broadcast_shapes(left.shape, right.shape))
            left, right = (mapped(value, partial(Tensor.expand, size=sizes)) for value in (left, right))
        return self._new(node, left, squared=False, other=right)

    def _square(self, node: fx.Node, form: Form) -> Form:
        return self._new(node, form, squared=True)

    def _new(self, node: fx.Node, form: Form, squared: bool, other: Form | None = None) -> Form:
        """A node of its own, and the value as an affine function of it."""
        if not form.terms:
            raise _no_input(self._where(node))
        if form.bias.numel() > MOST_NUMBERS:
            raise TooLargeError(
                f"its {form.bias.numel():,} numbers are more than a ciphertext's {MOST_NUMBERS:,} slots"
            )
        name = f"{node.name}.{len(self.reading.nodes)}"
        second = None if other is None else flat(other)
        self.reading.nodes.append(Node(name, self._where(node), flat(form), squared, second, form.shape))
        size = form.bias.numel()
        unit = torch.eye(size, dtype=torch.float64).reshape(size, *form.shape)
        return Form({name: unit}, torch.zeros_like(form.bias))

    def _polynomial(self, node: fx.Node, form: Form, polynomial: Polynomial) -> Form:
        """Degree 2 is one square of a shifted value; 3 a square and a product; 4 two squares."""
        c = polynomial.coefficients
        if polynomial.degree == 1:
            return mapped(form, lambda x: c[0] + c[1] * x)
        shift, rest = polynomial.depressed()
        moved = mapped(form, lambda x: x + shift)
        if polynomial.degree == 2:
            square = self._square(node, moved)
            return mapped(square, lambda x: rest[2] * x + rest[0])
        moved = self._new(node, moved, squared=False)  # read twice, so computed once
        square = self._square(node, moved)
        if polynomial.degree == 3:  # a u^3 + b u + c = a u (u^2 + b / a) + c
            inner = mapped(square, lambda x: x + rest[1] / rest[3])
            product = self._new(node, inner, squared=False, other=moved)
            return mapped(product, lambda x: rest[3] * x + rest[0])
        half = rest[2] / (2 * rest[4])  # a u^4 + b u^2 + c u + d = a (u^2 + b / 2a)^2 + c u + d - b^2 / 4a
        outer = self._square(node, mapped(square, lambda x: x + half))
        found = mapped(outer, lambda x: rest[4] * x + rest[0] - rest[4] * half**2)
        return found if rest[1] == 0 else added(found, mapped(moved, lambda x: rest[1] * x), 1.0)

    def _approximated(self, node: fx.Node, target: Any, form: Form, args: Any, kwargs: Any) -> Form:
        seen: list[str] = []
        probe = torch.zeros(1, *form.shape, dtype=torch.float64)
        given = tuple(probe if value is form else value for value in args)
        if not any(isinstance(value, Form | list | tuple) for value in given):
            with Mode({}, lambda name, x, options: seen.append(name)):
                try:
                    self._run(node, target, given, {k: probe if v is form else v for k, v in kwargs.items()})
                except Exception:  # whatever it is, it is refused below
                    seen = []
        operation = seen[0] if len(seen) == 1 else None
        if operation is None:
            raise self._refused(node, None)
        if operation not in self.approximations:
            raise self._refused(node, None, operation)
        found = polynomial_of(self.approximations[operation])
        if found is None:
            raise self._refused(node, f"is {self.approximations[operation]}", operation)
        return self._polynomial(node, form, found)

    def _where(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return str(node.target)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        inside = str(stack[-1][0]) if stack else ""
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"{inside}.{name}" if inside else str(name)

    def _refused(self, node: fx.Node, why: str | None, operation: str | None = None) -> UnsupportedError:
        kind = type(self.modules[str(node.target)]).__name__ if node.op == "call_module" else "a function"
        why = why or "has no polynomial"
        out = "put a square (x * x) or average pooling in its place, and train the network with it"
        if operation is not None:
            out = f"swap {operation} for a polynomial of one piece and degree 2 (ops in a recipe), and train with it"
        return UnsupportedError(
            f"{self._where(node)} ({kind}) cannot be computed on encrypted numbers, since it {why}: {out}"
        )


def _given(args: Any, kwargs: Any, as_tensor: Any) -> tuple[Any, Any]:
    """Arguments with a tensor in the place of each value."""
    change = lambda value: as_tensor(value) if isinstance(value, Form) else value  # noqa: E731
    return tuple(map(change, args)), {name: change(value) for name, value in kwargs.items()}


def _part(run: Any, number: int, x: Tensor) -> Tensor:
    part: Tensor = run(x)[number]
    return part


def _beside(zeros: list[Tensor], place: int, dim: int, x: Tensor) -> Tensor:
    """A value in its place between zeros."""
    return torch.cat([*zeros[:place], x, *zeros[place + 1 :]], dim)


def _zeros(form: Form) -> Tensor:
    return torch.zeros(CHUNK, *form.shape, dtype=torch.float64)


def _no_input(where: str) -> UnsupportedError:
    return UnsupportedError(f"{where}: all its weights are zero, so its outputs depend on no input: leave it out")
