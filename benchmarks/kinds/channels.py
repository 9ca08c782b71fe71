"""Which channels to remove, at equal multiplications and equal training: every criterion from one float network."""

import copy
import time
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits.channel_masks import ChannelMasks
from fewbits.channels import choose, criterion, dependencies, first_samples, measured, prune_channels, unit_scores
from fewbits.hardware import count
from fewbits.job.batches import training_batches
from fewbits.pipeline.stages.channels import remove_channels, sizes_of
from fewbits.recipe import ChannelPruning, Recovery
from fewbits.train import fit, recalibrate
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.objectives import objective_of

FEWER = {"2.1x": 1 / 2.1, "2.57x": 1 / 2.57, "1x": 1.0}
# Torch-Pruning cannot follow a shortcut that pads channels, so it prunes inside blocks only; ours can do that, too.
INSIDE = ("conv1.weight", "*.conv2.weight")
PEERS = {"tp group norm": "Magnitude", "tp taylor": "Taylor", "tp hessian": "Hessian"}
STEPS = 400  # of Torch-Pruning's pruner, from nothing to everything


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row. Methods: a criterion of ours, and what it is ranked by; a peer; ``dense``, which removes nothing."""
    job = prepared(unit, place)
    method, options, data = unit.labels["method"], unit.options, job.recipe.data
    assert data is not None
    shape, batch = job.dataset.input_shape, data.batch_size
    loader = training_batches(job.dataset, data, job.feed, seed=unit.seed + 1)
    plain = job.dataset.loader("train", batch, shuffle=True, seed=unit.seed + 1)
    test, left = job.evaluate("test"), FEWER[unit.labels["target"]]
    dense, model = count(job.network, shape), copy.deepcopy(job.network)
    row = {key: options[key] for key in ("epochs", "lr", "distill", "samples", "cap")} | {"batch": batch}
    row |= unit.labels | {"model": unit.settings["model"], "data": job.dataset.name, "split": "test"}
    usual: Row = {"optimizer": "sgd", "weight_decay": 5e-4, "precision": "bfloat16"}
    settings = Recovery(epochs=options["epochs"] or 1, lr=options["lr"], distill=options["distill"], **usual)
    torch.manual_seed(unit.seed)
    begin = time.process_time()
    if rounds := options.get("rounds"):  # the same training, in parts between which scores are measured anew
        choice: Row = {"criterion": "output", "measured": False, "cap": options["cap"], "samples": options["samples"]}
        part = ChannelPruning(macs=left, rounds=rounds, train=settings, **choice)
        model = remove_channels(model, loader, part, seed=unit.seed).model
    else:
        if method in PEERS:
            row["criterion_seconds"] = peers(model, plain, method, left, shape, options)
        else:
            row["criterion_seconds"] = 0.0 if method == "dense" else ours(model, plain, unit, left, shape)
        left_of = kept_channels(model, job.network) if method in PEERS else None
        recalibrate(model, first_samples(plain, 2048), job.network, channels=left_of)
        row["accuracy_before_training"] = test(model)
        begin = time.process_time()
        if options["epochs"]:
            objective = objective_of(settings, job.network)
            fit(model, loader, objective, optimizer_of(parameter_groups(model, settings), settings), settings)
    if options["epochs"]:
        row |= {"seconds": time.process_time() - begin, "accuracy": test(model)}
    after = count(model, shape)
    return [
        row | {
            "macs": after.macs, "macs_dense": dense.macs, "fewer_macs": dense.macs / after.macs,
            "parameters": after.parameters, "parameters_dense": dense.parameters,
            "widths": {layer.name: len(model.get_parameter(layer.name)) for layer in after.layers},
        }
    ]  # fmt: skip


def kept_channels(model: nn.Module, dense: nn.Module) -> ChannelMasks:
    """What another library left of each normalisation, by its running means: no two channels have the same."""
    present = dict(model.named_modules())
    norms = {path: m for path, m in dense.named_modules() if isinstance(m, nn.BatchNorm2d)}
    kept = {f"{path}.running_mean": torch.isin(m.running_mean, present[path].running_mean) for path, m in norms.items()}
    return ChannelMasks({name: (mask,) for name, mask in kept.items()}, {})


def ours(model: nn.Module, loader: Any, unit: Unit, left: float, shape: tuple[int, ...]) -> float:
    """Remove channels in place; processor seconds that the scores took."""
    method, samples = unit.labels["method"], first_samples(loader, unit.options["samples"])
    name = unit.options["criterion"]
    reduce = unit.options.get("reduce", "sum" if name in ("curvature", "output", "taylor") else "mean")
    begin = time.process_time()
    scores = criterion(name, model, samples, seed=unit.seed)
    seconds = time.process_time() - begin
    found = dependencies(model, shape)
    units = unit_scores(found, scores, reduce=reduce)
    if "measured" in method:
        units = measured(model, samples, found, units)
        seconds = time.process_time() - begin
    choice = choose(
        found, units, sizes_of(model, shape), left=left, cap=unit.options["cap"], per_saving="per mac" in method,
        exclude=INSIDE if method.endswith("inside") else (),
    )  # fmt: skip
    prune_channels(model, choice.channels)
    return seconds


def peers(model: nn.Module, loader: Any, method: str, left: float, shape: tuple[int, ...], options: Row) -> float:
    """The same with Torch-Pruning: its importance, its global pruner, as few of its steps as meet the target."""
    import torch_pruning as tp  # only its own rows need it

    importance = getattr(tp.importance, f"Group{PEERS[method]}Importance")()
    wanted = left * count(model, shape).macs
    begin = time.process_time()
    keep = [m for path, m in model.named_modules() if any(fnmatchcase(f"{path}.weight", p) for p in INSIDE)]
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        model, torch.zeros(1, *shape), importance=importance, global_pruning=True, pruning_ratio=1.0,
        max_pruning_ratio=options["cap"], iterative_steps=STEPS, ignored_layers=[last, *keep],
    )  # fmt: skip
    if method != "tp group norm":  # these want gradients, of the given labels
        model.zero_grad()
        for inputs, targets in first_samples(loader, options["samples"]):
            loss = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
            if method == "tp taylor":
                loss.mean().backward()
            for one in loss if method == "tp hessian" else ():  # single samples, for the Hessian's diagonal
                model.zero_grad()
                one.backward(retain_graph=True)
                importance.accumulate_grad(model)
    for _ in range(STEPS):
        if count(model, shape).macs <= wanted:
            break
        pruner.step()
    model.zero_grad()
    return time.process_time() - begin
