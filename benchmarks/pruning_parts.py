"""The parts of benchmarks/pruning.py that need no ranking of methods: selection, collapse, repair, prune + ECQx."""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from fewbits import assign
from fewbits import recipe as recipes
from fewbits.assign.selection import chosen, smallest
from fewbits.attach import plan_of
from fewbits.channels.load import load_plan
from fewbits.data import digits
from fewbits.errors import RecipeError
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.pipeline import compress
from fewbits.plan import Plan
from fewbits.recipe.training import Training
from fewbits.report import provenance
from fewbits.task import accuracy
from fewbits.train import match_variance, pretrain, recalibrate
from fewbits.weights import select
from fewbits.zoo.initialise import he_normal
from fewbits.zoo.mobilenet import InvertedResidual
from pruning_settings import SETTINGS, recipe_of, trained

Rows = list[dict[str, Any]]


def _commit() -> Any:
    return provenance("pruning", "")["commit"]


def _random(numbers: int, tensors: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(numbers // tensors, generator=generator).mul_(0.02) for _ in range(tensors)]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def selection(options: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """The exact global threshold and its masks, against ``torch.nn.utils.prune.global_unstructured`` in one run.

    Threshold: finding it. Masks: one bool per weight. Peak bytes are those of the process over what it had before.
    """
    numbers = int(options.numbers)
    if any(r["experiment"] == "selection" and r["weights"] == numbers for r in rows):
        return
    weights = _random(numbers)
    numbers_bytes = 4 * sum(w.numel() for w in weights)
    count = round(0.9 * numbers)
    smallest([torch.ones(1 << 21)], 5)  # what torch loads and keeps at its first use is no part of the measurement
    before = _peak()
    begin = time.perf_counter()
    cuts = smallest(weights, count)
    threshold_seconds = time.perf_counter() - begin
    threshold_peak = _peak() - before
    begin = time.perf_counter()
    masks = []
    zeros = 0
    for weight, cut in zip(weights, cuts, strict=True):
        mask = chosen(weight, cut)
        zeros += int(mask.sum())
        if numbers <= 1e8:
            masks.append(mask)
    mask_seconds = time.perf_counter() - begin
    row = {
        "experiment": "selection", "model": "normal random numbers", "method": "radix", "weights": numbers, "seed": 0,
        "sparsity": 100 * zeros / numbers, "zeros": zeros, "asked_zeros": count, "threshold": cuts[0].threshold,
        "seconds": threshold_seconds + mask_seconds, "threshold_seconds": threshold_seconds,
        "peak_bytes": threshold_peak, "peak_share": threshold_peak / numbers_bytes,
        "weights_bytes": numbers_bytes, "threads": torch.get_num_threads(), "commit": _commit(),
    }  # fmt: skip
    if numbers <= 1e8:
        layers = [nn.Linear(1, 1, bias=False) for _ in weights]
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = nn.Parameter(weight.view(1000, -1))
        before = _peak()
        begin = time.perf_counter()
        torch_prune.global_unstructured([(m, "weight") for m in layers], torch_prune.L1Unstructured, amount=count)
        theirs = time.perf_counter() - begin
        same = all(torch.equal(m.weight_mask.reshape(-1).bool(), ~mask) for m, mask in zip(layers, masks, strict=True))
        row |= {
            "versus": "torch.nn.utils.prune.global_unstructured", "versus_seconds": theirs,
            "versus_peak_bytes": _peak() - before, "speedup": theirs / row["seconds"], "same_mask": same,
        }  # fmt: skip
    yield row


def _masks_only(job: jobs.Job, assigner: assign.Assigner) -> Plan:
    weights = select(job.network)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    return plan


def _lost(plan: Plan) -> tuple[int, int]:
    """Fewest survivors of a layer, and how many layers have none."""
    left = [int(entry.kept.sum()) for entry in plan.compressed.values()]
    return min(left), sum(n == 0 for n in left)


def inverted(seed: int) -> nn.Module:
    """MobileNetV2's blocks in small: 141,760 weights in 18 layers, among them depthwise ones and a shortcut's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            InvertedResidual(16, 24, 6, 1), InvertedResidual(24, 32, 6, 2),
            InvertedResidual(32, 64, 6, 1), InvertedResidual(64, 96, 6, 1),
            nn.Conv2d(96, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 10),
        )  # fmt: skip
        he_normal(model)
    return model


def collapse(options: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """Where one global threshold empties layers, and the floor does not: a small MobileNetV2 on handwritten digits.

    One-shot, 10 epochs of fine-tuning. A network with an empty layer in its path answers every input alike: chance.
    """
    data = digits()
    floors = {"global-mp": {}, "global-mp+floor": {"min_kept": "0.05%"}, "lamp": {"method": "lamp"}}
    for seed in options.seeds:
        key = ("collapse", "small mobilenet-v2", seed)
        known = [r for r in rows if (r["experiment"], r["model"], r["seed"]) == key]
        todo = [
            (s, m) for s in (0.95, 0.98, 0.99) for m in floors
            if all((r["target_sparsity"], r["method"]) != (s, m) for r in known)
        ]  # fmt: skip
        if not todo:
            continue
        model = inverted(seed)
        pretrain(model, data.loader("train", 32, shuffle=True, seed=seed), Training(epochs=10, lr=2e-3), seed=seed)
        before = accuracy(model, data.loader("test", 256))
        for sparsity, method in todo:
            recipe = recipes.make(
                {
                    "prune": {"sparsity": sparsity} | floors[method], "assign": {"method": "none"}, "rounds": 1,
                    "train": {"epochs": 10, "optimizer": "sgd", "lr": 0.03}, "seed": seed,
                }
            )  # fmt: skip
            found = compress(model.eval(), data.loader("train", 32, shuffle=True, seed=seed + 1), recipe=recipe)
            fewest, empty = _lost(found.plan)
            yield {
                "experiment": "collapse", "model": key[1], "data": "digits", "method": method, "seed": seed,
                "target_sparsity": sparsity, "sparsity": 100 * found.report.zeros, "split": "test",
                "accuracy": accuracy(found.into(copy.deepcopy(model)), data.loader("test", 256)),
                "baseline_accuracy": before, "fewest_survivors": fewest, "collapsed_layers": empty, "epochs": 10,
                "min_kept": floors[method].get("floor"), "bytes": found.report.file_bytes, "commit": _commit(),
            }  # fmt: skip


def extreme(options: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """LeNet-5 on Fashion-MNIST, one-shot at 98 to 99.9 %, half an epoch: no layer is emptied, but some get thin."""
    setting = SETTINGS["lenet"]
    for seed in options.seeds:
        for sparsity in (0.98, 0.99, 0.995, 0.999):
            for method in ("global-mp", "global-mp+floor", "lamp"):
                key = ("extreme", method, sparsity, seed)
                if any((r["experiment"], r["method"], r.get("target_sparsity"), r["seed"]) == key for r in rows):
                    continue
                base = recipe_of("lenet", method, sparsity, seed, "cpu", options)
                plain = base.model_dump(by_alias=True, exclude_unset=True)
                plain["prune"] |= {"schedule": "one-shot"}
                plain["train"] |= {"epochs": 0.5}
                recipe = recipes.make(plain)
                job = jobs.prepare(recipe, trained=trained("lenet", seed, "cpu", options))
                loader = job.dataset.loader("train", 128, shuffle=True, seed=seed + 1)
                row = {
                    "experiment": "extreme", "model": "lenet-5", "data": job.dataset.name, "method": method,
                    "target_sparsity": sparsity, "seed": seed, "split": "test", "epochs": 0.5,
                    "min_kept": setting.floor if method.endswith("+floor") else None, "commit": _commit(),
                }  # fmt: skip
                try:
                    found = compress(job.network, loader, recipe=recipe)
                except RecipeError as error:
                    yield row | {"refused": str(error)}
                    continue
                fewest, empty = _lost(found.plan)
                yield row | {
                    "accuracy": job.evaluate("test")(found.into(job.skeleton())),
                    "sparsity": 100 * found.report.zeros,
                    "fewest_survivors": fewest,
                    "collapsed_layers": empty,
                    "bytes": found.report.file_bytes,
                }


def repair(options: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """One-shot, no training: nothing, matched variances, recalibrated normalisation, both; on 1,024 training images."""
    for name, sparsities in (("resnet-32", (0.7, 0.8, 0.9)), ("lenet", (0.95, 0.98))):
        if all((r["experiment"], r["model"]) != ("repair", name) for r in rows):
            recipe = recipe_of(name, "global-mp", sparsities[0], 0, "cpu", options)
            job = jobs.prepare(recipe, trained=trained(name, 0, "cpu", options))
            calibration = list(islice(job.dataset.loader("train", 256, shuffle=True, seed=7), 4))
            one = torch.cat([inputs for inputs, _ in calibration])
            test = job.evaluate("test")
            before = test(job.network)
            for sparsity in sparsities:
                for method in ("none", "variance", "recalibrated", "recalibrated, then variance"):
                    model = copy.deepcopy(job.network)
                    plan = plan_of(model).updated(_masks_only(job, assign.global_magnitude(sparsity)))
                    load_plan(model, plan)
                    begin = time.perf_counter()
                    if "recalibrated" in method:
                        recalibrate(model, calibration)
                    if "variance" in method:
                        match_variance(model, job.network, one[:256], normalised="recalibrated" not in method)
                    seconds = time.perf_counter() - begin
                    zeros = sum(int((w == 0).sum()) for w in select(model).values())
                    yield {
                        "experiment": "repair", "model": name, "data": job.dataset.name, "method": method, "seed": 0,
                        "target_sparsity": sparsity, "split": "test", "accuracy": test(model),
                        "baseline_accuracy": before, "seconds": seconds, "commit": _commit(),
                        "sparsity": 100 * zeros / sum(w.numel() for w in select(model).values()),
                    }  # fmt: skip


def pipeline(options: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """Accuracy at equal bytes, demo network: ECQx alone, pruned and then ECQx; and pruned floats; equal epochs."""
    sizes = ("8 KB", "5 KB", "3.5 KB")
    settings: list[tuple[str, dict[str, Any]]] = [("ecqx", {"target": size}) for size in sizes]
    settings += [("global-mp + ecqx", {"target_sparsity": s, "target": size}) for s in (0.9, 0.95) for size in sizes]
    settings += [("global-mp", {"target_sparsity": s}) for s in (0.9, 0.95)]
    demo = recipes.load("demo").model_dump(by_alias=True, exclude_unset=True) | {"significand": None}
    demo["assign"]["options"]["step"] = "range"  # as the kept rows have it
    demo.pop("target", None)
    for seed in options.seeds:
        path = outputs.folder(Path(options.work)) / f"demo-{seed}.safetensors"
        for method, part in settings:
            label = {"experiment": "pipeline", "model": "digits-net", "method": method, "seed": seed, **part}
            if any(all(r.get(k) == v for k, v in label.items()) for r in rows):
                continue
            values = demo | {"seed": seed}
            if "target_sparsity" in part:
                values["prune"] = {"sparsity": part["target_sparsity"], "min_kept": "0.02%", "schedule": "cubic"}
            if "target" in part:
                values["target"] = part["target"]
            else:
                values |= {"assign": {"method": "none"}}
                values["train"] = demo["train"] | {"learn": False}
            recipe = recipes.make(values)
            if not path.exists():
                job = jobs.prepare(recipe)
                outputs.save_float(job.network, path, job.dataset.normalisation)
            job = jobs.prepare(recipe, trained=path)
            result = jobs.run(job, Path(options.work) / "demo", resume=False)
            yield label | {
                "sparsity": 100 * result.report.zeros, "split": "test",
                "accuracy": result.report.accuracy_after, "baseline_accuracy": result.report.accuracy_before,
                "bytes": result.report.file_bytes, "ratio": result.report.ratio, "epochs": recipe.train.epochs,
                "float_bytes": result.report.float_bytes, "data": job.dataset.name, "commit": _commit(),
            }  # fmt: skip
