"""Which weights to prune, at equal budgets: Global MP with its floor, and what else costs the same.

Every method starts from the same trained float network and gets the same steps, data order, optimizer and schedule;
only the choice of the weights differs. Settings were chosen on the validation split (--tune prints those runs);
accuracy is on the test set, looked at once per row. Finished rows are kept, so an interrupted run goes on. With a GPU
the same code runs the papers' schedules (--schedule paper is the default there).

    python benchmarks/pruning.py --data DIR --weights DIR [--experiment NAME ...] [--methods NAME ...] [--seeds 0 1 2]

Experiments: selection, lenet, fastgrnn, collapse, extreme, repair, pipeline, resnet-32, mobilenet-v2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits import job as jobs
from fewbits import outputs
from fewbits import recipe as recipes
from fewbits.hardware import count
from fewbits.pipeline import compress
from fewbits.plan import Plan
from fewbits.report import provenance
from pruning_parts import collapse, extreme, pipeline, repair, selection

RESULT = Path(__file__).parent.parent / "results" / "pruning.json"
METHODS = ("global-mp", "global-mp+floor", "lamp", "erk", "uniform", "feather", "random", "dense")
KEY = ("experiment", "model", "method", "target_sparsity", "seed", "schedule")


@dataclass(frozen=True)
class Setting:
    """One network on one data set.

    Attributes:
        network, data: sections of a recipe. weights: file of trained weights, else ``pretrain`` makes them.
        pretrain, train: training and fine-tuning, by schedule. sparsities: targets. floor: of ``global-mp+floor``.
    """

    network: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, dict[str, Any]]
    sparsities: tuple[float, ...]
    floor: str
    weights: str | None = None
    pretrain: dict[str, dict[str, Any]] | None = None
    methods: tuple[str, ...] = METHODS


# "paper": epochs, batch, rate and decay of Global MP's appendix (its decay is 1e-3 at 90 % and 1e-5 at 95 %: here
# 1e-4 for both).
SETTINGS = {
    "resnet-32": Setting(
        {"name": "resnet-32"},
        {"name": "cifar10", "augment": True, "batch_size": 128},
        {
            "cpu": {"epochs": 0.4, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4, "precision": "bfloat16"},
            "paper": {"epochs": 300, "optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4},
        },
        (0.9, 0.95),
        "0.1%",
        weights="cifar10_resnet32.safetensors",
    ),
    "mobilenet-v2": Setting(
        {"name": "mobilenet-v2"},
        {"name": "cifar10", "augment": True, "batch_size": 64},
        {
            "cpu": {"epochs": 0.25, "optimizer": "sgd", "lr": 0.03, "weight_decay": 5e-4},
            "paper": {"epochs": 200, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4},
        },
        (0.98,),
        "0.02%",
        pretrain={
            "cpu": {"epochs": 1, "lr": 2e-3},
            "paper": {"epochs": 200, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4},
        },
        methods=("global-mp", "global-mp+floor", "lamp", "dense"),
    ),
    "lenet": Setting(
        {"name": "lenet-5"},
        {"name": "fashion-mnist", "batch_size": 128},
        {
            "cpu": {"epochs": 1, "optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4},
            "paper": {"epochs": 30, "optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4},
        },
        (0.98, 0.995),
        "0.02%",
        pretrain={"cpu": {"epochs": 3, "lr": 1e-3}, "paper": {"epochs": 30, "lr": 1e-3}},
    ),
    "fastgrnn": Setting(
        {"name": "fastgrnn", "options": {"classes": 2, "rank_w": 9, "hidden": 80}},
        {"name": "activity", "options": {"binary": True}, "batch_size": 100},
        {
            "cpu": {"epochs": 4, "optimizer": "adam", "lr": 5e-3, "clip": 1.0},
            "paper": {"epochs": 300, "optimizer": "adam", "lr": 6.4e-3, "clip": 1.0},
        },
        (0.9, 0.95),
        "0.5%",
        pretrain={
            "cpu": {"epochs": 10, "lr": 6.4e-3, "clip": 1.0},
            "paper": {"epochs": 300, "lr": 6.4e-3, "clip": 1.0},
        },
    ),
}


def recipe_of(name: str, method: str, sparsity: float, seed: int, schedule: str, options: Any) -> recipes.Recipe:
    """What is run. ``dense`` trains on under a sparsity of zero: the float network's own gain from the budget."""
    setting = SETTINGS[name]
    prune: dict[str, Any] = {"sparsity": sparsity, "schedule": "cubic", "method": method}
    if method == "dense":
        prune |= {"sparsity": 0.0, "method": "global-magnitude"}
    elif method.startswith("global-mp"):
        prune |= {"method": "global-magnitude", "floor": setting.floor if method.endswith("+floor") else 0}
    train = setting.train[schedule] | ({"epochs": options.epochs} if options.epochs else {})
    train |= {"lr": options.lr} if options.lr else {}
    return recipes.make(
        {
            "network": setting.network,
            "data": setting.data | {"folder": str(options.data)},
            "pretrain": setting.pretrain[schedule] if setting.pretrain else None,
            "prune": prune,
            "assign": {"method": "none"},
            "train": train,
            "rounds": 1,
            "seed": seed,
        }
    )


def trained(name: str, seed: int, schedule: str, options: Any) -> Path:
    """The file of the float network that all methods share: published weights, or trained here once per seed."""
    setting = SETTINGS[name]
    if setting.weights is not None:
        return Path(options.weights) / setting.weights
    path = outputs.folder(Path(options.work)) / f"{name}-{schedule}-{seed}.safetensors"
    if not path.exists():
        job = jobs.prepare(recipe_of(name, "dense", 0.0, seed, schedule, options))
        outputs.save_float(job.network, path, job.dataset.normalisation)
    return path


