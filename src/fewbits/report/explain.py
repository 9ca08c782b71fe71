"""Which weights, pixels and tokens a network's decisions rest on, and what compression kept of them."""

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
from fewbits.report._inputs import Vocabulary, faithfulness, pixel_maps, token_maps
from fewbits.report.correlation import pearson, spearman
from fewbits.report.explanation import Explanation, LayerExplanation, Sampled
from fewbits.task import Classification, Task, handing, measured_over, samples_in

SAMPLED = 2000  # weights per layer that a scatter plot shows


def explain(
    before: nn.Module,
    after: nn.Module,
    plan: Plan,
    batches: Iterable[Any],
    shown: Any = None,
    targets: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    vocabulary: Vocabulary | None = None,
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
        shown, targets: inputs and int64 [N]. The first sample of each class, at most eight classes, gets a heat map of
            the relevance for its own class. Images [N, C, H, W] also get curves of pixel flipping; of texts (integers
            [N, length], alone or among several inputs) each token gets its relevance. Other inputs get none.
        classes: the name of each class; numbers by default. vocabulary: the text of each token, likewise.
        task: what the outputs are for; default: classification. Other tasks get no heat maps.
        rules, start, operations: as in :func:`fewbits.measure.relevance`.

    Raises:
        DataError: no samples, or images without targets. MismatchError: the plan is not of this network.
        UnsupportedError, NonFiniteError: as :func:`fewbits.measure.relevance`.
    """
    if shown is not None and (targets is None or len(targets) != samples_in(shown)):
        raise DataError("samples are explained for their own class: give one target for each image or text")
    task = task or Classification()
    views = _Views(before, after, batches, task)
    modes = [(model, model.training) for model in (before, after)]
    try:
        after.eval()
        found = relevance(before, views, rules=rules, start=start, operations=operations, task=task)
        kept = _kept(plan)
        layers = tuple(_layer(name, mask, before, found.weights) for name, mask in kept.items())
        inputs: dict[str, Any] = {}
        if shown is not None and targets is not None and type(task) is Classification:
            before.eval()
            how = {"rules": rules, "start": start, "operations": {Quantizer: "elementwise", **(operations or {})}}
            inputs = _of_inputs((before, after), shown, targets, classes, vocabulary, how)
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
        kind="clustered" if plan.clustered else "quantized" if plan.affine else "pruned",
        **inputs,
    )


def _of_inputs(
    networks: tuple[nn.Module, nn.Module],
    shown: Any,
    targets: Tensor,
    classes: Sequence[str] | None,
    vocabulary: Vocabulary | None,
    how: dict[str, Any],
) -> dict[str, Any]:
    """What there is to show of these inputs, by the names of an explanation."""

    def label(index: int) -> str:
        return str(classes[index]) if classes is not None and index < len(classes) else str(index)

    if isinstance(shown, Tensor) and shown.dim() == 4 and len(shown):
        maps = pixel_maps(networks, shown, targets, label, how)
        return {"maps": maps, "faithfulness": faithfulness(networks, shown, targets, how)}
    return {"tokens": token_maps(networks, shown, targets, label, how, vocabulary)}


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
