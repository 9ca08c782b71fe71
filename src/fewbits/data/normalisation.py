"""From stored values to the numbers that a network reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError


@dataclass(frozen=True)
class Normalisation:
    """``(x - mean) / std`` with one value, or one per channel (dimension 1).

    uint8 inputs are divided by 255 first; the default is then x / 255 itself.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise RecipeError(f"{len(self.mean)} means do not fit {len(self.std)} standard deviations")
        if any(not value > 0 for value in self.std):
            raise RecipeError(f"standard deviations must be positive, got {self.std}")

    def apply(self, inputs: Tensor) -> Tensor:
        """Normalised float32 copy of ``inputs`` [N, C, ...], uint8 or float32."""
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean = torch.tensor(self.mean, device=inputs.device).reshape(shape)
        std = torch.tensor(self.std, device=inputs.device).reshape(shape)
        if inputs.dtype == torch.uint8:
            mean, std = mean * 255, std * 255
        return inputs.to(torch.float32).sub(mean).div_(std)

    def undo(self, inputs: Tensor) -> Tensor:
        """What ``inputs``, the result of :meth:`apply`, were made of: float32, images in 0..1."""
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean = torch.tensor(self.mean, device=inputs.device).reshape(shape)
        std = torch.tensor(self.std, device=inputs.device).reshape(shape)
        return inputs * std + mean


class Renormalised(nn.Module):
    """A network that gets inputs which were normalised for another one.

    Args:
        network: any. given: how its inputs are normalised. wanted: how they should be.
    """

    def __init__(self, network: nn.Module, given: Normalisation, wanted: Normalisation) -> None:
        super().__init__()
        self.network, self.given, self.wanted = network, given, wanted

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.network(self.wanted.apply(self.given.undo(inputs)))
        return result
