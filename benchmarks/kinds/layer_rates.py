"""How much to prune in each layer: PuRL's agent and the simple searchers, at equal numbers of network evaluations."""

import copy
import time
from itertools import islice

import torch

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits import recipe as recipes
from fewbits.job import Job
from fewbits.job import folder as outputs
from fewbits.pipeline import compress
from fewbits.search.layer_rates import Proxy, RateSpace, Targets, carve
from fewbits.search.layer_rates.run import explore
from fewbits.task import accuracy
from fewbits.train import recalibrate
from fewbits.weights import select

AGENTS = ("terminal", "raw", "potential", "sparsity")  # PuRL's, by the reward; the others go by their own names


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: the best sparsities a searcher found, and what they are worth on test data."""
    job, chosen, method = prepared(unit, place), unit.options, unit.labels["method"]
    space = RateSpace(select(job.network), chosen.get("floor", 0))
    proxy, calibration = carve(job.dataset, chosen["proxy"], chosen["calibration"])
    journal = outputs.folder(place.work / "journals") / f"{unit.labels['experiment']}.journal"
    ask = Proxy(job.network, space, proxy, calibration, precision=chosen["precision"], journal=journal)
    dense = ask(space.dense)
    begin, before = time.perf_counter(), ask.runs
    searcher, reward = ("purl", method) if method in AGENTS else (method, "potential")
    targets = Targets(dense - chosen["drop"], chosen["sparsity"])
    found = explore(space, ask, targets, searcher, chosen["budget"], reward=reward, seed=unit.seed)
    if not found.finished:
        raise KeyboardInterrupt
    kept = space.clipped([round((1 - found.rates[n]) * s) for n, s in zip(space.names, space.sizes, strict=True)])
    row = unit.labels | {
        "model": unit.settings["model"], "data": job.dataset.name,
        "budget": chosen["budget"], "evaluations": found.evaluations, "score": found.score,
        "proxy_accuracy": found.accuracy, "dense_proxy_accuracy": dense, "sparsity": 100 * found.sparsity,
        "target_sparsity": chosen["sparsity"], "target_drop": chosen["drop"], "proxy_samples": chosen["proxy"],
        "calibration_samples": chosen["calibration"], "precision": chosen["precision"], "layers": len(space),
        "weights": space.total, "steps": found.steps, "episodes": found.episodes,
        "history": [[n, s] for n, s, _, _ in found.history],
        "kept": list(kept), "fewest_survivors": min(kept), "network_runs": ask.runs - before,
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip
    return [row | tested(job, space, kept) | tuned(job, space, kept, chosen["tune"])]


def tested(job: Job, space: RateSpace, kept: tuple[int, ...]) -> Row:
    """Accuracy on the test set, after the statistics were taken anew on more training samples."""
    network = copy.deepcopy(job.network)
    with torch.no_grad():
        for i, (name, count) in enumerate(zip(space.names, kept, strict=True)):
            network.get_parameter(name).mul_(space.mask(i, count))
    recalibrate(network, islice(job.dataset.loader("train", 250, shuffle=True, seed=1), 8), job.network)
    before, after = (accuracy(n, job.dataset.loader("test", 250)) for n in (job.network, network))
    return {"split": "test", "baseline_accuracy": before, "accuracy": after}


def tuned(job: Job, space: RateSpace, kept: tuple[int, ...], epochs: float) -> Row:
    """Accuracy after training under the mask that was found: a run of the main job."""
    prune = {"method": "layers", "rates": space.rates(kept)}
    train = {"epochs": epochs, "optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4}
    recipe = recipes.make({"prune": prune, "assign": {"method": "none"}, "train": train, "rounds": 1})
    found = compress(job.network, job.dataset.loader("train", 128, shuffle=True, seed=1), recipe=recipe)
    percent = accuracy(found.into(job.skeleton()), job.dataset.loader("test", 250))
    return {"tuned_accuracy": percent, "tuned_epochs": epochs}
