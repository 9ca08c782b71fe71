"""ECQx at the paper's scale: accuracy over bytes on keywords, human activity and CIFAR-10, against ECQ and controls.

Every method of an experiment gets the same float networks, data, epochs, learning rate and byte targets; only what
weighs zeroing differs. `--levers` changes one option of the recipe at a time, at one target. Choices are made on the
validation split, whose accuracy is in every row beside that of the test split. Finished rows are kept and an
interrupted run goes on from its last round, so the same command continues a selection that was stopped.

    python benchmarks/ecqx.py mlp-gsc --data FOLDER            # minutes per run on one core
    python benchmarks/ecqx.py resnet-20 --weights FOLDER       # a quarter of an hour per run on one core
    python benchmarks/ecqx.py vgg16-bn --weights FOLDER        # for a GPU, as are vgg16, vgg16-folded and -frontier
"""

from __future__ import annotations

import argparse
import copy
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import folded
from fewbits import recipe as recipes
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.report import provenance
from published import PUBLISHED
from rows import published_vgg, row_of, with_method

METHODS = ("ecq", "ecqx", "taylor", "fisher", "magnitude", "random")
ROOT = Path(__file__).parent.parent

ECQX = {"method": "ecqx", "bits": 4, "options": {"zero_floor": 0.5, "momentum": 0.95}}
RELEVANCE = {"name": "relevance", "rules": "plus", "every": 4}  # every step is no better: results/ecqx/*-levers.json
CHEAP_RELEVANCE = {**RELEVANCE, "samples": 16, "every": 2}
SGD = {"epochs": 30, "optimizer": "sgd"}


@dataclass(frozen=True)
class Experiment:
    """A network on a data set.

    Attributes:
        recipe: everything but method, target and seed.
        targets: bytes of the file.
        weights: file of trained weights, for networks that are not trained here.
        folded: whether ``weights`` are of a network with normalisation, which is folded into these layers first.
        step: what sets the steps of the grid, if the command line does not say it.
        levers: name -> changes of the recipe (dotted keys), one row each, at ``lever_target``.
    """

    recipe: dict[str, Any]
    targets: tuple[str, ...]
    lever_target: str
    weights: str | None = None
    folded: bool = False
    step: str = "rate"
    levers: dict[str, dict[str, Any]] = field(default_factory=dict)


LEVERS: dict[str, dict[str, Any]] = {  # "as it is" takes relevance at every step, and so do the others
    "as it is": {},
    "rate of the coder": {"assign.options.rate": "coder"},
    "relevance every 4 steps": {"measure.every": 4},
    "relevance of 32 samples": {"measure.samples": 32},
    "p = 0.2": {"assign.options.p": 0.2},
    "no learnt steps": {"train.learn": False},
    "no distillation": {"train.distill": 0.0},
    "distillation only": {"train.distill": 1.0},
    "target from the start": {"train.arrive": 0.0},
    "gradual lambda": {"train.gradual": True},
    "floor 0.5 %": {"assign.options.min_kept": 0.005},
    "floor 1 %": {"assign.options.min_kept": 0.01},
    "floor 2 %": {"assign.options.min_kept": 0.02},
    "bfloat16 remainder": {"floats": "bfloat16"},
    "5 significant bits": {"significand": 5},
    "gradual lambda, 5 significant bits": {"train.gradual": True, "significand": 5},
    "2 bit": {"assign.bits": 2},
    "3 bit": {"assign.bits": 3},
    "5 bit": {"assign.bits": 5},
    "half the learning rate": {"train.lr": 5e-4},
    "twice the learning rate": {"train.lr": 2e-3},
}

