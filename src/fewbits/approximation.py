"""What a network computes in place of an operation, as data: a plan carries it, and a file holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from fewbits.errors import RecipeError

KINDS = ("lines", "polynomial", "table", "integer", "squared-relu", "relu")
"""In the order of their numbers in a file."""
OPERATIONS = (
    "sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "erf", "exp", "log", "reciprocal", "rsqrt", "softmax",
    "layer_norm", "rms_norm", "exp2",
)  # fmt: skip
"""In the order of their numbers in a file; the last one only within others."""
REDUCED = ("exp", "log", "reciprocal", "rsqrt", "softmax", "layer_norm", "rms_norm")
"""Operations whose numbers are split into a power of two and a rest, which alone is approximated."""
MOST_PIECES, MOST_DEGREE = 1 << 12, 15
MOST_BITS = {"softmax": 14, "layer_norm": 16, "rms_norm": 16}
"""Of integers; all others have at most twelve."""


@dataclass(frozen=True)
class Pieces:
    """A piecewise polynomial: on piece i it is ``sum_k coefficients[i][k] * ((x - middle_i) / scale) ** k``.

    Attributes:
        knots: n + 1 increasing float32 numbers; piece i goes from ``knots[i]`` up to ``knots[i + 1]``. Of integers,
            whole numbers.
        coefficients: n rows of ``degree + 1`` float32 numbers. Of integers, whole numbers in units of
            ``2**-shift``, and the middle is the piece's first knot.
        scale: a power of two.
        left, right: the line beyond the first and the last knot, its value at zero and its slope; ``None``: an error.
        shift: of integers, how many bits are dropped at the end; 0 for others.
    """

    knots: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    scale: float = 1.0
    left: tuple[float, float] | None = None
    right: tuple[float, float] | None = None
    shift: int = 0

    def __post_init__(self) -> None:
        knots, rows = np.array(self.knots), self.coefficients
        if not 1 <= len(rows) <= MOST_PIECES or len(knots) != len(rows) + 1:
            raise RecipeError(f"{len(rows)} pieces (1..{MOST_PIECES}) have one knot more, got {len(knots)}")
        if not (np.isfinite(knots).all() and (np.diff(knots) > 0).all()):
            raise RecipeError("the knots of an approximation are finite and increase")
        if len({len(row) for row in rows}) != 1 or not 1 <= len(rows[0]) <= MOST_DEGREE + 1:
            raise RecipeError(f"all pieces of an approximation have one degree, at most {MOST_DEGREE}")
        outer = [number for line in (self.left, self.right) if line is not None for number in line]
        if not np.isfinite(np.array([*(c for row in rows for c in row), *outer])).all():
            raise RecipeError("the numbers of an approximation are finite")
        if not (np.isfinite(self.scale) and self.scale > 0) or float(np.frexp(self.scale)[0]) != 0.5:
            raise RecipeError(f"the scale of an approximation is a power of two, got {self.scale:g}")
        if not 0 <= self.shift <= 30:
            raise RecipeError(f"an approximation drops 0..30 bits, got {self.shift}")

    @property
    def degree(self) -> int:
        """Of each piece."""
        return len(self.coefficients[0]) - 1

    @property
    def domain(self) -> tuple[float, float]:
        """Where the bound holds."""
        return self.knots[0], self.knots[-1]

    @property
    def numbers(self) -> int:
        """How many numbers it needs, the knots included."""
        return len(self.knots) + len(self.coefficients) * len(self.coefficients[0])


@dataclass(frozen=True)
class Approximation:
    """What is computed in place of an operation.

    Attributes:
        operation: one of ``OPERATIONS``. kind: one of ``KINDS``.
        pieces: of lines, polynomials, tables and integers of functions of one number; of an operation in ``REDUCED``
            that has no domain of its own, those of its core (``2**x`` on [0, 1] and the like).
        reduced: whether numbers are split into a power of two and a rest.
        bits: of integers. units: of integers, the step of the inputs and that of the outputs.
        bound: largest error inside the domain, float32 rounding included; infinite where none is proven, as of
            replacements.
        relative: whether that is a share of the exact value (of a normalisation: of its output before scale and shift).
        outside: the same beyond the domain, without any: infinity.
    """

    operation: str
    kind: str
    pieces: Pieces | None = None
    reduced: bool = False
    bits: int = 0
    units: tuple[float, float] = (1.0, 1.0)
    bound: float = float("inf")
    relative: bool = False
    outside: float = float("inf")

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS or self.kind not in KINDS:
            raise RecipeError(f"no approximation of {self.operation!r} by {self.kind!r}")
        if self.reduced and self.operation not in REDUCED:
            raise RecipeError(f"{self.operation} is not reduced to powers of two")
        integer, whole = self.kind == "integer", self.operation in MOST_BITS
        if integer != (self.bits > 0) or (integer and not 2 <= self.bits <= MOST_BITS.get(self.operation, 12)):
            raise RecipeError(f"integers of {self.operation} have 2..{MOST_BITS.get(self.operation, 12)} bits")
        replaced = self.kind in KINDS[4:]
        if replaced and (self.kind == "relu") != (self.operation == "softmax"):
            raise RecipeError(f"no approximation of {self.operation!r} by {self.kind!r}")
        if (self.pieces is None) != (replaced or (integer and whole)):
            raise RecipeError(f"{self.operation} by {self.kind} {'needs' if self.pieces is None else 'has no'} pieces")
        if whole and not integer and not replaced and not self.reduced:
            raise RecipeError(f"{self.operation} by {self.kind} is reduced to powers of two")
        if self.pieces is not None and (self.pieces.shift > 0) > integer:
            raise RecipeError("only integers drop bits")
        if self.pieces is not None and integer:
            whole_numbers = [*self.pieces.knots, *(c for row in self.pieces.coefficients for c in row)]
            if self.pieces.degree != 1 or not all(c == int(c) and abs(c) < 2**24 for c in whole_numbers):
                raise RecipeError("integers are lines of whole numbers below 2**24")
        if not all(np.isfinite(step) and step > 0 for step in self.units) or not (self.bound >= 0 <= self.outside):
            raise RecipeError("units of an approximation are positive, and its bounds are no NaN")
        for name in ("bound", "outside"):  # float32, as a file has it; upwards
            value = np.float32(getattr(self, name))
            above = value if float(value) >= getattr(self, name) else np.nextafter(value, np.float32(np.inf))
            object.__setattr__(self, name, float(above))

    @property
    def work(self) -> int:
        """Comparisons, multiplications and additions for a value, where nothing is vectorised; 0 where none is counted.

        A table's place is a multiplication; a free knot is found by halving.
        """
        if self.pieces is None:
            return 0
        places = 1 if self.kind == "table" else int(np.ceil(np.log2(len(self.pieces.coefficients))))
        return places + 2 * self.pieces.degree + 1

    def __str__(self) -> str:
        if self.pieces is None:
            form = f"{self.bits}-bit integers" if self.bits else self.kind
        elif self.kind == "integer":
            form = f"{self.bits}-bit integers, {len(self.pieces.coefficients)} lines"
        elif self.kind == "polynomial":
            form = f"a polynomial of degree {self.pieces.degree}"
        else:
            form = f"{'a table of ' if self.kind == 'table' else ''}{len(self.pieces.coefficients)} "
            form += "places" if self.kind == "table" else "lines"
        return f"{self.operation} by {form}"


Approximations = Mapping[str, Approximation]
"""By the name of the operation."""

HOOK = "approximations"  # an attribute of what hooks into the forward pass of a network with approximations


def approximations_of(model: nn.Module) -> dict[str, Approximation]:
    """What a network computes in place of its operations: nothing, for one that nobody swapped any in."""
    for hook in model._forward_pre_hooks.values():
        found = getattr(getattr(hook, "__self__", None), HOOK, None)
        if found is not None:
            return dict(found)
    return {}
