"""Which weights and which pixels a network's decisions rest on, and what compression kept of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.channel_masks import ChannelMasks
from fewbits.errors import DataError, MismatchError
from fewbits.int8.quantizer import Quantizer
from fewbits.measure.relevance import How, Rules, relevance
from fewbits.plan import Dense, Plan
from fewbits.report.correlation import pearson, spearman
from fewbits.report.explanation import Explanation, HeatMap, LayerExplanation, Opinion, Sampled
from fewbits.task import Classification, Task, handing, main_output, measured_over

MAX_IMAGES = 8
SAMPLED = 2000  # weights per layer that a scatter plot shows


def explain(
    before: nn.Module,
    after: nn.Module,
    plan: Plan,
    batches: Iterable[Any],
    images: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    rules: Rules | str = "plus",
    start: str = "score",
    operations: Mapping[Any, How] | None = None,
    task: Task | None = None,
) -> Explanation:
    """Explain a compression by layer-wise relevance propagation.

    Args:
        before: the float network, with all its channels. after: the compressed one. plan: what its tensors became.
            Weights of channels that were removed count as zeros, as do an INT8 network's zero levels; in the latter,
            relevance passes quantizers of activations unchanged.
        batches: of any kind that :class:`fewbits.task.Feed` splits; relevance of weights is their mean, in evaluation
            mode.
        images, targets: [N, C, H, W] and int64 [N]: the first image of each class, at most eight
            classes, gets heat maps of the relevance for its own class. Inputs of another shape get none.
        classes: the name of each class; numbers by default.
        task: what the outputs are for; default: classification. Other tasks get no heat maps.
        rules, start, operations: as in :func:`fewbits.measure.relevance`.

    Raises:
        DataError: no samples, or images without targets. MismatchError: the plan is not of this network.
        UnsupportedError, NonFiniteError: as :func:`fewbits.measure.relevance`.
    """
    if images is not None and (targets is None or len(targets) != len(images)):
        raise DataError("images are explained for their own class: give one target per image")
    task = task or Classification()
    views = _Views(before, after, batches, task)
    modes = [(model, model.training) for model in (before, after)]
    try:
        after.eval()
        found = relevance(before, views, rules=rules, start=start, operations=operations, task=task)
        kept = _kept(plan)
        layers = tuple(_layer(name, mask, before, found.weights) for name, mask in kept.items())
        maps: tuple[HeatMap, ...] = ()
        if images is not None and targets is not None and images.dim() == 4 and type(task) is Classification:
            before.eval()
            chosen = _one_per_class(targets)
            how = {"rules": rules, "start": start, "operations": {Quantizer: "elementwise", **(operations or {})}}
            maps = _maps(before, after, images[chosen], targets[chosen].cpu(), classes, how)
    finally:
        for model, training in modes:
            model.train(training)
    return Explanation(
        layers,
        samples=found.samples,
        agreement=views.agreement,
        accuracy_before=task.value(views.tallies[0]),
        accuracy_after=task.value(views.tallies[1]),
        metric=task.scale.name,
        rules=rules if isinstance(rules, str) else repr(rules),
        start=start,
        maps=maps,
        kind="clustered" if plan.clustered else "quantized" if plan.affine else "pruned",
    )


class _Views:
    """Passes batches on and asks both networks for their outputs on the way: data may be readable only once."""

    def __init__(self, before: nn.Module, after: nn.Module, batches: Iterable[Any], task: Task) -> None:
        self.networks, self.task = (before, after), task
        self.data = measured_over(before, batches)
        self.tallies = [torch.zeros(()), torch.zeros(())]
        self.same = self.decided = 0

    @property
    def agreement(self) -> float | None:
        return self.same / self.decided if self.decided else None

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:  # both networks are in evaluation mode by now
            decided = []
            for i, network in enumerate(self.networks):
                outputs, moved = self._outputs(network, batch)
                with self.data.naming():
                    self.task.check(outputs, moved)
                self.tallies[i] = self.tallies[i] + self.task.tally(outputs, moved).double().cpu()
                decided.append(self.task.decisions(outputs))
            first, second = decided
            if first is not None and second is not None:
                self.same += int((first.cpu() == second.cpu()).sum())
                self.decided += first.numel()
            yield batch

    @torch.no_grad()
    def _outputs(self, network: nn.Module, batch: Any) -> tuple[Any, Any]:
        moved = send_to_device(batch, next(network.parameters()).device)
        with handing(network, moved[0], self.data.place):
            return self.task.forward(network, moved), moved


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    return main_output(model(inputs.to(next(model.parameters()).device))).cpu()


def _kept(plan: Plan) -> dict[str, Tensor]:
    """Of every weight that lost something, which of the float network's are left: bool, of its shape."""
    removed = plan.channels or ChannelMasks({}, {})
    found = {}
    for name, entry in plan.items():
        if isinstance(entry, Dense) and (name not in removed.kept or len(entry.shape) < 2):
            continue  # untouched, or a bias or normalisation
        left = torch.ones(entry.shape, dtype=torch.bool) if isinstance(entry, Dense) else entry.kept.cpu()
        found[name] = removed.spread(name, left)
    return found


