"""How an integer weight is held while training: the forward pass sees levels times scales, the update the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach._gradient import dense
from fewbits.errors import MismatchError
from fewbits.plan import Affine


class _StraightThrough(torch.autograd.Function):
    """The held value; its gradient goes to the weight as it is."""

    @staticmethod
    def forward(weight: Tensor, levels: Tensor, scales: Tensor, axis: int, bits: int) -> Tensor:
        return Affine(levels, scales, axis, bits).values()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return dense(gradients[0]), None, None, None, None


class _Transformable(_StraightThrough):
    """The same with forward mode and vmap: a tangent goes where a gradient comes from. Compilers cannot trace a jvp."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        weight = tangents[0]
        assert weight is not None  # torch fills in zeros
        return weight.clone()


class AffineWeight(nn.Module):
    """A parametrization: the weight's float background copy in, integer levels times their scales out.

    The value is bit-equal to ``Affine.values()`` of the entry that is held.
    """

    levels: Tensor
    scales: Tensor

    def __init__(self, entry: Affine) -> None:
        super().__init__()
        self.register_buffer("levels", entry.levels.clone())  # updates must not reach into the entry
        self.register_buffer("scales", entry.scales.clone())
        self.axis, self.bits = entry.axis, entry.bits
        self.origin: Tensor | None = None  # the weight as it was, see fewbits.attach.perturbable

    def forward(self, weight: Tensor) -> Tensor:
        through = _StraightThrough if torch.compiler.is_compiling() else _Transformable
        value: Tensor = through.apply(weight, self.levels, self.scales, self.axis, self.bits)
        return value if self.origin is None else value + (weight.detach() - self.origin)

    def update(self, entry: Affine) -> None:
        """Take new levels and scales, in place.

        Raises:
            MismatchError: an entry of another shape, axis or bit width.
        """
        theirs, mine = (entry.shape, entry.axis, entry.bits), (tuple(self.levels.shape), self.axis, self.bits)
        if theirs != mine:
            raise MismatchError(f"an entry of (shape, axis, bits) {theirs} cannot replace one of {mine}")
        self.levels.copy_(entry.levels)
        self.scales.copy_(entry.scales)

    def entry(self, weight: Tensor | None = None) -> Affine:
        """The plan entry as it stands; it shares the levels, which the next update overwrites."""
        return Affine(self.levels, self.scales, axis=self.axis, bits=self.bits)
