"""Quantizers of activations: one that is trained or calibrated, and what it becomes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.int8.affine_grid import LEVELS, fake_quantize, range_parameters

MOMENTUM = 0.99  # of moving-average ranges, from step to step


class Quantizer(nn.Module):
    """Activations on a fixed grid of 256 levels: see :func:`fewbits.int8.affine_grid.fake_quantize`.

    Attributes:
        scale: float32 scalar, positive. zero_point: uint8 scalar, the level that stands for zero.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor | float = 1.0, zero_point: Tensor | int = 0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32).detach().clone())
        self.register_buffer("zero_point", torch.as_tensor(zero_point).detach().clone().to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.scale, self.zero_point)


class RangedQuantizer(nn.Module):
    """A quantizer whose range is calibrated, and then follows the data (moving average) or is trained.

    While ``observing`` it hands activations on as they are, and takes the mean of the minima and maxima of all
    batches. Then it quantizes; in training mode gradients go straight through within the range and not at all outside
    of it, and the range moves by 1 % of the way to each call's minimum and maximum, unless it is ``learned``. A
    learned range has the gradient of LSQ (Esser et al. 2020, arXiv 1902.08153) for its scale, and that of an output
    which is cut off at it is the gradient there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.high = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.observing = False
        self._batches = 0
        self._seen: tuple[Tensor, Tensor] | None = None  # the extremes of this batch

    @property
    def learned(self) -> bool:
        return self.high.requires_grad

    def learn(self) -> None:
        """Train the range from now on. A lower end at zero (behind a ReLU) stays there."""
        self.high.requires_grad_(True)
        self.low.requires_grad_(bool(self.low < 0))

    def frozen(self) -> Quantizer:
        """The quantizer with the range as it stands."""
        scale, zero_point = range_parameters(self.low.detach(), self.high.detach())
        return Quantizer(scale.cpu(), zero_point.cpu())

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            low, high = torch.aminmax(x.detach())
            if self._seen is not None:  # a layer may be called several times in one pass
                low, high = torch.minimum(low, self._seen[0]), torch.maximum(high, self._seen[1])
            self._seen = low, high
            return x
        if self.training and not self.learned:
            self._move(*torch.aminmax(x.detach()), 1 - MOMENTUM)
        scale, zero_point = range_parameters(self.low.detach(), self.high.detach())
        quantize = _FakeQuantize if torch.compiler.is_compiling() else _Transformable
        result: Tensor = quantize.apply(x, self.low, self.high, scale, zero_point)
        return result

    def start(self) -> None:
        """Observe, from nothing."""
        self.observing, self._batches, self._seen = True, 0, None

    def next_batch(self) -> None:
        """A batch is over."""
        if self._seen is not None:
            self._batches += 1
            self._move(*self._seen, 1 / self._batches)
            self._seen = None

    @torch.no_grad()
    def _move(self, low: Tensor, high: Tensor, share: float) -> None:
        self.low.lerp_(low.float(), share)
        self.high.lerp_(high.float(), share)


class _FakeQuantize(torch.autograd.Function):
    """:func:`fake_quantize`; gradients go to the input within the range, and to the ends of the range."""

    @staticmethod
    def forward(x: Tensor, low: Tensor, high: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return fake_quantize(x, scale, zero_point)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, scale, zero_point = inputs
        ctx.save_for_backward(x, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rounding, below, above = _parts(*ctx.saved_tensors)
        to_x = gradient.masked_fill(below | above, 0.0)
        to_low = to_high = None
        if ctx.needs_input_grad[2]:
            # Inside, d(scale * round(x / scale)) / d scale = round(x / scale) - x / scale, and scale = (high - low) /
            # 255.
            inside = (to_x * rounding).sum() / LEVELS
            to_high = inside + _SumWhere.apply(gradient, above)
            if ctx.needs_input_grad[1]:
                to_low = _SumWhere.apply(gradient, below) - inside
        return to_x, to_low, to_high, None, None


class _Transformable(_FakeQuantize):
    """The same with forward mode and vmap: a tangent goes where a gradient comes from. Compilers cannot trace a jvp."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _FakeQuantize.setup_context(ctx, inputs, output)
        x, _, _, scale, zero_point = inputs
        ctx.save_for_forward(x, scale, zero_point)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, low, high = tangents[:3]
        assert x is not None  # torch fills in zeros
        assert low is not None
        assert high is not None
        rounding, below, above = _parts(*ctx.saved_tensors)
        inside = x + rounding * ((high - low) / LEVELS)
        return torch.where(above, high, torch.where(below, low, inside))


class _SumWhere(torch.autograd.Function):
    """``values[mask].sum()``, which vmap cannot follow: the length depends on the data. There, zeros are added."""

    @staticmethod
    def forward(values: Tensor, mask: Tensor) -> Tensor:
        return values[mask].sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradients[0], 0.0), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], values: Tensor, mask: Tensor) -> tuple[Tensor, int]:
        values, mask = (t if d is None else t.movedim(d, 0) for t, d in zip((values, mask), in_dims, strict=True))
        each = torch.where(mask, values, 0.0)
        return each.flatten(1).sum(1), 0


def _parts(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What rounding adds to ``x / scale``, and where it is below and above the range."""
    level = x / scale
    nearest = level.round()
    return nearest - level, nearest < -zero_point, nearest > LEVELS - zero_point