# ResNet-20's, which are of ECQ: first Adam, half distilled, with the target at half; then what changed to plain SGD.
ADAM: dict[str, dict[str, Any]] = {
    f"Adam, {name}": {
        "train.optimizer": "adam", "train.lr": 1e-3, "train.weight_decay": 0.0, "train.learn": True,
        "train.distill": 0.5, "train.arrive": 0.5, **changes,
    }
    for name, changes in {
        "at half": {},
        "at half, 3 bit": {"assign.bits": 3},
        "at half, a third of the learning rate": {"train.lr": 3e-4},
        "at half, twice the learning rate": {"train.lr": 2e-3},
        "at half, taught by ResNet-56": {
            "train.teacher": {"name": "resnet-56", "weights": "cifar10_resnet56.safetensors"},
        },
        "at half, distillation only": {"train.distill": 1.0},
        "3 bit": {"train.arrive": 0.25, "assign.bits": 3},
        "3 bit, distillation only": {"train.arrive": 0.25, "assign.bits": 3, "train.distill": 1.0},
        "distillation only, a fifth of the learning rate": {
            "train.arrive": 0.25, "train.distill": 1.0, "train.lr": 2e-4,
        },
    }.items()
}  # fmt: skip
SLOW_OR_FAST: dict[str, dict[str, Any]] = {
    "as it is": {},
    "48 rounds": {"rounds": 48},
    "gradual lambda": {"train.gradual": True},
    "target at half": {"train.arrive": 0.5},
    "floor 0.5 %": {"assign.options.min_kept": 0.005},
    "gradual lambda, target at half": {"train.gradual": True, "train.arrive": 0.5},
}
SLOW: dict[str, dict[str, Any]] = {  # of those that go slowly as they are
    "as it is": {},
    "lambda that jumps": {"train.gradual": False},
    "target at a quarter": {"train.arrive": 0.25},
    "floor 0.5 %": {"assign.options.min_kept": 0.005},
}
PLAIN: dict[str, dict[str, Any]] = {
    "relevance of whole batches": {"measure.samples": None},  # at every step, as levers take it
    "half distilled": {"train.distill": 0.5},
    "3 bit": {"assign.bits": 3},
    "3 bit, learning rate 0.02": {"assign.bits": 3, "train.lr": 2e-2},
    "learning rate 0.005": {"train.lr": 5e-3},
    "learning rate 0.005, learnt steps": {"train.lr": 5e-3, "train.learn": True},
    "learning rate 0.005, 3 bit": {"train.lr": 5e-3, "assign.bits": 3},
}


def _demo() -> dict[str, Any]:
    """The recipe of the demo, its size left open."""
    values = recipes.load("demo").model_dump(by_alias=True, exclude_unset=True)
    return {key: value for key, value in values.items() if key not in ("target", "seed")}


