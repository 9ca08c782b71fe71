"""How a clustered weight is held while training: the forward pass sees the cluster, the update the weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.attach._gradient import dense
from fewbits.errors import MismatchError
from fewbits.plan import Clustered

LEAST_GAP = np.finfo(np.float32).tiny
"""Between neighbouring values of a codebook that is learnt: a normal number, and no floor for small weights."""


class _StraightThrough(torch.autograd.Function):
    """``table[levels - lowest]``; gradients go to the weight as they are, to the table by cluster."""

    @staticmethod
    def forward(weight: Tensor, table: Tensor, levels: Tensor, lowest: int, uniform: bool) -> Tensor:
        if uniform:
            return levels.to(table.dtype) * table
        return table[levels.long() - lowest]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, table, levels, ctx.lowest, ctx.uniform = inputs
        ctx.size = table.numel()
        ctx.save_for_backward(levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = dense(gradients[0])
        (levels,) = ctx.saved_tensors
        to_table = None
        if ctx.needs_input_grad[1]:
            if ctx.uniform:
                to_table = (gradient * levels).sum().reshape(())
            else:
                index = (levels.long() - ctx.lowest).flatten()
                zeros = torch.zeros(ctx.size, dtype=gradient.dtype, device=gradient.device)
                to_table = zeros.index_add(0, index, gradient.flatten())  # not in place: vmap could not follow
        return gradient, to_table, None, None, None


class _Transformable(_StraightThrough):
    """The same with forward mode and vmap: a tangent goes where a gradient comes from. Compilers cannot trace a jvp."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _StraightThrough.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        weight, table = tangents[:2]
        (levels,) = ctx.saved_tensors
        assert weight is not None  # torch fills in zeros
        assert table is not None
        return weight + (levels * table if ctx.uniform else table[levels.long() - ctx.lowest])


class ClusteredWeight(nn.Module):
    """A parametrization: the weight's float background copy in, the clustered tensor out.

    Args:
        entry: the plan's entry for this weight.
        learn: whether the step size (or the codebook) is a trained parameter.

    ``table`` is the step size (a scalar) or the codebook; ``levels`` the int16 levels of the weight's shape.
    The value is bit-equal to ``Clustered.values()``.
    """

    levels: Tensor

    def __init__(self, entry: Clustered, *, learn: bool = False) -> None:
        super().__init__()
        values = entry.step if entry.step is not None else entry.codebook
        table = torch.tensor(values, dtype=torch.float32, device=entry.levels.device)
        self.table = nn.Parameter(table, requires_grad=learn)
        self.register_buffer("levels", entry.levels.clone())  # updates must not reach into the entry
        self.bits, self.lowest, self.uniform = entry.bits, entry.lowest, entry.step is not None
        self.origin: Tensor | None = None  # the weight as it was, see fewbits.attach.perturbable

    def forward(self, weight: Tensor) -> Tensor:
        through = _StraightThrough if torch.compiler.is_compiling() else _Transformable
        value: Tensor = through.apply(weight, self.table, self.levels, self.lowest, self.uniform)
        return value if self.origin is None else value + (weight.detach() - self.origin)

    def update(self, entry: Clustered) -> None:
        """Take new levels, and the entry's step or codebook, in place.

        Raises:
            MismatchError: an entry of another shape, or with another kind of grid.
        """
        values = torch.tensor(entry.step if entry.step is not None else entry.codebook, dtype=torch.float32)
        if self.levels.shape != entry.shape or self.table.shape != values.shape:
            raise MismatchError(
                f"an entry of shape {entry.shape} with {values.numel()} grid values cannot replace one of "
                f"shape {tuple(self.levels.shape)} with {self.table.numel()}"
            )
        self.bits, self.lowest = entry.bits, entry.lowest
        self.levels.copy_(entry.levels)
        with torch.no_grad():
            self.table.copy_(values, non_blocking=True)

    @torch.no_grad()
    def ordered_codebook(self) -> tuple[float, ...]:
        """The codebook, in which training may have changed neither the order of values nor zero; in place where it did.

        Level 0 is zero again. From there outwards, a value that passed its inner neighbour is put next to it.
        """
        before = self.table.detach().cpu().float().numpy()
        values, zero = before.copy(), -self.lowest
        if 0 <= zero < len(values):
            values[zero] = 0.0
        else:  # no level is zero: the order counts from the first on
            zero = 0
        for side in (1, -1):
            end = np.float32(side * np.inf)
            for i in range(zero + side, len(values) if side > 0 else -1, side):
                inner = values[i - side]
                nearest = max(side * (inner + np.float32(side) * LEAST_GAP), side * np.nextafter(inner, end))
                if side * values[i] < nearest:
                    values[i] = side * nearest
        if not np.array_equal(values, before):
            self.table.copy_(torch.from_numpy(values))
        return tuple(values.tolist())

    def entry(self, weight: Tensor | None = None) -> Clustered:
        """The plan entry as it stands; it shares the levels, which the next update overwrites."""
        if self.uniform:
            return Clustered(self.levels, self.bits, step=float(self.table.detach()))
        book = tuple(float(v) for v in self.table.detach())
        return Clustered(self.levels, self.bits, codebook=book, lowest=self.lowest)
