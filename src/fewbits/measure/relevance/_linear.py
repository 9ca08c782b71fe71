"""A weighted operation as the linear map that it is: forward, and both of its transposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.measure.relevance._nodes import Node


@dataclass(frozen=True, eq=False)
class LinearMap:
    """``z = apply(a, weight, bias)`` for one operation.

    ``back(s, a, weight)`` gives ``(dz/da)^T s`` and ``(dz/dweight)^T s``: what relevance rules are made of.

    Shapes: dense ``a [..., in]``, ``weight [out, in]``; convolution ``a [n, in, *size]``,
    ``weight [out, in/groups, *kernel]``, a transposed one's ``[in, out/groups, *kernel]``.
    """

    dense: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    precision: torch.dtype | None = None

    @staticmethod
    def of(node: Node, precision: torch.dtype | None = None) -> LinearMap:
        """The map of a convolution's node; it multiplies in ``precision``, if given."""
        return LinearMap(
            False,
            tuple(node._saved_stride),
            tuple(node._saved_padding),
            tuple(node._saved_dilation),
            bool(node._saved_transposed),
            tuple(node._saved_output_padding),
            int(node._saved_groups),
            precision,
        )

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.dense:
            return F.linear(a, weight, bias)
        z = torch.ops.aten.convolution(
            *self._cast(a, weight, bias), self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups,
        )  # fmt: skip
        return z.to(weight.dtype)

    def _cast(self, *tensors: Tensor | None) -> list[Any]:
        return [t if t is None or self.precision is None else t.to(self.precision) for t in tensors]

    def back(
        self, s: Tensor, a: Tensor, weight: Tensor, *, inputs: bool = True, weights: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of ``sum(s * apply(a, weight))`` with respect to ``a`` and ``weight``, as asked for."""
        if self.dense:
            to_inputs = s @ weight if inputs else None
            to_weights = s.reshape(-1, s.shape[-1]).T @ a.reshape(-1, a.shape[-1]) if weights else None
            return to_inputs, to_weights
        if not (inputs or weights):
            return None, None
        to_inputs, to_weights, _ = torch.ops.aten.convolution_backward(
            *self._cast(s, a, weight), None, self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups, (inputs, weights, False),
        )  # fmt: skip
        return to_inputs.to(s.dtype) if inputs else None, to_weights.to(s.dtype) if weights else None

    def per_output(self, vector: Tensor, like: Tensor) -> Tensor:
        """Reshape one number per output so that it broadcasts over outputs of shape ``like``."""
        return vector if self.dense else vector.reshape(1, -1, *([1] * (like.dim() - 2)))

    def per_row(self, vector: Tensor, weight: Tensor) -> Tensor:
        """Reshape one number per output so that it broadcasts over the weight."""
        if not self.transposed:
            return vector.reshape(-1, *([1] * (weight.dim() - 1)))
        rows = vector.reshape(self.groups, -1).repeat_interleave(len(weight) // self.groups, 0)
        return rows.reshape(*weight.shape[:2], *([1] * (weight.dim() - 2)))
