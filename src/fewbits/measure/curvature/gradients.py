"""Gauss-Newton traces from first derivatives alone: exact, with sampled labels, and with the given ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.measure.curvature.check import check_separable
from fewbits.measure.curvature.moments import Moments
from fewbits.measure.curvature.norms import squares
from fewbits.measure.curvature.tap import Call, Taps
from fewbits.measure.relevance.measure import check_targets


@dataclass(frozen=True)
class Passes:
    """Which passes back each batch gets.

    Attributes:
        estimator: ``"exact"``, ``"sampled"`` or ``"empirical"``.
        draws: labels drawn per sample.
        generator: of the labels, on the CPU, so that every device draws the same.
    """

    estimator: str
    draws: int
    generator: torch.Generator

    def losses(self, logits: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Sums over samples whose single gradients are squared, and whether another one follows.

        Exact: with ``S_n = diag(p_n) - p_n p_n^T``, the Hessian of the cross-entropy in the logits,
        ``S_n = sum_k p_nk (e_k - p_n)(e_k - p_n)^T``, so ``tr J^T S J = sum_k ||d/dw sqrt(p_nk) (e_k - p_n) z_n||^2``.
        Sampled: a label k comes up with chance p_nk, and ``d/dz CE(z_n, k) = p_n - e_k``.
        """
        p = logits.detach().softmax(1)
        if self.estimator == "exact":
            classes = logits.shape[1]
            for k in range(classes):
                centred = logits[:, k] - (p * logits).sum(1)
                yield (p[:, k].sqrt() * centred).sum(), k + 1 < classes
        elif self.estimator == "sampled":
            chances = p.float().cpu()
            drawn = torch.multinomial(chances, self.draws, replacement=True, generator=self.generator).to(p.device)
            for k in range(self.draws):
                yield F.cross_entropy(logits, drawn[:, k], reduction="sum"), k + 1 < self.draws
        else:
            yield F.cross_entropy(logits, targets.long(), reduction="sum"), False


def by_gradients(
    model: nn.Module,
    weights: dict[str, Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    moments: dict[str, Moments],
    passes: Passes,
    *,
    per: str,
    workspace: int,
) -> int:
    """Fill the moments of each distinct weight, and say how many samples were seen."""
    place = next(model.parameters()).device
    taps = Taps(model, weights)
    seen = 0
    with taps.watch():
        for x, y in batches:
            inputs, targets, count = x.to(place), y.to(place), len(x)
            if seen == 0:
                check_separable(model, weights, taps, inputs, targets)

            def take(name: str, calls: list[Call], count: int = count) -> None:
                for _, values in squares(calls, count, rows=per != "weight", workspace=workspace):
                    moments[name].add(values.sum(1) if per == "layer" else values)

            logits = taps.forward(model, inputs)
            check_targets(logits, targets)
            for loss, more in passes.losses(logits, targets):
                taps.backward(loss, take, keep=more)
            seen += count
    return seen
