"""Statistics of normalisation after pruning, at once and without training: as they were, taken anew, or corrected."""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits.assign import global_magnitude
from fewbits.attach import plan_of
from fewbits.channels import choose, criterion, dependencies, first_samples, load_plan, prune_channels, unit_scores
from fewbits.job import Job
from fewbits.job.batches import training_batches
from fewbits.pipeline.stages.channels import sizes_of
from fewbits.train import recalibrate
from fewbits.weights import NORMS, select


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each way and each kind of images that statistics are measured on; they are the same for all cases."""
    job, samples = prepared(unit, place), unit.options["samples"]
    assert job.recipe.data is not None
    batch, test = job.recipe.data.batch_size, job.evaluate("test")
    loaders: dict[str, Any] = {
        "plain": job.dataset.loader("train", batch, shuffle=True, seed=unit.seed),
        "augmented": training_batches(job.dataset, job.recipe.data, job.feed, seed=unit.seed),
    }
    pruned = changed(job, loaders["plain"], unit)
    labels = unit.labels | {"model": unit.settings["model"], "data": job.dataset.name, "split": "test"}
    labels |= {"samples": samples, "baseline_accuracy": (before := test(job.network))}
    same = not (unit.options.get("zeros") or unit.options.get("fewer_macs"))
    rows = [labels | {"method": "as they were", "images": "none", "accuracy": before if same else test(pruned)}]
    for images, loader in loaders.items():
        batches = list(first_samples(loader, samples))
        for method in ("taken anew", "relative"):
            model = copy.deepcopy(pruned)
            begin = time.process_time()
            if method == "relative":
                recalibrate(model, batches, job.network)
            else:
                taken_anew(model, batches)
            seconds = time.process_time() - begin
            rows.append(labels | {"method": method, "images": images, "accuracy": test(model), "seconds": seconds})
    return rows


def changed(job: Job, loader: Any, unit: Unit) -> nn.Module:
    """The network of a case: untouched, with zeros, or without channels."""
    model, options = copy.deepcopy(job.network), unit.options
    if sparsity := options.get("zeros"):
        weights, assigner = select(model), global_magnitude(sparsity)
        masks, _ = assigner.update(weights, None, assigner.init(weights))
        load_plan(model, plan_of(model).updated(masks))
    if fewer := options.get("fewer_macs"):
        shape = job.dataset.input_shape
        found = dependencies(model, shape)
        scores = criterion("output", model, first_samples(loader, options["scored"]), seed=unit.seed)
        units = unit_scores(found, scores, reduce="sum")
        sizes = sizes_of(model, shape)
        prune_channels(model, choose(found, units, sizes, left=1 / fewer, cap=0.9, per_saving=True).channels)
    return model


@torch.no_grad()
def taken_anew(model: nn.Module, batches: Sequence[Any]) -> None:
    """As it was done before: the mean over the batches, each normalised by its own statistics."""
    norms: list[Any] = [module for module in model.modules() if isinstance(module, NORMS)]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for inputs, _ in batches:
        model(inputs)
    model.eval()
