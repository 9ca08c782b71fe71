"""What benchmarks/pruning.py prunes: networks, data, schedules, and the float networks that all methods share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbits import recipe as recipes
from fewbits.job import folder as outputs
from fewbits.job import job as jobs

METHODS = ("global-mp", "global-mp+floor", "lamp", "erk", "uniform", "feather", "random", "dense")


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
        prune |= {"method": "global-magnitude", "min_kept": setting.floor if method.endswith("+floor") else 0}
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
