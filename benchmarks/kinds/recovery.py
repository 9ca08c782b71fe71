"""How much a rule recovers of what compression cost, in one epoch over few training images, and at what memory.

The float network is trained by backpropagation once for all rules and kept in the work folder. A rule's learning rate
is the best of its trials, equally many for each, on validation images.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.kinds.rules import Training, first
from benchmarks.memory import peak_bytes
from benchmarks.process import alone
from benchmarks.unit import Place, Row, Unit
from fewbits.attach import attach
from fewbits.data import DataSet
from fewbits.errors import NonFiniteError
from fewbits.pipeline import Compressed, compress
from fewbits.plan import Plan
from fewbits.recipe import Recipe, changed, make
from fewbits.report.sizes import float_bytes
from fewbits.task import accuracy
from fewbits.train import Callback, fit, plain
from fewbits.train.learning import learning, settled
from fewbits.train.loop import optimizer_of, parameter_groups


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: a compression without training, and the same with one epoch by a rule.

    Options of the experiment: ``images`` of the float network's training; ``fraction`` of them, for the rule; ``ratio``
    of the file, if the target is a size; ``lr``, the learning rates to choose from; ``shown``, on how many validation
    images.
    """
    assert unit.recipe is not None
    recipe, asked = place.located(unit.recipe), unit.options
    network, data = _float(recipe, asked["images"], place)
    few = _first_of_training(data, round(asked["images"] * asked["fraction"]))
    chosen_on = first(data, "validation", asked["shown"])
    target = float_bytes(dict(network.state_dict())) // asked["ratio"] if asked.get("ratio") else None
    size = recipe.data.batch_size if recipe.data else 64

    def run(training: Mapping[str, Any] | None) -> Compressed:
        kept = recipe.model_dump(by_alias=True, exclude_unset=True, exclude={"network", "data", "pretrain"})
        loader = few.loader("train", size, shuffle=True, seed=recipe.seed)
        found = make(changed(kept, {f"train.{key}": value for key, value in (training or {"epochs": 0}).items()}))
        return compress(copy.deepcopy(network), loader, recipe=found, target=target, progress=None)

    def judged(found: Compressed, batches: Any) -> float:
        return accuracy(found.into(copy.deepcopy(network)), batches)

    before = run(None)
    trials: list[tuple[float, float]] = []
    for lr in asked["lr"]:
        try:
            trials.append((judged(run({"lr": lr}), chosen_on), lr))
        except NonFiniteError:
            trials.append((0.0, lr))
    lr = max(trials, key=lambda trial: trial[0])[1]
    after, test = run({"lr": lr}), list(data.loader("test", 250))
    row = {
        "method": unit.labels["rule"], "split": "test", "images": len(few.train), "lr": lr, "trials": len(trials),
        "baseline_accuracy": accuracy(network, test), "without": judged(before, test),
        "accuracy": judged(after, test), "bytes": after.report.file_bytes, "bytes_without": before.report.file_bytes,
        "sparsity": 100 * after.report.zeros,
        "peak_bytes": _step_bytes(network, before.plan, recipe, few.loader("train", size)),
    }  # fmt: skip
    return [unit.settings | row]


def _float(recipe: Recipe, images: int, place: Place) -> tuple[nn.Module, DataSet]:
    """The float network and its data."""
    training, path = Training(recipe, images), place.float_file(recipe).with_suffix(f".{images}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        if path.exists():
            training.network.load_state_dict(load_file(path))
        else:
            training.run()
            save_file(training.network.state_dict(), path)
    return training.network.eval(), training.data


def _first_of_training(data: DataSet, count: int) -> DataSet:
    return replace(data, train=data.train.hold_out(count)[1])


def _step_bytes(network: nn.Module, plan: Plan, recipe: Recipe, loader: Any) -> int:
    """Peak of one step by the rule on the network under its plan, when one was done before."""
    held, settings = copy.deepcopy(network), settled(recipe.train).model_copy(update={"epochs": 1.0})
    attach(held, plan)
    optimizer, callback = optimizer_of(parameter_groups(held, settings), settings), Callback()
    batches = [next(iter(loader))]

    def step() -> None:
        rule = learning(settings)
        fit(held, batches, plain(), optimizer, settings, callback=callback, rule=rule)

    step()
    return peak_bytes(step)