def _layer(name: str, mask: Tensor, model: nn.Module, found: Mapping[str, Tensor]) -> LayerExplanation:
    if name not in found:
        raise MismatchError(f"the plan holds {name!r}, which is not a weight of {type(model).__name__}")
    if mask.shape != found[name].shape:
        raise MismatchError(
            f"{name}: {tuple(mask.shape)} in the plan, {tuple(found[name].shape)} in {type(model).__name__}"
        )
    weight = model.get_parameter(name).detach().flatten().cpu().double()
    signed = found[name].detach().flatten().cpu().double()
    kept = mask.flatten().cpu()
    size, amount, count = weight.abs(), signed.abs(), int(kept.sum())
    total = float(amount.sum())

    def share(chosen: Tensor) -> float | None:
        return float(amount[chosen].sum()) / total if total else None

    some = _some(len(weight))
    return LayerExplanation(
        name,
        weights=len(weight),
        total=total,
        weights_kept=count / max(1, len(weight)),
        relevance_kept=share(kept),
        relevance_kept_by_magnitude=share(size.argsort(descending=True, stable=True)[:count]),
        relevance_kept_at_best=share(amount.argsort(descending=True, stable=True)[:count]),
        spearman=spearman(size, amount),
        pearson_signed=pearson(weight, signed),
        pearson_absolute=pearson(size, amount),
        sampled=Sampled(*(tuple(t[some].tolist()) for t in (weight, signed, kept))),
    )


def _some(count: int) -> Tensor:
    """Indices of at most ``SAMPLED`` of ``count`` weights, always the same ones."""
    if count <= SAMPLED:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SAMPLED]


def _one_per_class(targets: Tensor) -> Tensor:
    """Index of the first sample of each class, in the order of classes, at most ``MAX_IMAGES``."""
    first: dict[int, int] = {}
    for index, target in enumerate(targets.tolist()):
        first.setdefault(target, index)
    return torch.tensor([first[target] for target in sorted(first)][:MAX_IMAGES], dtype=torch.int64)


def _maps(
    before: nn.Module,
    after: nn.Module,
    images: Tensor,
    targets: Tensor,
    classes: Sequence[str] | None,
    how: dict[str, Any],
) -> tuple[HeatMap, ...]:
    if len(images) == 0:
        return ()

    def label(index: int) -> str:
        return str(classes[index]) if classes is not None and index < len(classes) else str(index)

    views = []
    for model in (before, after):
        inputs = relevance(model, [(images, targets)], inputs=True, **how).inputs
        assert inputs is not None  # asked for
        confidence, predicted = _logits(model, images).softmax(1).max(1)
        opinions = [Opinion(label(int(p)), float(c)) for p, c in zip(predicted, confidence, strict=True)]
        views.append((inputs.detach().sum(1).float().cpu(), opinions))
    (first, said_before), (second, said_after) = views
    return tuple(
        HeatMap(
            label(int(target)),
            images[n].detach().float().cpu(),
            first[n],
            second[n],
            said_before[n],
            said_after[n],
            pearson(first[n].flatten().double(), second[n].flatten().double()),
        )
        for n, target in enumerate(targets)
    )
