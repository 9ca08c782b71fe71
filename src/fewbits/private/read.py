"""What an encrypted program has to compute: a network as affine maps between squares and products."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fewbits.approximation import Approximation, approximations_of
from fewbits.attach.plain import plain_copy
from fewbits.errors import UnsupportedError
from fewbits.graph.traced import defaults_of, graph_of
from fewbits.ops.swap import Mode
from fewbits.private.polynomial import Polynomial, polynomial_of
from fewbits.weights import NORMS

CHUNK = 64  # samples that go through an operation together
INPUT = "input"
MOST_NUMBERS = 2**14  # of a value that is encrypted: the slots of the largest degree
MOST_WEIGHTS = 2**27  # of the matrices of one value, a gigabyte
_MODULES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Flatten,
    nn.Unflatten,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Upsample,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
_FUNCTIONS = (
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.mean, torch.sum,
    torch.neg, operator.neg, operator.getitem, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.dropout, F.dropout2d, F.pad, F.interpolate, F.linear, F.conv1d,
    F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, torch.matmul, operator.matmul,
)  # fmt: skip
_METHODS = (
    "view", "reshape", "flatten", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "mean", "sum", "neg",
)  # fmt: skip
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUBTRACT = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_MULTIPLY = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_DIVIDE = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_SQUARE = (torch.square, "square", "square_")
_POWER = (operator.pow, torch.pow, "pow")


@dataclass
class Form:
    """A value as an affine function of others: by source a float64 tensor [its numbers, *shape], and a bias."""

    terms: dict[str, Tensor]
    bias: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.bias.shape)


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
                    raise _constant("the output")
                self.reading.output = _flat(found)
            elif node.op == "get_attr":
                value: Any = self.model
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                constant = isinstance(value, Tensor) and value.is_floating_point()  # of the forward's own
                self.values[node] = value.double() if constant else value
            else:
                try:
                    self.values[node] = self._call(node)
                except _TooLargeError as error:
                    raise UnsupportedError(
                        f"{self._where(node)}: {error}; take a smaller image, fewer channels, or pool before it"
                    ) from None
        return self.reading

    def _value(self, arg: Any) -> Any:
        return fx.node.map_arg(arg, lambda node: self.values[node])

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self._value(node.args), self._value(node.kwargs)
        forms = [value for value in (*args, *kwargs.values()) if isinstance(value, Form)]
        target: Any = node.target
        if node.op == "call_module":
            target = self.modules[str(target)]
        listed = [value for arg in args if isinstance(arg, list | tuple) for value in arg if isinstance(value, Form)]
        if target in (torch.cat, torch.concat) and listed:
            return self._joined(node, args, kwargs)
        if not forms:
            return self._run(node, target, args, kwargs)
        if target == "size" or (target is getattr and args[1] in ("shape", "ndim")) or target == "dim":
            return self._about(forms[0], target, args)
        if target in _ADD or target in _SUBTRACT:
            return self._sum(node, args, kwargs, -1.0 if target in _SUBTRACT else 1.0)
        if target in _MULTIPLY:
            return self._product(node, *args[:2])
        if target in _DIVIDE and not isinstance(args[1], Form):
            return _mapped(forms[0], lambda x: x / args[1])
        if target in _SQUARE:
            return self._square(node, forms[0])
        if target in _POWER and args[1] in (1, 2, 3, 4):
            return self._polynomial(node, forms[0], Polynomial((0.0,) * int(args[1]) + (1.0,)))
        if len(forms) == 1 and args and args[0] is forms[0] and self._affine(target):
            return _mapped(forms[0], lambda x: self._run(node, target, (x, *args[1:]), kwargs))
        return self._approximated(node, target, forms[0], args, kwargs)

    def _affine(self, target: Any) -> bool:
        if isinstance(target, nn.Module):
            own = next((kind for kind in type(target).__mro__ if kind in _MODULES), None)
            if own is None or type(target).forward is not own.forward:
                return False
            return not isinstance(target, NORMS) or target.running_mean is not None
        return target in _FUNCTIONS or target in _METHODS

    def _run(self, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        if node.op == "call_method":
            return getattr(args[0], str(target))(*args[1:], **kwargs)
        return target(*args, **kwargs)

    def _about(self, form: Form, target: Any, args: Any) -> Any:
        sizes = torch.Size((CHUNK, *form.shape))
        if target == "dim" or args[1:] == ("ndim",):
            return len(sizes)
        return sizes if args[1:] in ((), ("shape",)) else sizes[args[1]]

    def _sum(self, node: fx.Node, args: Any, kwargs: Any, sign: float) -> Form:
        left, right = args[:2]
        sign *= float(kwargs.get("alpha", 1.0))
        if not isinstance(left, Form):
            return _mapped(_mapped(right, lambda x: sign * x), lambda x: x + left)
        if not isinstance(right, Form):
            return _mapped(left, lambda x: x + sign * right)
        return _added(left, right, sign)

    def _joined(self, node: fx.Node, args: Any, kwargs: Any) -> Form:
        parts = list(args[0])
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if not all(isinstance(part, Form) for part in parts) or dim == 0:
            raise self._refused(node, "joins something else than channels of values")
        found: Form | None = None
        for place, part in enumerate(parts):
            zeros = [torch.zeros(other.shape, dtype=torch.float64) for other in parts]

            def run(x: Tensor, place: int = place, zeros: list[Tensor] = zeros) -> Tensor:
                return torch.cat([x if n == place else z.expand(len(x), *z.shape) for n, z in enumerate(zeros)], dim)

            one = _mapped(part, run)
            found = one if found is None else _added(found, one, 1.0)
        assert found is not None
        return found

    def _product(self, node: fx.Node, left: Any, right: Any) -> Form:
        if left is right:
            return self._square(node, left)
        if not isinstance(left, Form):
            left, right = right, left
        if not isinstance(right, Form):
            return _mapped(left, lambda x: x * right)
        if left.shape != right.shape:
            raise self._refused(node, "multiplies values of different shapes")
        return self._new(node, left, squared=False, other=right)

    def _square(self, node: fx.Node, form: Form) -> Form:
        return self._new(node, form, squared=True)

    def _new(self, node: fx.Node, form: Form, squared: bool, other: Form | None = None) -> Form:
        """A node of its own, and the value as an affine function of it."""
        if not form.terms:
            raise _constant(self._where(node))
        if form.bias.numel() > MOST_NUMBERS:
            raise _TooLargeError(
                f"its {form.bias.numel():,} numbers are more than a ciphertext's {MOST_NUMBERS:,} slots"
            )
        name = f"{node.name}.{len(self.reading.nodes)}"
        flat = None if other is None else _flat(other)
        self.reading.nodes.append(Node(name, self._where(node), _flat(form), squared, flat, form.shape))
        size = form.bias.numel()
        unit = torch.eye(size, dtype=torch.float64).reshape(size, *form.shape)
        return Form({name: unit}, torch.zeros_like(form.bias))

    def _polynomial(self, node: fx.Node, form: Form, polynomial: Polynomial) -> Form:
        """Degree 2 is one square of a shifted value; 3 a square and a product; 4 two squares."""
        c = polynomial.coefficients
        if polynomial.degree == 1:
            return _mapped(form, lambda x: c[0] + c[1] * x)
        shift, rest = polynomial.depressed()
        moved = _mapped(form, lambda x: x + shift)
        if polynomial.degree == 2:
            square = self._square(node, moved)
            return _mapped(square, lambda x: rest[2] * x + rest[0])
        moved = self._new(node, moved, squared=False)  # read twice, so computed once
        square = self._square(node, moved)
        if polynomial.degree == 3:  # a u^3 + b u + c = a u (u^2 + b / a) + c
            inner = _mapped(square, lambda x: x + rest[1] / rest[3])
            product = self._new(node, inner, squared=False, other=moved)
            return _mapped(product, lambda x: rest[3] * x + rest[0])
        half = rest[2] / (2 * rest[4])  # a u^4 + b u^2 + c u + d = a (u^2 + b / 2a)^2 + c u + d - b^2 / 4a
        outer = self._square(node, _mapped(square, lambda x: x + half))
        found = _mapped(outer, lambda x: rest[4] * x + rest[0] - rest[4] * half**2)
        return found if rest[1] == 0 else _added(found, _mapped(moved, lambda x: rest[1] * x), 1.0)

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


def _constant(where: str) -> UnsupportedError:
    return UnsupportedError(f"{where}: all its weights are zero, so its outputs depend on no input: leave it out")


class _TooLargeError(Exception):
    """A value of more numbers than can be computed with; where it is, is said by who knows."""


def _mapped(form: Form, run: Any) -> Form:
    """A form behind an affine operation on samples."""
    zero = _chunked(torch.zeros_like(form.bias)[None], run)[0]
    weights = zero.numel() * sum(len(unit) for unit in form.terms.values())
    if weights > MOST_WEIGHTS:
        raise _TooLargeError(f"its matrix of {weights:,} weights is more than {MOST_WEIGHTS:,}")
    terms = {name: _chunked(unit, run) - zero for name, unit in form.terms.items()}
    terms = {name: matrix for name, matrix in terms.items() if matrix.any()}
    return Form(terms, _chunked(form.bias[None], run)[0])


def _chunked(rows: Tensor, run: Any) -> Tensor:
    """An operation on samples, some at a time, always as many as ``CHUNK``: shapes in the graph count on it."""
    found = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        padded = torch.cat([part, part.new_zeros(CHUNK - len(part), *part.shape[1:])]) if len(part) < CHUNK else part
        found.append(run(padded)[: len(part)])
    return torch.cat(found)


def _added(left: Form, right: Form, sign: float) -> Form:
    terms = dict(left.terms)
    for name, term in right.terms.items():
        terms[name] = terms[name] + sign * term if name in terms else sign * term + torch.zeros_like(left.bias)
    bias = left.bias + sign * right.bias
    return Form({name: term.expand(len(term), *bias.shape) for name, term in terms.items() if term.any()}, bias)


def _flat(form: Form) -> Form:
    return Form({name: term.reshape(len(term), -1) for name, term in form.terms.items()}, form.bias.reshape(-1))