def figures(model: nn.Module, plan: Plan, shape: tuple[int, ...]) -> dict[str, Any]:
    """Sparsity over both denominators, multiplications, and layers that lost everything."""
    dense, pruned = count(model, shape), count(model, shape, plan)
    return {
        "sparsity": 100 * pruned.zeros / pruned.weights,
        "sparsity_denominator": "weights of linear and convolutional layers",
        "weights": pruned.weights,
        "zeros": pruned.zeros,
        "parameters": pruned.parameters,
        "sparsity_of_parameters": 100 * pruned.zeros / pruned.parameters,
        "macs": dense.macs,
        "macs_left": pruned.nonzero_macs,
        "fewest_survivors": min(layer.nonzero for layer in pruned.layers),
        "collapsed_layers": sum(layer.nonzero == 0 for layer in pruned.layers),
    }


def one(name: str, method: str, sparsity: float, seed: int, schedule: str, options: Any) -> dict[str, Any]:
    recipe = recipe_of(name, method, sparsity, seed, schedule, options)
    job = jobs.prepare(recipe, trained=trained(name, seed, schedule, options))
    assert recipe.data is not None
    loader = job.dataset.loader(
        "train", recipe.data.batch_size, shuffle=True, augment=recipe.data.augment, seed=seed + 1
    )
    found = compress(job.network, loader, recipe=recipe)
    after = found.into(job.skeleton())
    if torch.cuda.is_available():
        after = after.cuda()
    validation = job.evaluate("validation")(after)
    row: dict[str, Any] = {
        "experiment": name, "model": recipe.network.name if recipe.network else "", "data": job.dataset.name,
        "method": method, "target_sparsity": sparsity, "seed": seed, "schedule": schedule, "split": "test",
        "validation_accuracy": validation,
    }  # fmt: skip
    if not options.tune:
        row["accuracy"] = job.evaluate("test")(after)
    row |= figures(job.skeleton(), found.plan, job.dataset.input_shape)
    return row | {
        "floor": SETTINGS[name].floor if method.endswith("+floor") else None,
        "bytes": found.report.file_bytes,
        "float_bytes": found.report.float_bytes,
        "ratio": found.report.ratio,
        "identical": found.report.identical,
        "lr": recipe.train.lr,
        "precision": recipe.train.precision,
        "epochs": recipe.train.epochs,
        "steps": found.report.steps,
        "seconds": found.report.seconds,
        "commit": provenance("pruning", "")["commit"],
    }


def baseline(name: str, seed: int, schedule: str, options: Any, rows: list[dict[str, Any]]) -> float:
    """Test accuracy of the float network all methods start from; taken from earlier rows where there are any."""
    shared = SETTINGS[name].weights is not None
    for row in rows:
        if row["experiment"] == name and "baseline_accuracy" in row and (shared or row["seed"] == seed):
            return float(row["baseline_accuracy"])
    recipe = recipe_of(name, "dense", 0.0, seed, schedule, options)
    job = jobs.prepare(recipe, trained=trained(name, seed, schedule, options))
    return job.evaluate("test")(job.network)


def runs(name: str, options: Any, schedule: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of one trained experiment that are not there yet: seed by seed, so that all methods advance together."""
    setting = SETTINGS[name]
    known = {tuple(row.get(k) for k in KEY) for row in rows}
    for seed in options.seeds:
        for sparsity in options.sparsities or setting.sparsities:
            for method in setting.methods:
                if options.methods and method not in options.methods:
                    continue
                key = (name, setting.network["name"], method, sparsity, seed, schedule)
                if key in known or (method == "dense" and sparsity != setting.sparsities[0]):
                    continue
                row = one(name, method, sparsity, seed, schedule, options)
                if options.tune:
                    print(json.dumps(row), flush=True)
                    continue
                yield row | {"baseline_accuracy": baseline(name, seed, schedule, options, rows)}


def rows_in(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


OTHERS = {"selection": selection, "collapse": collapse, "extreme": extreme, "repair": repair, "pipeline": pipeline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: FEWBITS_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of trained .safetensors")
    parser.add_argument("--experiment", nargs="+", default=[*OTHERS, *SETTINGS], choices=[*OTHERS, *SETTINGS])
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--sparsities", nargs="+", type=float, help="instead of the experiment's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedule", choices=("cpu", "paper"), default="paper" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=float, help="fine-tuning epochs, instead of the schedule's")
    parser.add_argument("--lr", type=float, help="learning rate, instead of the schedule's")
    parser.add_argument("--numbers", type=float, default=1e8, help="selection: how many weights")
    parser.add_argument("--tune", action="store_true", help="print validation accuracy only; write and test nothing")
    parser.add_argument("--work", default="out/pruning", help="folder for float networks trained here")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.data is None:
        from fewbits.data.load import home

        options.data = home()
    rows = rows_in(options.result)
    for name in options.experiment:
        found = OTHERS[name](options, rows) if name in OTHERS else runs(name, options, options.schedule, rows)
        for row in found:
            print(json.dumps(row), flush=True)
            if not options.tune:
                rows[:] = [*rows_in(options.result), row]  # another experiment may have written meanwhile
                head = provenance("pruning", "python benchmarks/pruning.py --data DIR --weights DIR")
                options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
