"""Approximations in torch: the same numbers in eager mode, in an exported graph, and on every device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits.approximation import Approximation, Pieces
from fewbits.errors import DataError
from fewbits.ops import _integer as integer
from fewbits.ops._functions import FUNCTIONS
from fewbits.ops._proof import middles

LOG2E = math.log2(math.e)


def exporting() -> bool:
    """Whether a graph is being made, which has no operators for some of what eager mode does at once."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def search(x: Tensor, knots: Tensor) -> Tensor:
    """How many of the increasing knots are at most x. NaN counts as above all.

    In a graph by halving, which needs comparisons and gathers only.
    """
    if not exporting():
        return torch.bucketize(x.contiguous(), knots, right=True)
    found = torch.zeros_like(x, dtype=torch.int64)
    half = (1 << len(knots).bit_length()) // 2
    while half:
        ahead = found + (half - 1)  # places behind the last knot are never taken
        above = (ahead < len(knots)) & (x >= knots[ahead.clamp(max=len(knots) - 1)])
        found = torch.where(above, found + half, found)
        half //= 2
    return found


class Piecewise:
    """The pieces as tensors, with a piece more on each side."""

    def __init__(self, name: str, pieces: Pieces) -> None:
        self.name, self.pieces = name, pieces
        outer = [line if line is not None else (0.0, 0.0) for line in (pieces.left, pieces.right)]
        width = max(pieces.degree + 1, 2)
        rows = np.zeros((len(pieces.coefficients) + 2, width), np.float32)
        rows[1:-1, : pieces.degree + 1] = pieces.coefficients
        at = np.zeros(len(rows), np.float32)
        at[1:-1] = middles(pieces)
        for place, (value, slope) in ((0, outer[0]), (-1, outer[1])):
            rows[place, :2] = value, slope * pieces.scale
        # The last knot belongs to the domain, so the line beyond begins behind it. A flat line needs no number beyond
        # its beginning: infinity times zero is none.
        knots = np.array(pieces.knots, np.float32)
        before, knots[-1] = _next(knots[0], -np.inf), _next(knots[-1], np.inf)
        self.low = float(before) if outer[0][1] == 0 else None
        self.high = float(knots[-1]) if outer[1][1] == 0 else None
        self.knots = torch.from_numpy(knots)
        self.rows, self.at = torch.from_numpy(rows.T.copy()), torch.from_numpy(at)
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """In float32, of float32.

        Raises:
            DataError: a number outside a domain that refuses them.
        """
        self._check(x)
        knots, rows, at = self._on(x.device)
        if self.low is not None or self.high is not None:
            x = x.clamp(self.low, self.high)
        place = search(x, knots)
        t = (x - at[place]) * (1 / self.pieces.scale)
        found = rows[-1][place]
        for row in rows[:-1].flip(0):
            found = found * t + row[place]
        return found

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device.type in ("cpu", "meta") or exporting():
            return self.knots.to(device), self.rows.to(device), self.at.to(device)
        if device not in self._elsewhere:
            self._elsewhere[device] = (self.knots.to(device), self.rows.to(device), self.at.to(device))
        return self._elsewhere[device]

    def _check(self, x: Tensor) -> None:
        if (self.pieces.left is not None and self.pieces.right is not None) or exporting() or not x.numel():
            return
        low, high = self.pieces.domain
        wrong = (x < low) if self.pieces.left is None else torch.zeros_like(x, dtype=torch.bool)
        if self.pieces.right is None:
            wrong = wrong | (x > high)
        if bool(wrong.any()):
            raise DataError(
                f"{self.name} got {float(x[wrong][0]):.4g}, outside of its domain [{low:.4g}, {high:.4g}]: fit it on a "
                "larger one, or with outside='clamp' or 'continue'"
            )


def _next(end: np.float32, towards: float) -> np.float32:
    """The float32 number behind an end, by a normal one at least: some runtimes take smaller ones for zero."""
    normal = np.float32(end + np.float32(math.copysign(2.0**-126, towards)))
    return normal if normal != end else np.nextafter(end, np.float32(towards))


POWERS = torch.tensor(2.0 ** np.arange(-126, 128, dtype=np.float64), dtype=torch.float32)


def _split(x: Tensor, every: int) -> tuple[Tensor, Tensor, Tensor]:
    """``x = rest * 2**exponent``, with exponents that are multiples of ``every`` and rests in [1, 2**every)."""
    if exporting():
        exponent = search(x, POWERS.to(x.device)).to(torch.float32) - 127
    else:
        exponent = torch.frexp(x)[1].to(torch.float32) - 1
    exponent = torch.floor(exponent / every) * every
    half = torch.floor(exponent / 2)  # in two steps, as one power may be infinite
    rest = x * torch.exp2(-half) * torch.exp2(half - exponent)
    return rest, exponent, half


