"""Which channels to remove, at equal multiplications and equal fine-tuning: curvature against what else there is.

Every criterion starts from the same published float network, removes channels until the multiplications are at most
the target, has its normalisations recalibrated, and then gets the same steps, data order, optimizer, schedule and
teacher (--distill: the float network, so much of the loss). Ours
add up over the channels of a unit (curvature, output, Taylor) or take their mean (magnitude). Torch-Pruning's
importances run in its own pruner, global, in small steps until its network meets the target. Settings were chosen on
the validation split (--tune prints those runs); accuracy is on the test set. Finished rows are kept, so an interrupted
run goes on. Seconds are the processor's.

    python benchmarks/channels.py --data DIR --weights DIR [--models resnet-20] [--methods NAME ...] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits import recipe as recipes
from fewbits.channels import criterion, dependencies, first_samples, measured
from fewbits.channels.select import choose, unit_scores
from fewbits.channels.surgery import prune_channels
from fewbits.hardware import count
from fewbits.job import job as jobs
from fewbits.pipeline.stages.channels import remove_channels, sizes_of
from fewbits.recipe.pruning import ChannelPruning
from fewbits.recipe.training import Recovery
from fewbits.report import provenance
from fewbits.train.loop import fit, optimizer_of, parameter_groups
from fewbits.train.objectives import objective_of
from fewbits.train.recalibrate import recalibrate
from rows import published_vgg

RESULT = Path(__file__).parent.parent / "results" / "channels.json"
FEWER = {"2.1x": 1 / 2.1, "2.57x": 1 / 2.57}
OURS = {  # criterion, group reduction, what the ranking is by (score, per multiplication saved, as measured)
    "ehap": ("curvature", "sum", ""),
    "ehap per mac": ("curvature", "sum", "per mac"),
    "ehap mean": ("curvature", "mean", ""),
    "output": ("output", "sum", ""),
    "output measured per mac": ("output", "sum", "measured per mac"),
    "output per mac": ("output", "sum", "per mac"),
    "taylor": ("taylor", "sum", ""),
    "taylor measured per mac": ("taylor", "sum", "measured per mac"),
    "taylor per mac": ("taylor", "sum", "per mac"),
    "magnitude": ("magnitude", "mean", ""),
    "magnitude measured per mac": ("magnitude", "mean", "measured per mac"),
    "magnitude per mac": ("magnitude", "mean", "per mac"),
    "l1": ("l1", "mean", ""),
    "random": ("random", "mean", ""),
}
# Torch-Pruning cannot follow a shortcut that pads channels, so it prunes inside blocks only; ours can do that, too.
INSIDE = ("conv1.weight", "*.conv2.weight")
OURS |= {f"{name}, inside": setting for name, setting in OURS.items()}
ROUNDS = {"output per mac, 3 rounds": 3}  # the same training, in parts between which scores are measured anew
PEERS = {
    "tp group norm": "GroupMagnitudeImportance",
    "tp taylor": "GroupTaylorImportance",
    "tp hessian": "GroupHessianImportance",
}
STEPS = 400  # of Torch-Pruning's pruner, from nothing to everything
TRAIN = {"optimizer": "sgd", "lr": 0.02, "weight_decay": 5e-4, "precision": "bfloat16"}
KEY = ("model", "method", "target", "seed", "epochs", "samples", "lr", "distill")
EARLIER = {"distill": 0.0}  # of rows that do not say it
WEIGHTS = {"vgg16-bn": "cifar10_vgg16bn_fp16.safetensors"}  # else by the network's name
DATA = {"vgg16-bn": published_vgg()}  # what the weights want, where they do not say it


def recipe_of(model: str, seed: int, options: Any) -> recipes.Recipe:
    data = {"name": "cifar10", "augment": True, "batch_size": 128, "folder": str(options.data)}
    return recipes.make({
        "network": {"name": model},
        "data": data | DATA.get(model, {}),
        "seed": seed,
    })  # fmt: skip


def settings_of(options: Any) -> Recovery:
    changed = {"epochs": options.epochs, "lr": options.lr, "distill": options.distill}
    return Recovery(**(TRAIN | changed))


def ours(
    model: nn.Module, loader: Any, method: str, left: float, shape: tuple[int, ...], options: Any, seed: int
) -> float:
    """Remove channels in place; processor seconds that the scores took."""
    name, reduce, ranking = OURS[method]
    begin = time.process_time()
    scores = criterion(name, model, first_samples(loader, options.samples), seed=seed)
    seconds = time.process_time() - begin
    found = dependencies(model, shape)
    units = unit_scores(found, scores, reduce=reduce)
    if "measured" in ranking:
        units = measured(model, first_samples(loader, options.samples), found, units)
        seconds = time.process_time() - begin
    choice = choose(
        found,
        units,
        sizes_of(model, shape),
        left=left,
        cap=options.cap,
        per_saving="per mac" in ranking,
        exclude=INSIDE if method.endswith("inside") else (),
    )
    prune_channels(model, choice.channels)
    return seconds


def peers(model: nn.Module, loader: Any, method: str, left: float, shape: tuple[int, ...], options: Any) -> float:
    """The same with Torch-Pruning: its importance, its global pruner, as few of its steps as meet the target."""
    import torch_pruning as tp

    example = torch.zeros(1, *shape)
    importance = getattr(tp.importance, PEERS[method])()
    wanted = left * count(model, shape).macs
    begin = time.process_time()
    keep = [m for path, m in model.named_modules() if any(fnmatchcase(f"{path}.weight", p) for p in INSIDE)]
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        model, example, importance=importance, global_pruning=True, pruning_ratio=1.0, max_pruning_ratio=options.cap,
        iterative_steps=STEPS, ignored_layers=[last, *keep],
    )  # fmt: skip
    if method != "tp group norm":  # these want gradients, of the given labels
        model.zero_grad()
        for inputs, targets in first_samples(loader, options.samples):
            loss = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
            if method == "tp taylor":
                loss.mean().backward()
                continue
            for one in loss:  # single samples, as the Hessian's diagonal is approximated
                model.zero_grad()
                one.backward(retain_graph=True)
                importance.accumulate_grad(model)
    for _ in range(STEPS):
        if count(model, shape).macs <= wanted:
            break
        pruner.step()
    model.zero_grad()
    return time.process_time() - begin


def in_rounds(
    job: jobs.Job, model: nn.Module, loader: Any, method: str, target: str, seed: int, options: Any, dense: int
) -> dict[str, Any]:
    """A row of the channel stage that recipes have."""
    settings = settings_of(options)
    part = ChannelPruning(
        macs=FEWER[target],
        criterion="output",
        measured=False,
        cap=options.cap,
        samples=options.samples,
        rounds=ROUNDS[method],
        train=settings,
    )
    begin = time.process_time()
    small = remove_channels(model, loader, part, seed=seed).model
    seconds = time.process_time() - begin
    split = "validation" if options.tune else "test"
    left = count(small, job.dataset.input_shape)
    return {
        "model": job.recipe.network.name, "data": "cifar10", "method": method, "target": target, "seed": seed,
        "split": split, "samples": options.samples, "cap": options.cap, "macs": left.macs, "macs_dense": dense,
        "fewer_macs": dense / left.macs, "parameters": left.parameters,
        "parameters_dense": sum(p.numel() for p in model.parameters()), "seconds": seconds,
        f"{'validation_' * options.tune}accuracy": job.evaluate(split)(small),
        "epochs": options.epochs, "lr": options.lr, "distill": options.distill,
        "commit": provenance("channels", "")["commit"],
    }  # fmt: skip


def one(name: str, method: str, target: str, seed: int, options: Any) -> dict[str, Any]:
    recipe = recipe_of(name, seed, options)
    file = WEIGHTS.get(name, f"cifar10_{name.replace('-', '')}.safetensors")
    job = jobs.prepare(recipe, trained=Path(options.weights) / file)
    shape = job.dataset.input_shape
    loader = job.dataset.loader("train", 128, shuffle=True, augment=recipe.data.augment, seed=seed + 1)
    plain = job.dataset.loader("train", 128, shuffle=True, seed=seed + 1)
    dense = count(job.network, shape)
    model = copy.deepcopy(job.network)
    torch.manual_seed(seed)
    if method in ROUNDS:
        return in_rounds(job, model, loader, method, target, seed, options, dense.macs)
    if method in OURS:
        seconds = ours(model, plain, method, FEWER[target], shape, options, seed)
    elif method in PEERS:
        seconds = peers(model, plain, method, FEWER[target], shape, options)
    else:
        seconds = 0.0
    recalibrate(model, first_samples(plain, 2048))
    row: dict[str, Any] = {
        "model": name, "data": "cifar10", "method": method, "target": target if method != "dense" else "1x",
        "seed": seed, "split": "validation" if options.tune else "test", "samples": options.samples, "cap": options.cap,
        "criterion_seconds": seconds,
    }  # fmt: skip
    split = row["split"]
    row[f"{'validation_' * options.tune}accuracy_before_training"] = job.evaluate(split)(model)
    left = count(model, shape)
    row |= {
        "macs": left.macs, "macs_dense": dense.macs, "fewer_macs": dense.macs / left.macs,
        "parameters": left.parameters, "parameters_dense": dense.parameters,
        "widths": {layer.name: len(model.get_parameter(layer.name)) for layer in left.layers},
    }  # fmt: skip
    if options.epochs:
        settings = settings_of(options)
        begin = time.process_time()
        objective = objective_of(settings, job.network)
        fit(model, loader, objective, optimizer_of(parameter_groups(model, settings), settings), settings)
        row["seconds"] = time.process_time() - begin
        row[f"{'validation_' * options.tune}accuracy"] = job.evaluate(split)(model)
    return row | {
        "epochs": options.epochs,
        "lr": options.lr,
        "distill": options.distill,
        "commit": provenance("channels", "")["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: FEWBITS_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of trained .safetensors")
    parser.add_argument("--models", nargs="+", default=["resnet-20"])
    default = ["output per mac", "ehap", "ehap per mac", "magnitude", "taylor per mac", "random", *PEERS, "dense"]
    parser.add_argument("--methods", nargs="+", default=default, choices=[*OURS, *ROUNDS, *PEERS, "dense"])
    parser.add_argument("--targets", nargs="+", default=list(FEWER), choices=FEWER)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=TRAIN["lr"])
    parser.add_argument("--distill", type=float, default=0.0, help="weight of the float network's answers")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--cap", type=float, default=0.9)
    parser.add_argument("--tune", action="store_true", help="print validation accuracy only; write and test nothing")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.data is None:
        from fewbits.data.load import home

        options.data = home()
    rows = list(json.loads(options.result.read_text())["rows"]) if options.result.exists() else []
    known = {tuple((EARLIER | row).get(k) for k in KEY) for row in rows}
    for name in options.models:
        for seed in options.seeds:
            for target in options.targets:
                for method in options.methods:
                    stated = target if method != "dense" else "1x"
                    run = (options.epochs, options.samples, options.lr, options.distill)
                    key = (name, method, stated, seed, *run)
                    if key in known and not options.tune:
                        continue
                    row = one(name, method, target, seed, options)
                    print(json.dumps({k: v for k, v in row.items() if k != "widths"}), flush=True)
                    known.add(key)
                    if not options.tune:
                        rows.append(row)
                        head = provenance("channels", "python benchmarks/channels.py --data DIR --weights DIR")
                        options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
