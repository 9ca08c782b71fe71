"""How much to prune in each layer: PuRL's agent and the simple searchers, at equal numbers of network evaluations.

Every searcher starts from the same trained network and has the same budget; an evaluation is one new choice of
sparsities, recalibrated and run over the proxy samples, which are carved out of training data. The chosen masks
are then recalibrated on more training samples and looked at once on the test set. Answers and finished rows are
kept, so an interrupted run goes on, and answers are shared by all searchers (each pays for what it asks).

    python benchmarks/reinforcement.py --data DIR --weights DIR [--experiment resnet-20 lenet-5] [--seeds 0 1 2 3 4]

--tune trains every network found (same epochs, order and optimizer) under its mask and adds the test accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits import data, zoo
from fewbits import recipe as recipes
from fewbits.data import DataSet
from fewbits.job import folder as outputs
from fewbits.pipeline import compress
from fewbits.recipe.training import Training
from fewbits.report import provenance
from fewbits.search.layer_rates import Proxy, RateSpace, Targets, carve
from fewbits.search.layer_rates.run import explore
from fewbits.task import accuracy
from fewbits.train import pretrain, recalibrate
from fewbits.weights import select

RESULT = Path(__file__).parent.parent / "results" / "reinforcement.json"

# Name in the results: searcher, reward.
AGENTS = {
    "terminal": ("purl", "terminal"),
    "raw": ("purl", "raw"),
    "potential": ("purl", "potential"),
    "sparsity": ("purl", "sparsity"),
    "qlp": ("qlp", "potential"),
}
SIMPLE = ("global-magnitude", "lamp", "erk", "uniform", "random", "greedy")
DRAWN = (*AGENTS, "random")  # those that a seed changes
KEY = ("experiment", "method", "seed", "budget")


@dataclass(frozen=True)
class Setting:
    """One network. ``evaluations``: budget; ``sparsity``, ``drop``: targets; ``tune``: epochs."""

    network: str
    data: str
    evaluations: int
    sparsity: float
    weights: str | None = None
    drop: float = 1.0
    floor: int | str = 0
    proxy: int = 500
    calibration: int = 128
    precision: str = "float32"
    pretrain: Training | None = None
    tune: float = 0.25


SETTINGS = {
    "resnet-20": Setting(
        "resnet-20", "cifar10", 200, 0.8, weights="cifar10_resnet20.safetensors", precision="bfloat16"
    ),
    "lenet-5": Setting(
        "lenet-5", "fashion-mnist", 200, 0.95, proxy=1000, precision="bfloat16", pretrain=Training(epochs=3, lr=1e-3)
    ),
}  # fmt: skip


def prepared(setting: Setting, options: Any) -> tuple[nn.Module, DataSet]:
    """The trained network (published weights, or trained here once) and the data as it wants them."""
    dataset = data.load(setting.data, options.data)
    network = zoo.build(setting.network, seed=0)
    path = Path(options.weights) / setting.weights if setting.weights else Path(options.work) / f"{setting.network}.st"
    if setting.pretrain is not None and not path.exists():
        pretrain(network, dataset.loader("train", 128, shuffle=True), setting.pretrain, seed=0)
        outputs.save_float(network, path, dataset.normalisation)
    wanted = zoo.normalisation(zoo.load_weights(network, path))
    return network.eval(), dataset if wanted is None else dataset.normalised(wanted)


def runs(name: str, options: Any, known: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Rows of one network that are not there yet, seed by seed."""
    setting = SETTINGS[name]
    wanted = [
        (method, seed)
        for seed in options.seeds
        for method in (*AGENTS, *SIMPLE)
        if (seed == options.seeds[0] or method in DRAWN) and (not options.methods or method in options.methods)
    ]
    wanted = [(m, s) for m, s in wanted if (name, m, s, setting.evaluations) not in known]
    if not wanted:
        return
    network, dataset = prepared(setting, options)
    space = RateSpace(select(network), setting.floor)
    proxy, calibration = carve(dataset, setting.proxy, setting.calibration)
    journal = outputs.folder(Path(options.work)) / f"{name}.journal"
    measure = Proxy(network, space, proxy, calibration, precision=setting.precision, journal=journal)
    dense = measure(space.dense)
    targets = Targets(dense - setting.drop, setting.sparsity)
    for method, seed in wanted:
        begin, before = time.perf_counter(), measure.runs
        searcher, reward = AGENTS.get(method, (method, "potential"))
        found = explore(space, measure, targets, searcher, setting.evaluations, reward=reward, seed=seed)
        if not found.finished:
            raise KeyboardInterrupt
        kept = space.clipped([round((1 - found.rates[n]) * s) for n, s in zip(space.names, space.sizes, strict=True)])
        yield {
            "experiment": name, "model": setting.network, "data": setting.data, "method": method, "seed": seed,
            "budget": setting.evaluations, "evaluations": found.evaluations, "score": found.score,
            "proxy_accuracy": found.accuracy, "dense_proxy_accuracy": dense, "sparsity": 100 * found.sparsity,
            "target_sparsity": setting.sparsity, "target_drop": setting.drop, "proxy_samples": setting.proxy,
            "calibration_samples": setting.calibration, "precision": setting.precision, "layers": len(space),
            "weights": space.total, "steps": found.steps, "episodes": found.episodes,
            "history": [[n, s] for n, s, _, _ in found.history],
            "kept": list(kept), "fewest_survivors": min(kept), "network_runs": measure.runs - before,
            "seconds": time.perf_counter() - begin, "commit": provenance("reinforcement", "")["commit"],
        }  # fmt: skip


