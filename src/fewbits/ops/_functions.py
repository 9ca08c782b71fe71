"""The functions that are approximated: exact values, bounds of their derivatives, and what they approach far away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Line = tuple[float, float]
"""Value at zero and slope."""
Bounds = Callable[[Array, Array], Array]
"""Upper bounds of ``|derivative|`` on intervals ``[a, b]``."""


@dataclass(frozen=True)
class Function:
    """A function of one number.

    Attributes:
        exact: in float64, by torch. first, second: bounds of the absolute first and second derivative on intervals.
        domain: the usual one. low: it is defined above this number only.
        left, right: the line that it approaches, if there is one.
        settled: beyond this distance from zero its distance to these lines only falls; ``furthest``: the largest
            distance before.
    """

    name: str
    exact: Callable[[Any], Any]
    first: Bounds
    second: Bounds
    domain: tuple[float, float]
    low: float = -math.inf
    left: Line | None = None
    right: Line | None = None
    settled: float = 0.0
    furthest: float = math.inf

    def __call__(self, x: Any) -> Array:
        """Exact values of float64 numbers, to a few units in the last place."""
        found: Array = self.exact(torch.from_numpy(np.asarray(x, np.float64))).numpy()
        return found

    def far(self, x: float, side: str) -> float:
        """Bound of the distance to the line that is approached, from ``x`` on outwards."""
        line = self.left if side == "left" else self.right
        if line is None:
            return math.inf
        if (x > -self.settled) if side == "left" else (x < self.settled):
            return self.furthest
        return abs(float(self(np.array(x))) - (line[0] + line[1] * x))


def _constant(value: float) -> Bounds:
    return lambda a, b: np.full(np.broadcast(a, b).shape, value)


_K, _C = math.sqrt(2 / math.pi), 0.044715


def _tanh_gelu_bounds(a: Array, b: Array) -> tuple[Array, Array]:
    """Interval arithmetic: with u = k (x + c x^3), f' = (1 + t) / 2 + x t' / 2 and f'' = t' + x t'' / 2, t = tanh u."""
    near = np.where((a <= 0) & (b >= 0), 0.0, np.minimum(np.abs(a), np.abs(b)))
    x = np.maximum(np.abs(a), np.abs(b))
    square = 1 / np.cosh(np.minimum(_K * (near + _C * near**3), 300)) ** 2
    u1, u2 = _K * (1 + 3 * _C * x**2), 6 * _K * _C * x
    return 1 + x * square * u1 / 2, square * u1 + x * square * (u2 + 2 * u1**2) / 2


FUNCTIONS = {
    f.name: f
    for f in (
        Function(
            "sigmoid", torch.sigmoid, _constant(1 / 4), _constant(1 / (6 * math.sqrt(3))), (-8, 8),
            left=(0, 0), right=(1, 0), furthest=0.5,
        ),
        Function(
            "tanh", torch.tanh, _constant(1), _constant(4 / (3 * math.sqrt(3))), (-4, 4),
            left=(-1, 0), right=(1, 0), furthest=1.0,
        ),
        # s' (2 + x (1 - 2 s)) lies below 2 s' <= 1/2, and above -|x| exp(-|x|) >= -1/e
        Function(
            "silu", torch.nn.functional.silu, _constant(1.1), _constant(1 / 2), (-8, 8),
            left=(0, 0), right=(0, 1), settled=1.2785, furthest=0.2785,
        ),
        # density times (2 - x^2)
        Function(
            "gelu", torch.nn.functional.gelu, _constant(1.129), _constant(_K), (-8, 8),
            left=(0, 0), right=(0, 1), settled=0.752, furthest=0.17,
        ),
        Function(
            "gelu_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
            lambda a, b: _tanh_gelu_bounds(a, b)[0], lambda a, b: _tanh_gelu_bounds(a, b)[1], (-8, 8),
            left=(0, 0), right=(0, 1), settled=0.76, furthest=0.1701,
        ),
        # 4 x exp(-x^2) / sqrt(pi) is largest at 1 / sqrt(2)
        Function(
            "erf", torch.erf, _constant(2 / math.sqrt(math.pi)), _constant(math.sqrt(8 / math.pi) * math.exp(-0.5)),
            (-3, 3), left=(-1, 0), right=(1, 0), furthest=1.0,
        ),
        Function("exp", torch.exp, lambda a, b: np.exp(b), lambda a, b: np.exp(b), (-math.log(2), 0), left=(0, 0)),
        Function(
            "exp2", torch.exp2, lambda a, b: math.log(2) * np.exp2(b), lambda a, b: math.log(2) ** 2 * np.exp2(b),
            (0, 1), left=(0, 0),
        ),
        Function("log", torch.log, lambda a, b: 1 / a, lambda a, b: a**-2.0, (1, 2), low=0),
        Function(
            "reciprocal", torch.reciprocal, lambda a, b: a**-2.0, lambda a, b: 2 * a**-3.0, (1, 2), low=0,
            right=(0, 0),
        ),
        Function(
            "rsqrt", torch.rsqrt, lambda a, b: 0.5 * a**-1.5, lambda a, b: 0.75 * a**-2.5, (1, 4), low=0,
            right=(0, 0),
        ),
    )
}  # fmt: skip
"""By name."""

CORES = {
    "exp": "exp2", "softmax": "exp2", "log": "log", "reciprocal": "reciprocal", "rsqrt": "rsqrt",
    "layer_norm": "rsqrt", "rms_norm": "rsqrt",
}  # fmt: skip
"""The function that is approximated, on its usual domain, once powers of two are split off."""
