"""Gauss-Newton traces from first derivatives alone: exact, sketched, with sampled labels, and with the given ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.measure.curvature._check import check_separable
from fewbits.measure.curvature._moments import Moments, OverDraws
from fewbits.measure.curvature._norms import squares
from fewbits.measure.curvature._root import Root
from fewbits.measure.curvature._tap import Call, Taps
from fewbits.task import check_targets, handing, measured_over, samples_in


@dataclass(frozen=True)
class Passes:
    """Which passes back each batch gets.

    Attributes:
        estimator: ``"exact"``, ``"sketched"``, ``"sampled"`` or ``"empirical"``.
        draws: random passes per batch, for sketched and sampled.
        generator: of signs and labels, on the CPU, so that every device draws the same.
    """

    estimator: str
    draws: int
    generator: torch.Generator

    def losses(self, logits: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Sums over samples whose single gradients are squared, and whether another one follows.

        With a root ``L_n L_n^T = S_n`` of the Hessian in the logits, ``tr J^T S J = sum_k ||d/dw L_nk . z_n||^2``.

        * Exact: one pass for each column k.
        * Sketched: one pass with ``L_n s``, signs s random, whose outer product is S_n on average.
        * Sampled: a label k with its chance p_nk; the outer product of ``d/dz CE(z_n, k)`` is S_n on average, too.
        """
        if self.estimator == "exact":
            root = Root(logits)
            last = root.columns() - 1
            for k in range(last + 1):
                yield (root.column(k).to(logits) * logits).sum(), k < last
        elif self.estimator == "sketched":
            root = Root(logits)
            for k in range(self.draws):
                signs = torch.randint(0, 2, logits.shape, generator=self.generator).double() * 2 - 1
                yield (root.mix(signs).to(logits) * logits).sum(), k + 1 < self.draws
        elif self.estimator == "sampled":
            chances = logits.detach().float().cpu().softmax(1)
            drawn = torch.multinomial(chances, self.draws, replacement=True, generator=self.generator)
            drawn = drawn.to(logits.device)
            for k in range(self.draws):
                yield F.cross_entropy(logits, drawn[:, k], reduction="sum"), k + 1 < self.draws
        else:
            yield F.cross_entropy(logits, targets.long(), reduction="sum"), False


def by_gradients(
    model: nn.Module,
    weights: dict[str, Tensor],
    batches: Iterable[Any],
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
        data = measured_over(model, batches)
        for batch in data:
            (inputs, targets), count = send_to_device(batch, place), samples_in(batch[0])
            if count == 0:
                continue
            if seen == 0:
                with handing(model, inputs, data.place):
                    check_separable(model, weights, taps, inputs, targets)

            def take(name: str, calls: list[Call], count: int = count) -> None:
                chunks = squares(calls, count, rows=per != "weight", workspace=workspace)
                into = moments[name]
                if per != "weight":
                    values = torch.cat(list(chunks))
                    into.add(values.sum(1) if per == "layer" else values)
                elif isinstance(into, OverDraws):
                    # The batch is the unit: single weights' squares of every sample would be too much to keep.
                    into.add(sum((values.sum(0, keepdim=True) for values in chunks), torch.zeros(())))
                else:
                    for values in chunks:
                        into.add(values)

            with handing(model, inputs, data.place):
                logits = taps.forward(model, inputs)
            check_targets(logits, targets)
            for loss, more in passes.losses(logits, targets):
                taps.backward(loss, take, keep=more)
            for into in moments.values():
                into.close()
            seen += count
    return seen