def tested(row: dict[str, Any], options: Any) -> dict[str, Any]:
    """The row with the accuracy on the test set, after the statistics were taken anew on more training samples."""
    network, dataset = prepared(SETTINGS[row["experiment"]], options)
    row |= {"split": "test", "baseline_accuracy": accuracy(network, dataset.loader("test", 250))}
    space = RateSpace(select(network))
    with torch.no_grad():
        for i, (name, kept) in enumerate(zip(space.names, row["kept"], strict=True)):
            network.get_parameter(name).mul_(space.mask(i, kept))
    recalibrate(network, islice(dataset.loader("train", 250, shuffle=True, seed=1), 8))
    return row | {"accuracy": accuracy(network, dataset.loader("test", 250))}


def tuned(row: dict[str, Any], options: Any) -> dict[str, Any]:
    """The row with the accuracy after training under the mask that was found: a run of the main job."""
    setting = SETTINGS[row["experiment"]]
    network, dataset = prepared(setting, options)
    space = RateSpace(select(network), setting.floor)
    prune = {"method": "layers", "rates": space.rates(tuple(row["kept"]))}
    train = {"epochs": setting.tune, "optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4}
    recipe = recipes.make({"prune": prune, "assign": {"method": "none"}, "train": train, "rounds": 1})
    found = compress(network, dataset.loader("train", 128, shuffle=True, seed=1), recipe=recipe)
    after = found.into(zoo.build(setting.network, seed=0))
    percent = accuracy(after, dataset.loader("test", 250))
    return row | {"tuned_accuracy": percent, "tuned_epochs": setting.tune}


def rows_in(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def added(name: str, key: str, add: Callable[[dict[str, Any], Any], dict[str, Any]], options: Any) -> None:
    """Add to the rows of one network what they lack."""
    for row in rows_in(options.result):
        wanted = row["seed"] in options.seeds and (not options.methods or row["method"] in options.methods)
        if row["experiment"] != name or key in row or not wanted:
            continue
        done = add(row, options)
        print(name, row["method"], row["seed"], key, done[key], flush=True)
        found = json.loads(options.result.read_text())  # searches may have written meanwhile
        found["rows"] = [done if all(r[k] == row[k] for k in KEY) else r for r in found["rows"]]
        options.result.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: FEWBITS_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of trained .safetensors")
    parser.add_argument("--experiment", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=[*AGENTS, *SIMPLE])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, help="budget of each search, instead of the experiment's")
    parser.add_argument("--tune", action="store_true", help="train the networks that were found, too")
    parser.add_argument("--search-only", action="store_true", help="leave the test set to a later call")
    parser.add_argument("--work", default="out/reinforcement", help="folder for answers and networks trained here")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.evaluations:
        for name, setting in SETTINGS.items():
            SETTINGS[name] = dataclasses.replace(setting, evaluations=options.evaluations)
    outputs.folder(Path(options.work))
    for name in options.experiment:
        known = {tuple(row[k] for k in KEY) for row in rows_in(options.result)}
        for row in runs(name, options, known):
            print(json.dumps({k: v for k, v in row.items() if k not in ("history", "kept")}), flush=True)
            head = provenance("reinforcement", "python benchmarks/reinforcement.py --data DIR --weights DIR")
            rows = [*rows_in(options.result), row]  # another experiment may have written meanwhile
            options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
    for name in options.experiment:
        if not options.search_only:
            added(name, "accuracy", tested, options)
        if options.tune:
            added(name, "tuned_accuracy", tuned, options)


if __name__ == "__main__":
    main()
