"""How a pruned weight is held while training: zeros where the mask says so, whatever the float weight does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach._gradient import dense
from fewbits.errors import MismatchError
from fewbits.plan import Masked, surviving


class _Through(torch.autograd.Function):
    """:func:`surviving`; a survivor's gradient goes to its weight as it is, a pruned weight gets a share of its own."""

    @staticmethod
    def forward(weight: Tensor, mask: Tensor, shrink: float, straight_through: float) -> Tensor:
        return surviving(weight, mask, shrink)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, mask, _, ctx.straight_through = inputs
        ctx.save_for_backward(mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = dense(gradients[0])
        if ctx.straight_through == 1.0:
            return gradient, None, None, None
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradient, gradient * ctx.straight_through), None, None, None


class _Transformable(_Through):
    """The same with forward mode and vmap: a tangent goes where a gradient comes from. Compilers cannot trace a jvp."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Through.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        (mask,) = ctx.saved_tensors
        weight = tangents[0]
        assert weight is not None  # torch fills in zeros
        return torch.where(mask, weight, weight * ctx.straight_through)


class MaskedWeight(nn.Module):
    """A parametrization: the weight's float background copy in, the pruned tensor out.

    Args:
        entry: the plan's entry for this weight; its ``shrink`` and ``through`` say how it is trained.

    The value is bit-equal to that of the plan entry which the assigner made from the same background weight.
    """

    mask: Tensor

    def __init__(self, entry: Masked) -> None:
        super().__init__()
        self.register_buffer("mask", entry.mask.clone())  # updates must not reach into the entry
        self.shrink, self.straight_through = entry.shrink, entry.straight_through
        self.origin: Tensor | None = None  # the weight as it was, see fewbits.attach.perturbable

    def forward(self, weight: Tensor) -> Tensor:
        through = _Through if torch.compiler.is_compiling() else _Transformable
        value: Tensor = through.apply(weight, self.mask, self.shrink, self.straight_through)
        if self.origin is None or not self.straight_through:
            return value
        return torch.where(self.mask, value, value + self.straight_through * (weight.detach() - self.origin))

    def update(self, entry: Masked) -> None:
        """Take a new mask and threshold, in place.

        Raises:
            MismatchError: an entry of another shape.
        """
        if self.mask.shape != entry.shape:
            raise MismatchError(f"an entry of shape {entry.shape} cannot replace one of shape {tuple(self.mask.shape)}")
        self.mask.copy_(entry.mask)
        self.shrink, self.straight_through = entry.shrink, entry.straight_through

    def entry(self, weight: Tensor) -> Masked:
        """The plan entry as it stands, made from the background weight; it shares the mask."""
        return Masked(surviving(weight.detach(), self.mask, self.shrink), self.mask, self.shrink, self.straight_through)

    # The threshold belongs to what a checkpoint keeps, as the mask does.
    def get_extra_state(self) -> dict[str, float]:
        return {"shrink": self.shrink, "straight_through": self.straight_through}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.shrink, self.straight_through = state["shrink"], state["straight_through"]