class Evaluator:
    """An approximation as a function of tensors; made once, used often."""

    def __init__(self, approximation: Approximation) -> None:
        self.approximation = approximation
        self.core = None
        if approximation.pieces is not None and approximation.kind != "integer":
            self.core = Piecewise(approximation.operation, approximation.pieces)
        elif approximation.pieces is not None:
            numbers = approximation.pieces
            self.knots = torch.tensor(np.array(numbers.knots, np.int64))
            self.rows = torch.tensor(np.array(numbers.coefficients, np.int64).T.copy())

    def __call__(self, x: Tensor, **options: Any) -> Tensor:
        """The approximate values, in float32 and without a gradient.

        Args:
            options: of softmax ``dim``; of normalisations ``shape`` (the last dimensions), ``weight``, ``bias`` and
                ``eps``.
        """
        with torch.no_grad():
            return self._ways()[self.approximation.operation](x.detach().to(torch.float32), **options)

    def _ways(self) -> dict[str, Callable[..., Tensor]]:
        ways: dict[str, Callable[..., Tensor]] = dict.fromkeys(FUNCTIONS, self._one)
        if self.approximation.reduced:
            ways |= {"exp": self._exp, "log": self._log, "reciprocal": self._reciprocal, "rsqrt": self._rsqrt}
        return ways | {"softmax": self._softmax, "layer_norm": self._layer_norm, "rms_norm": self._rms_norm}

    def _one(self, x: Tensor) -> Tensor:
        if self.core is not None:
            return self.core(x)
        if self.approximation.kind == "squared-relu":
            return self.replaced(x)
        return self._integer_lines(x)

    def replaced(self, x: Tensor, dim: int = -1) -> Tensor:
        """A replacement, with its own gradient: squared ReLU (So et al. 2021), or ReLU over the length of the row in
        place of softmax (Wortsman et al. 2023)."""
        return torch.relu(x) ** 2 if self.approximation.kind == "squared-relu" else torch.relu(x) / x.shape[dim]

    # -- powers of two split off --------------------------------------------------------------------------

    def _exp(self, x: Tensor) -> Tensor:
        assert self.core is not None
        z = x * LOG2E
        whole = torch.floor(z).clamp(-150, 128)
        part = (z - whole).clamp(0, 1)
        half = torch.floor(whole / 2)
        return torch.where(torch.isnan(x), x, self.core(part) * torch.exp2(half) * torch.exp2(whole - half))

    def _log(self, x: Tensor) -> Tensor:
        assert self.core is not None
        inside = _normal(x) & (x > 0)
        rest, exponent, _ = _split(torch.where(inside, x, 1.0), 1)
        return torch.where(inside, self.core(rest) + exponent * math.log(2), torch.log(x))

    def _reciprocal(self, x: Tensor) -> Tensor:
        assert self.core is not None
        inside = _normal(x)
        rest, exponent, half = _split(torch.where(inside, x.abs(), 1.0), 1)
        found = self.core(rest) * torch.exp2(-half) * torch.exp2(half - exponent)
        return torch.where(inside, torch.where(x < 0, -found, found), torch.reciprocal(x))

    def _rsqrt(self, x: Tensor) -> Tensor:
        assert self.core is not None
        inside = _normal(x) & (x > 0)
        rest, exponent, _ = _split(torch.where(inside, x, 1.0), 2)
        return torch.where(inside, self.core(rest) * torch.exp2(-exponent / 2), torch.rsqrt(x))

    # -- rows ------------------------------------------------------------------------------------------------

    def _softmax(self, x: Tensor, dim: int = -1) -> Tensor:
        if self.approximation.kind == "relu":
            return self.replaced(x, dim)
        highest = x.amax(dim, keepdim=True)
        masked = highest == -math.inf  # a row that is masked as a whole: nothing is attended to
        found = self._shares(torch.where(masked, 0.0, x - highest), dim)
        return torch.where(masked, 0.0, found)

    def _shares(self, down: Tensor, dim: int) -> Tensor:
        if self.approximation.kind != "integer":
            powers = self._exp(down)
            return powers / powers.sum(dim, keepdim=True)
        bits = self.approximation.bits
        levels = torch.round(-down * 2.0 ** (bits + 4)).clamp(0, 32 << (bits + 4)).to(torch.int64)
        return self._integer_shares(levels, dim).to(torch.float32) * 2.0**-bits

    def _layer_norm(
        self, x: Tensor, shape: tuple[int, ...] = (), weight: Tensor | None = None, bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        return self._normalised(x, shape, weight, bias, eps, centre=True)

    def _rms_norm(
        self, x: Tensor, shape: tuple[int, ...] = (), weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        return self._normalised(x, shape, weight, None, 2.0**-23 if eps is None else eps, centre=False)

    def _normalised(
        self, x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float, *, centre: bool
    ) -> Tensor:
        dims = tuple(range(-max(len(shape), 1), 0))
        if self.approximation.kind == "integer":
            found = self._integer_rows(x, dims, eps, centre=centre)
        else:
            moved = x - x.mean(dims, keepdim=True) if centre else x
            found = moved * self._rsqrt((moved * moved).mean(dims, keepdim=True) + eps)
        found = found if weight is None else found * weight.to(torch.float32)
        return found if bias is None else found + bias.to(torch.float32)

    # -- integers ---------------------------------------------------------------------------------------------

    def levels(self, levels: Tensor, *, epsilon: int = 0) -> Tensor:
        """As :func:`fewbits.ops.reference`, bit for bit: int64 in, int64 out."""
        with torch.no_grad():
            if self.approximation.pieces is not None:
                return self._integer_line(levels)
            if self.approximation.operation == "softmax":
                bits = self.approximation.bits
                down = (levels.amax(-1, keepdim=True) - levels).clamp(max=32 << (bits + 4))
                return self._integer_shares(down, -1)
            centre = self.approximation.operation == "layer_norm"
            return self._integer_row(levels, (-1,), epsilon, centre=centre)

    def _integer_lines(self, x: Tensor) -> Tensor:
        unit, step = self.approximation.units
        return self._integer_line(torch.round(x * (1 / unit))).to(torch.float32) * step

    def _integer_line(self, levels: Tensor) -> Tensor:
        pieces = self.approximation.pieces
        assert pieces is not None
        low, high = (int(end) for end in pieces.domain)
        levels = levels.clamp(low, high).to(torch.int64)
        knots, rows = self.knots.to(levels.device), self.rows.to(levels.device)
        place = (search(levels, knots) - 1).clamp(0, rows.shape[1] - 1)
        sums = rows[0][place] + rows[1][place] * (levels - knots[place])
        return _down(sums, 2**pieces.shift)

    def _integer_shares(self, down: Tensor, dim: int) -> Tensor:
        powers = _exponential(down, self.approximation.bits + 4)
        total = powers.sum(dim, keepdim=True)
        return _down(powers * 2 ** (self.approximation.bits + 1) + total, 2 * total)

    def _integer_rows(self, x: Tensor, dims: tuple[int, ...], eps: float, *, centre: bool) -> Tensor:
        unit, step = self.approximation.units
        most = 2**15 - 1
        levels = torch.round(x * (1 / unit)).clamp(-most, most).to(torch.int64)
        found = self._integer_row(levels, dims, round(eps / unit**2), centre=centre)
        return found.to(torch.float32) * step

    def _integer_row(self, levels: Tensor, dims: tuple[int, ...], epsilon: int, *, centre: bool) -> Tensor:
        size = math.prod(levels.shape[dim] for dim in dims)
        moved = levels * size
        if centre:
            moved = moved - levels.sum(dims, keepdim=True)
        spread = _root(_down((moved * moved).sum(dims, keepdim=True), size) + epsilon * size * size).clamp(min=1)
        return _down(moved * 2 ** (self.approximation.bits - 2) + spread, 2 * spread)


def _normal(x: Tensor) -> Tensor:
    """Neither zero, nor infinite, nor smaller than float32's normal numbers, nor NaN."""
    size = x.abs()
    return (size >= 2.0**-126) & (size < math.inf)


def _down(a: Tensor, b: Tensor | int) -> Tensor:
    """``a // b``, rounded down, for a positive b."""
    return torch.div(a, b, rounding_mode="floor")


def _exponential(levels: Tensor, places: int) -> Tensor:
    """As :func:`fewbits.ops._integer.exponential`, whose shifts are divisions here: ONNX shifts no signed numbers."""
    z = levels * integer.LOG2E
    whole = _down(z, 2 ** (places + integer.UP))
    rest = _down(z - whole * 2 ** (places + integer.UP), 2 ** (places + integer.UP - integer.FRACTION))
    found = torch.full_like(levels, integer.EXPONENTIAL[0])
    for coefficient in integer.EXPONENTIAL[1:]:
        found = _down(found * rest, 2**integer.FRACTION) + coefficient
    powers = torch.tensor([2**n for n in range(32)], device=levels.device)
    return _down(found, powers[whole.clamp(max=31)])


def _root(values: Tensor) -> Tensor:
    """As :func:`fewbits.ops._integer.root`."""
    starts = torch.tensor([0, *(4**i for i in range(31))], device=values.device)
    found = torch.ones_like(values)
    place = search(values, starts) - 2  # -1 for zero, else the i with 4**i <= v < 4**(i + 1)
    found = torch.tensor([1, *(2 ** (i + 1) for i in range(31))], device=values.device)[place + 1]
    for _ in range(7):
        found = torch.minimum(found, _down(found + _down(values, found), 2)).clamp(min=1)
    return torch.where(values == 0, 0, found)
