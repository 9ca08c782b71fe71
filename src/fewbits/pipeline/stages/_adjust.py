"""Biases and ranges of activations, trained once the clusters are integers that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from fewbits.int8.clusters import adjusted, ranged_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.pipeline._candidates import Candidates
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._finish import met, tables_of
from fewbits.pipeline.stages._once import once_of
from fewbits.pipeline.stages._work import Context, Work
from fewbits.recipe import RangeTraining
from fewbits.report.report import Try
from fewbits.train.kept import KeptTraining
from fewbits.train.loop import fit, optimizer_of, total_steps
from fewbits.train.objectives import objective_of
from fewbits.train.told import Told


class Adjust:
    """What ``activations.train`` asks for; the better file is kept."""

    def run(self, work: Work, context: Context) -> Work:
        """The work with another file, or with the one that it has."""
        recipe, done = work.recipe, work.done
        assert recipe.activations is not None
        assert done is not None
        settings = recipe.activations.train
        assert settings is not None
        net = ranged_form(done.plan, work.model)
        if context.store.get("held") is None:
            context.store.put("held", {"done": (done.data, done.report.to_json())}, drop=["run"])
        told = Told(context.progress, "training the ranges of activations, ", times=20) if context.progress else None
        kept = KeptTraining(context.store, "activations.training", callback=told)
        optimizer = optimizer_of(groups_of(net, settings), settings)
        start = kept.begin(net, optimizer)
        fit(
            net, work.train, objective_of(settings, work.teacher, work.task), optimizer, settings, callback=kept,
            accelerator=context.accelerator, start=start, task=work.task,
        )  # fmt: skip
        candidates = Candidates(recipe, work.model, work.evaluate, work.full, forward=once_of(work))
        floats = candidates.floats
        plan = adjusted(done.plan, net.eval(), floats=floats.dtype, significand=floats.significand)
        data = candidates.encoded(plan)
        accuracy = None if work.evaluate is None else candidates.accuracy(plan)
        before, target = done.report.accuracy_after, recipe.target_bytes
        taken = (target is None or len(data) <= target) and (accuracy is None or before is None or accuracy >= before)
        seen = Try("ranges trained", 0.0, len(data), accuracy, kept=taken)
        tries = tuple(replace(other, kept=other.kept and not taken) for other in done.report.search)
        report = done.report.updated(search=(*tries, seen), steps=done.report.steps + total_steps(work.train, settings))
        if not taken:
            return replace(work, done=replace(done, report=report))
        report = report.updated(
            accuracy_after=accuracy, identical=candidates.identical(plan, data, work.train),
            met=met(recipe, len(data), work.before, accuracy), **tables_of(candidates, plan, data),
        )  # fmt: skip
        return replace(work, done=Compressed(plan, data, report))


def groups_of(net: nn.Module, settings: RangeTraining) -> list[dict[str, Any]]:
    """Biases (and what else is no weight), and every range with a learning rate relative to its size."""
    ends: dict[int, tuple[nn.Parameter, float]] = {}
    for module in net.modules():
        if isinstance(module, RangedQuantizer):
            size = float(module.high.detach() - module.low.detach())
            ends |= {id(end): (end, size) for end in (module.low, module.high) if end.requires_grad}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in ends]
    ranges = [{"params": [end], "lr": settings.lr * size, "weight_decay": 0.0} for end, size in ends.values()]
    return [{"params": others, "lr": settings.lr, "weight_decay": 0.0}, *ranges]
