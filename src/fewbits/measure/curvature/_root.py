"""A root of the cross-entropy's Hessian in the logits, ``S = diag(p) - p p^T``, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


class Root:
    """``L`` with ``L L^T = S``, triangular with the classes in order of falling probability: the Cholesky factor of a
    multinomial covariance (Tanabe and Sagae 1992). With ``q_k = p_k+1 + ... + p_C`` and ``q_0 = 1``,

    ``L_kk = sqrt(p_k q_k / q_k-1)``, ``L_ik = -p_i sqrt(p_k / (q_k-1 q_k))`` for i > k, and the last column is zero.

    Its columns hardly overlap: the first is the likeliest class against all others, and where two classes share all
    probability it is the only one. The columns ``sqrt(p_k) (e_k - p)`` make another root, but all point at the
    likeliest class, which is what a random mixture of them suffers from.

    Args:
        logits: ``[n, classes]``.
    """

    def __init__(self, logits: Tensor) -> None:
        # Float64 for the tails q; on the CPU, since the random numbers come from there and some devices lack it.
        p = logits.detach().cpu().double().softmax(1)
        self.p, self.order = p.sort(dim=1, descending=True, stable=True)
        reached = self.p.flip(1).cumsum(1).flip(1)  # q_k-1
        tail = torch.cat([reached[:, 1:], torch.zeros_like(p[:, :1])], 1)  # q_k
        self.diagonal = torch.nan_to_num((self.p * tail / reached).sqrt())
        self.factor = torch.where(tail > 0, (self.p / (reached * tail)).sqrt(), 0.0).nan_to_num(posinf=0.0)

    def columns(self) -> int:
        """How many are not zero by construction."""
        return self.p.shape[1] - 1

    def column(self, k: int) -> Tensor:
        """``L e_k`` for each sample, ``[n, classes]`` in the order of the logits."""
        found = -self.p * self.factor[:, k : k + 1]
        found[:, :k] = 0
        found[:, k] = self.diagonal[:, k]
        return self._unsorted(found)

    def mix(self, signs: Tensor) -> Tensor:
        """``L s`` for each sample, with signs ``[n, classes]``, in time linear in the classes."""
        sums = (signs * self.factor).cumsum(1)
        before = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], 1)
        return self._unsorted(signs * self.diagonal - self.p * before)

    def _unsorted(self, values: Tensor) -> Tensor:
        return torch.empty_like(values).scatter_(1, self.order, values)