EXPERIMENTS = {
    "mlp-gsc": Experiment(
        {
            "network": {"name": "mlp-gsc"},
            "data": {"name": "speech-commands", "batch_size": 256},
            "pretrain": {**SGD, "lr": 0.05, "weight_decay": 1e-3},
            "measure": RELEVANCE,
            "train": {"epochs": 20, "lr": 1e-3, "distill": 0.5, "learn": True, "arrive": 0.5},
            "rounds": 12,
        },
        ("60 KB", "43 KB", "28 KB", "18 KB"),
        "28 KB",
        step_rule="range",  # damping does not go with steps by the rate
        levers=LEVERS | {
            "target at a quarter": {"train.arrive": 0.25}, "bfloat16 training": {"train.precision": "bfloat16"},
        },
    ),
    "mlp-activity": Experiment(
        {
            "network": {"name": "mlp-gsc", "options": {"inputs": 768, "classes": 6}},
            "data": {"name": "activity", "batch_size": 64},
            "pretrain": {**SGD, "lr": 0.02, "weight_decay": 5e-3, "label_smoothing": 0.1},
            "measure": RELEVANCE,
            "train": {"epochs": 20, "lr": 1e-3, "distill": 0.5, "learn": True},
            "rounds": 12,
        },
        ("30 KB", "15 KB", "8 KB"),
        "15 KB",
        step_rule="range",
        levers=LEVERS,
    ),
    "digits-net": Experiment(_demo(), ("5 KB", "3.5 KB", "2.5 KB"), "3.5 KB", levers=LEVERS),
    "lenet-5": Experiment(
        {
            "network": {"name": "lenet-5"},
            "data": {"name": "fashion-mnist", "batch_size": 128},
            "pretrain": {"epochs": 6, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4},
            "measure": RELEVANCE,
            "train": {"epochs": 4, "optimizer": "sgd", "lr": 2e-2, "weight_decay": 1e-4, "distill": 1.0},
            "rounds": 12,
        },
        ("16 KB", "8 KB", "4 KB"),
        "4 KB",
        levers=SLOW_OR_FAST,
    ),
    "resnet-20": Experiment(
        {
            "network": {"name": "resnet-20"},
            "data": {"name": "cifar10", "batch_size": 64, "augment": True},
            "measure": CHEAP_RELEVANCE,
            "train": {
                "epochs": 10, "optimizer": "sgd", "lr": 1e-2, "weight_decay": 1e-4, "distill": 1.0,
                "precision": "bfloat16",
            },
            "rounds": 12,
        },
        ("80 KB", "60 KB", "43 KB", "30 KB", "20 KB"),
        "43 KB",
        weights="cifar10_resnet20.safetensors",
        levers=SLOW_OR_FAST | PLAIN | ADAM,
    ),
    "resnet-56": Experiment(
        {
            "network": {"name": "resnet-56"},
            "data": {"name": "cifar10", "batch_size": 128, "augment": True},
            "measure": CHEAP_RELEVANCE,
            "train": {"epochs": 100, "lr": 1e-3, "distill": 0.5, "learn": True, "precision": "bfloat16"},
            "rounds": 20,
        },
        ("150 KB", "100 KB", "66 KB"),
        "100 KB",
        weights="cifar10_resnet56.safetensors",
    ),
    "vgg16-bn": Experiment(
        {
            "network": {"name": "vgg16-bn", "options": {"dropout": False}},
            "data": published_vgg(),
            "measure": CHEAP_RELEVANCE,
            "train": {
                "epochs": 100, "optimizer": "sgd", "lr": 2e-3, "weight_decay": 1e-4, "distill": 1.0,
                "precision": "bfloat16",
            },
            "rounds": 12,
        },
        ("584 KB", "250 KB", "129 KB", "100 KB", "76 KB"),
        "129 KB",
        weights="cifar10_vgg16bn_fp16.safetensors",
        levers={
            "as it is": {"measure.every": 2},
            "dropout": {"measure.every": 2, "network.options": {"dropout": True}},
        },
    ),
    "vgg16": Experiment(
        {
            "network": {"name": "vgg16"},
            "data": {"name": "cifar10", "batch_size": 128, "augment": True},
            "pretrain": {"epochs": 160, "optimizer": "sgd", "lr": 0.02, "weight_decay": 5e-4, "clip": 1.0,
                         "precision": "bfloat16"},
            "measure": CHEAP_RELEVANCE,
            "train": {
                "epochs": 60, "optimizer": "sgd", "lr": 5e-3, "weight_decay": 1e-4, "clip": 1.0, "distill": 0.5,
                "precision": "bfloat16", "gradual": True, "arrive": 0.5,
            },
            "rounds": 24,
        },
        ("934 KB", "584 KB", "300 KB", "129 KB"),
        "584 KB",
        levers=SLOW,
    ),
    "vgg16-folded": Experiment(  # the paper's VGG16, started from weights that were trained with normalisation
        {
            "network": {"name": "vgg16", "options": {"dropout": 0.0}},
            "data": published_vgg(),
            "measure": CHEAP_RELEVANCE,
            "train": {
                "epochs": 8, "optimizer": "sgd", "lr": 1e-2, "weight_decay": 1e-4, "clip": 1.0, "distill": 1.0,
                "precision": "bfloat16", "gradual": True, "arrive": 0.5,
            },
            "rounds": 12,
        },
        ("584 KB",),
        "584 KB",
        weights="cifar10_vgg16bn_fp16.safetensors",
        folded=True,
    ),
    "vgg16-frontier": Experiment(
        {
            "network": {"name": "vgg16-bn", "options": {"dropout": False}},
            "data": {"name": "cifar10", "batch_size": 256, "augment": True},
            "pretrain": {"epochs": 160, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "precision": "bfloat16"},
            "measure": CHEAP_RELEVANCE,
            "train": {
                "epochs": 40, "optimizer": "sgd", "lr": 2e-2, "weight_decay": 1e-4, "distill": 1.0,
                "precision": "bfloat16", "gradual": True, "arrive": 0.5,
            },
            "rounds": 24,
        },
        ("584 KB", "250 KB", "129 KB", "100 KB", "76 KB"),
        "129 KB",
        levers=SLOW,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One row: a method (or a lever) at a target with a seed."""

    experiment: str
    method: str
    target: str
    seed: int
    lever: str = ""
    epochs: float | None = None
    damping: float | None = None
    step: str | None = None
    lr: float | None = None
    gradual: bool = False
    floor: float | None = None
    significand: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        chosen = EXPERIMENTS[self.experiment]
        train, lever = chosen.recipe["train"], chosen.levers.get(self.lever, {})
        epochs = train["epochs"] if self.epochs is None else self.epochs
        damping = train.get("damping", 0.0) if self.damping is None else self.damping
        lr = lever.get("train.lr", train["lr"]) if self.lr is None else self.lr
        options = chosen.recipe["network"].get("options", {}) | lever.get("network.options", {})
        dropout = bool(options.get("dropout", True))
        gradual = self.gradual or lever.get("train.gradual", train.get("gradual", False))
        assigned = ECQX["options"] | chosen.recipe.get("assign", {}).get("options", {})
        floor = self.floor or lever.get("assign.options.min_kept", assigned.get("floor", 0.0))
        significand = self.significand or lever.get("significand", chosen.recipe.get("significand"))
        return (
            self.method, self.target, self.seed, self.lever, float(epochs), damping, self.steps, lr, dropout, gradual,
            floor, significand,
        )  # fmt: skip

    @property
    def steps(self) -> str:
        """What sets the steps of the grid."""
        return self.step or EXPERIMENTS[self.experiment].step


def recipe_for(run: Run, options: argparse.Namespace) -> recipes.Recipe:
    chosen = EXPERIMENTS[run.experiment]
    values: dict[str, Any] = copy.deepcopy({"assign": ECQX, **chosen.recipe, "target": run.target, "seed": run.seed})
    if options.data:
        values["data"]["folder"] = options.data
    if chosen.weights and not chosen.folded:
        values["network"]["weights"] = str(options.weights / chosen.weights)
    values["assign"]["options"]["step"] = run.steps
    changes = {"measure.every": 1, **chosen.levers[run.lever]} if run.lever else {}
    for path, change in changes.items():
        *parents, last = path.split(".")
        place = values
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = copy.deepcopy(change)
    if "teacher" in values["train"]:
        values["train"]["teacher"]["weights"] = str(options.weights / values["train"]["teacher"]["weights"])
    if run.epochs is not None:
        values["train"]["epochs"] = run.epochs
    if run.damping is not None:
        values["train"]["damping"] = run.damping
    if run.lr is not None:
        values["train"]["lr"] = run.lr
    if run.gradual:
        values["train"]["gradual"] = True
    if run.floor:
        values["assign"]["options"]["floor"] = run.floor
    if run.significand is not None:
        values["significand"] = run.significand
    return recipes.make(with_method(values, run.method))


def float_file(experiment: str, seed: int, options: argparse.Namespace) -> Path | None:
    """The float network of a seed, trained (or folded) once for all methods; ``None`` if its weights are a file's."""
    chosen = EXPERIMENTS[experiment]
    if chosen.weights and not chosen.folded:
        return None
    folder = outputs.folder(options.work / experiment)
    path = folder / f"float-{seed}.safetensors"
    if path.exists():
        return path
    if chosen.weights:
        folded.vgg16(options.weights / chosen.weights, path)
    else:
        run = Run(experiment, "ecq", EXPERIMENTS[experiment].targets[0], seed)
        job = jobs.prepare(recipe_for(run, options), say=partial(print, flush=True))
        outputs.save_float(job.network, path, job.dataset.normalisation)
    return path


def one(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    recipe = recipe_for(run, options)
    job = jobs.prepare(recipe, trained=float_file(run.experiment, run.seed, options))
    name = "-".join(str(part) for part in run.key if part != "").replace(" ", "_")
    result = jobs.run(job, options.work / run.experiment / name)
    validation = job.evaluate("validation")(result.into(job.skeleton()))
    commit = provenance("ecqx", "")["commit"]  # per row: an interrupted selection may go on with other code
    row = row_of(result.report, recipe, commit) | {"method": run.method, "target": run.target}
    row |= {"validation_accuracy": validation, "device": "cuda" if torch.cuda.is_available() else "cpu"}
    assert recipe.data is not None
    values = recipe.model_dump(mode="json")
    row |= {"batch": recipe.data.batch_size, "augment": values["data"]["augment"], "lr": recipe.train.lr}
    row |= {"damping": recipe.train.damping, "step": run.steps}
    *_, dropout, gradual, floor, significand = run.key
    row |= {} if dropout else {"dropout": False}
    row |= {"gradual": True} if gradual else {}
    row |= {"min_kept": floor} if floor else {}
    row |= {} if significand is None else {"significand": significand}
    return row | ({"lever": run.lever} if run.lever else {})


def save(path: Path, experiment: str, rows: list[dict[str, Any]]) -> None:
    order = {name: i for i, name in enumerate((*METHODS, *EXPERIMENTS[experiment].levers))}
    rows.sort(key=lambda r: (order.get(r.get("lever") or r["method"], 99), -r["bytes"], r["seed"] or 0))
    head = provenance(f"ecqx {experiment}", f"python benchmarks/ecqx.py {experiment}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all; of an ablation, ecqx")
    parser.add_argument("--targets", nargs="+", help="bytes of the files; default: those of the experiment")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--levers", nargs="*", help="an ablation instead; without names, all of them")
    parser.add_argument("--epochs", type=float, help="another length than the experiment's")
    parser.add_argument("--damping", type=float, help="another one than the experiment's")
    parser.add_argument("--lr", type=float, help="another learning rate than the experiment's")
    parser.add_argument("--gradual", action="store_true", help="lambda moves at every step (train.gradual)")
    parser.add_argument("--floor", type=float, help="share of a layer's weights that stay (assign.min_kept)")
    parser.add_argument("--significand", type=int, help="significant bits of what stays floats")
    parser.add_argument("--step", choices=("rate", "range"), help="another than the experiment's setting of steps")
    parser.add_argument("--data", help="folder with the data sets")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder with trained weights")
    parser.add_argument("--work", type=Path, default=Path("out/ecqx"), help="folder for the files")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    for name in ("lr", "floor", "significand"):
        if getattr(options, name) is not None and options.levers is not None:
            parser.error(f"levers have their own: --{name} goes without --levers")
    chosen = EXPERIMENTS[options.experiment]
    levers = options.levers is not None
    path = options.result or ROOT / "results" / "ecqx" / f"{options.experiment}{'-levers' if levers else ''}.json"
    if levers:
        names = options.levers or list(chosen.levers)
        targets, methods = options.targets or [chosen.lever_target], options.methods or ["ecqx"]
    else:
        names, targets, methods = [""], options.targets or chosen.targets, options.methods or METHODS
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    known = {(r["method"], r["target"], r["seed"], r.get("lever", ""), r.get("epochs"), r.get("damping", 0.0),
              r.get("step", "range"), r.get("lr", chosen.recipe["train"]["lr"]), r.get("dropout", True),
              r.get("gradual", False), r.get("floor", 0.0), r.get("significand"))
             for r in rows if "target" in r}  # fmt: skip
    runs = [
        Run(options.experiment, method, target, seed, name, options.epochs, options.damping, options.step_rule,
            options.lr,
            options.gradual, options.min_kept, options.significand)
        for seed in options.seeds for target in targets for method in methods for name in names
    ]  # fmt: skip
    todo = [run for run in runs if run.key not in known]
    if not levers and not any(r.get("source") for r in rows):
        rows += PUBLISHED.get(options.experiment, [])
    for seed in sorted({run.seed for run in todo}):
        float_file(options.experiment, seed, options)
    if options.workers == 1:
        for run in todo:
            rows.append(one(run, options))
            print(json.dumps(rows[-1]), flush=True)
            save(path, options.experiment, rows)
        return
    failed: list[str] = []
    # A fork of a process that has used a GPU cannot use it.
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(one, run, options) for run in todo]):
            if done.exception() is not None:  # the others' rows must not wait for one that failed
                failed.append(f"failed: {done.exception()}")
                print(failed[-1], flush=True)
                continue
            rows.append(done.result())
            print(json.dumps(rows[-1]), flush=True)
            save(path, options.experiment, rows)
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
