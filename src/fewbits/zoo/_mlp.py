"""The keyword-spotting network of ECQ and ECQx."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class MLPGSC(nn.Module):
    """MLP_GSC: 255-512-512-256-256-128-128-12 with ReLU, 640,000 weights and 1,804 biases.

    255 inputs are 15 MFCC x 17 frames of one second of speech (Becking et al. 2022, arXiv:2109.04236).

    Shapes: [N, ...] with ``inputs`` values per sample -> [N, classes].
    """

    def __init__(self, inputs: int = 255, classes: int = 12) -> None:
        super().__init__()
        widths = [inputs, 512, 512, 256, 256, 128, 128]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
