"""Traces of the true Hessian by random probes (Hutchinson 1989), in three precisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.errors import NonFiniteError
from fewbits.measure.curvature._moments import OverDraws
from fewbits.task import check_targets, handing, main_output, measured_over, run, samples_in

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SCALE = 2.0**12  # of the loss in float16, whose smallest number is 6e-8
_BACKOFF = 2.0**-4
_TRIES = 6


@dataclass(frozen=True)
class Probes:
    """How the Hessian is probed.

    Attributes:
        count: Rademacher vectors per batch, over all chosen weights at once (as HAP and EHAP do).
        precision: a key of ``PRECISIONS``: of the forward pass and both passes back, under autocast.
        generator: of the vectors, on the CPU: the same vectors for every device and precision.
    """

    count: int
    precision: str
    generator: torch.Generator

    def draw(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A vector of independent signs."""
        return {
            name: torch.randint(0, 2, w.shape, generator=self.generator, dtype=torch.int8).to(w).mul_(2).sub_(1)
            for name, w in weights.items()
        }


def by_probes(
    model: nn.Module,
    weights: dict[str, Tensor],
    batches: Iterable[Any],
    moments: dict[str, OverDraws],
    probes: Probes,
    *,
    per: str,
    axes: Mapping[str, int],
) -> int:
    """Fill the moments of each distinct weight, and say how many samples were seen.

    ``E[v_c . (Hv)_c] = tr H_cc`` for a vector v of independent signs, with the variance
    ``2 sum_{i != j in c} H_ij^2 + sum_{i in c, j not in c} H_ij^2``: all other weights disturb a channel.
    Each batch has vectors of its own: that is the better mean over batches at the same cost.
    """
    place = next(model.parameters()).device
    seen = 0
    data = measured_over(model, batches)
    for batch in data:
        x, y = send_to_device(batch, place)
        count = samples_in(x)
        with handing(model, x, data.place):
            graph, scale = _gradients(model, weights, x, y, probes.precision)
        for _ in range(probes.count):
            v = probes.draw(weights)
            for name, hv in _products(graph, weights, v, scale).items():
                # Accumulated in float32 or better, whatever multiplied before.
                t = v[name].to(hv.dtype) * hv
                t = t if per == "weight" else by_channel(t, axes[name]).sum(1) if per == "channel" else t.sum()
                moments[name].add(count * t.unsqueeze(0))
        for into in moments.values():
            into.close()
        seen += count
    return seen


def by_channel(x: Tensor, axis: int) -> Tensor:
    """``[O, ...]`` as ``[O, weights of a channel]``, channels along ``axis``."""
    return x.movedim(axis, 0).flatten(1)


def _gradients(
    model: nn.Module, weights: dict[str, Tensor], x: Any, y: Tensor, precision: str
) -> tuple[dict[str, Tensor], float]:
    """Gradients of the mean loss times a scale, with their graph, and that scale.

    Float16 keeps only the range 6e-8 to 65504, so the loss is scaled up once, here; where that overflows, it is
    scaled less. Everything found from this graph has to be divided by the scale.
    """
    kind = PRECISIONS[precision]
    scale = _SCALE if kind == torch.float16 else 1.0
    for _ in range(_TRIES):
        with torch.autocast(y.device.type, dtype=kind, enabled=kind is not None, cache_enabled=False):
            logits = main_output(run(model, x))
        check_targets(logits, y)
        loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), y.long())
        found = torch.autograd.grad(
            loss * scale, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        if all(bool(torch.isfinite(g).all()) for g in found):
            return dict(zip(weights, found, strict=True)), scale
        if kind != torch.float16 or not bool(torch.isfinite(loss)):
            break
        scale *= _BACKOFF
    raise NonFiniteError(f"the gradient of the loss is NaN or infinite in {precision}")


def _products(
    graph: dict[str, Tensor], weights: dict[str, Tensor], v: dict[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """``Hv``, with every scale divided out; a probe that overflows is done again with a smaller vector."""
    names = [name for name, g in graph.items() if g.requires_grad]  # the others are constant: no curvature
    products = {name: torch.zeros_like(w, dtype=_wide(w)) for name, w in weights.items()}
    if not names:
        return products
    shrink = 1.0
    for _ in range(_TRIES):
        found = torch.autograd.grad(
            [graph[name] for name in names],
            list(weights.values()),
            [v[name] * shrink for name in names],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        if all(bool(torch.isfinite(hv).all()) for hv in found):
            return {name: hv.to(_wide(hv)) / (scale * shrink) for name, hv in zip(weights, found, strict=True)}
        shrink *= _BACKOFF
    raise NonFiniteError("a Hessian-vector product is NaN or infinite however small the vector")


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
