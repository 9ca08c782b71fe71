"""A weighted layer as the linear map that it is: forward, and both of its transposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class LinearMap:
    """``z = apply(a, weight, bias)`` for one layer.

    ``back(s, a, weight)`` gives ``(dz/da)^T s`` and ``(dz/dweight)^T s``: what relevance rules are made of.

    Shapes: dense ``a [..., in]``, ``weight [out, in]``; convolution ``a [n, in, *size]``,
    ``weight [out, in/groups, *kernel]``.
    """

    dense: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    precision: torch.dtype | None = None

    @staticmethod
    def of(module: nn.Module, path: str, precision: torch.dtype | None = None) -> LinearMap:
        """The map of an ``nn.Linear`` or ``nn.ConvNd``; a convolution multiplies in ``precision``, if given.

        Raises:
            UnsupportedError: a padding mode other than zeros, or a one-sided ``"same"`` padding.
        """
        if isinstance(module, nn.Linear):
            return LinearMap(dense=True)
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise UnsupportedError(f"{path}: {type(module).__name__} is not a linear or convolutional layer")
        if module.padding_mode != "zeros":
            raise UnsupportedError(f"{path}: relevance knows zero padding only, not {module.padding_mode!r}")
        padding = module.padding
        if padding == "valid":
            padding = (0,) * len(module.kernel_size)
        elif padding == "same":
            total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            if any(t % 2 for t in total):
                raise UnsupportedError(f"{path}: 'same' padding of an even kernel is one-sided; pad explicitly")
            padding = tuple(t // 2 for t in total)
        assert not isinstance(padding, str)
        return LinearMap(False, tuple(module.stride), tuple(padding), tuple(module.dilation), module.groups, precision)

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.dense:
            return F.linear(a, weight, bias)
        conv: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(self.stride)]
        z = conv(*self._cast(a, weight, bias), self.stride, self.padding, self.dilation, self.groups)
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
            *self._cast(s, a, weight), None, self.stride, self.padding, self.dilation, False,
            (0,) * len(self.stride), self.groups, (inputs, weights, False),
        )  # fmt: skip
        return to_inputs.to(s.dtype) if inputs else None, to_weights.to(s.dtype) if weights else None

    def per_output(self, vector: Tensor, like: Tensor) -> Tensor:
        """Reshape one number per output so that it broadcasts over outputs of shape ``like``."""
        return vector if self.dense else vector.reshape(1, -1, *([1] * (like.dim() - 2)))
