"""One-shot pruning without training: nothing, matched variances, recalibrated normalisation, or both."""

import copy
import time
from itertools import islice

import torch

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits.assign import global_magnitude
from fewbits.attach import plan_of
from fewbits.channels import load_plan
from fewbits.train import match_variance, recalibrate
from fewbits.weights import select


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row; statistics are taken of 1,024 training images."""
    job, method, sparsity = prepared(unit, place), unit.options["repair"], unit.options["target_sparsity"]
    calibration = list(islice(job.dataset.loader("train", 256, shuffle=True, seed=7), 4))
    weights, assigner = select(job.network), global_magnitude(sparsity)
    masks, _ = assigner.update(weights, None, assigner.init(weights))
    model = copy.deepcopy(job.network)
    load_plan(model, plan_of(model).updated(masks))
    begin = time.perf_counter()
    if "recalibrated" in method:
        recalibrate(model, calibration, job.network)
    if "variance" in method:
        inputs = torch.cat([inputs for inputs, _ in calibration])[:256]
        match_variance(model, job.network, inputs, normalised="recalibrated" not in method)
    seconds, test = time.perf_counter() - begin, job.evaluate("test")
    pruned = select(model).values()
    return [
        unit.labels | {
            "model": unit.labels["model"], "data": job.dataset.name, "split": "test", "accuracy": test(model),
            "baseline_accuracy": test(job.network), "seconds": seconds,
            "sparsity": 100 * sum(int((w == 0).sum()) for w in pruned) / sum(w.numel() for w in pruned),
        }
    ]  # fmt: skip
