"""FastGRNN, a gated recurrent network of a few kilobytes (Kusupati et al. 2018, arXiv:1901.02358)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FastGRNN(nn.Module):
    """One recurrent cell over a sequence, then a linear layer on the last state.

    ``z = sigmoid(W x + U h + b_z)``, ``c = tanh(W x + U h + b_h)``, ``h' = (zeta (1 - z) + nu) c + z h``: gate and
    candidate share W and U, and zeta and nu are two trained numbers in 0..1. With a rank, W (or U) is a product of two
    thin matrices. Shapes: [N, inputs, steps] -> [N, classes].

    Args:
        inputs: numbers per step. steps: length of the sequence. hidden: size of the state.
        rank_w, rank_u: inner size of W and U; ``None`` for a full matrix.
    """

    def __init__(
        self,
        inputs: int = 6,
        steps: int = 128,
        hidden: int = 80,
        classes: int = 2,
        rank_w: int | None = None,
        rank_u: int | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.hidden = steps, hidden
        self.w = _matrix(inputs, hidden, rank_w)
        self.u = _matrix(hidden, hidden, rank_u)
        self.gate_bias = nn.Parameter(torch.ones(hidden))
        self.candidate_bias = nn.Parameter(torch.ones(hidden))
        self.zeta = nn.Parameter(torch.tensor(1.0))  # before the sigmoid
        self.nu = nn.Parameter(torch.tensor(-4.0))
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        driven = self.w(x.transpose(1, 2))  # of all steps at once
        zeta, nu = torch.sigmoid(self.zeta), torch.sigmoid(self.nu)
        state = torch.zeros_like(driven[:, 0])
        for step in range(self.steps):
            both = driven[:, step] + self.u(state)
            gate = torch.sigmoid(both + self.gate_bias)
            candidate = torch.tanh(both + self.candidate_bias)
            state = (zeta * (1 - gate) + nu) * candidate + gate * state
        return self.head(state)


def _matrix(inputs: int, outputs: int, rank: int | None) -> nn.Module:
    if rank is not None and rank < 1:
        raise ValueError(f"a rank must be at least 1, got {rank}")
    if rank is None:
        return nn.Linear(inputs, outputs, bias=False)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False))
