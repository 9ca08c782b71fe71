"""Memory and time of a step of every rule, on a chain of convolutions, beside backpropagation's in the same run."""

import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from benchmarks.memory import peak_bytes
from benchmarks.unit import Place, Row, Unit
from fewbits.recipe.training import Training
from fewbits.train import Callback, fit, plain
from fewbits.train.learning import settled
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.rules import RULES, rule_of

MODES: dict[str, list[Row]] = {"predictive-coding": [{"mode": mode} for mode in ("strict", "fixed-pred", "exact")]}


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for every rule, and for each mode of predictive coding.

    Options of the experiment: ``layers``, the last one linear; ``width`` of the others; ``size`` of the images;
    ``batch``; ``repeats``.
    """
    asked = unit.options
    named = [(name, options) for name in RULES for options in MODES.get(name, [{}])]
    steps = [Steps(name, options, asked, unit.seed) for name, options in named]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(asked["repeats"]):  # in turns, so that what else runs on the machine meets all of them
        for found, step in zip(times, steps, strict=True):
            begin = time.process_time()
            step()
            found.append(time.process_time() - begin)
    rows: list[Row] = []
    for (name, options), step, found in zip(named, steps, times, strict=True):
        rows.append({
            "model": f"{asked['layers']} layers", "data": "noise", "method": ", ".join([name, *options.values()]),
            "peak_bytes": peak_bytes(step), "state_bytes": step.state_bytes, "weight_bytes": step.weight_bytes,
            "step_seconds": statistics.median(found), "threads": torch.get_num_threads(),
        })  # fmt: skip
    base = rows[0]
    for row in rows:
        row["times_memory"] = row["peak_bytes"] / base["peak_bytes"]
        row["times_time"] = row["step_seconds"] / base["step_seconds"]
    return [unit.settings | row for row in rows]


def chain(layers: int, width: int, size: int) -> nn.Sequential:
    """Convolutions of 3 by 3 pixels with rectifiers, and a linear layer over the means of what they give."""
    channels = [3, *[width] * (layers - 1)]
    hidden = [m for a, b in pairwise(channels) for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*hidden, nn.AvgPool2d(size), nn.Flatten(), nn.Linear(width, 10))


class Steps:
    """One step of a rule at each call, by SGD without momentum, through the training loop; two are done at once.

    What a rule makes at its first step, such as projections, is then there and counts as state.
    """

    def __init__(self, name: str, options: Row, asked: Row, seed: int) -> None:
        torch.manual_seed(seed)
        self.network = chain(asked["layers"], asked["width"], asked["size"])
        inputs = torch.randn(asked["batch"], 3, asked["size"], asked["size"])
        self.batches = [(inputs, torch.arange(asked["batch"]) % 10)]
        self.settings = settled(
            Training(epochs=1, optimizer="sgd", momentum=0.0, lr=1e-3, rule={"name": name, "options": options})  # type: ignore[arg-type]
        )
        self.rule = rule_of(name, options)
        self.optimizer = optimizer_of(parameter_groups(self.network, self.settings), self.settings)
        self.callback = Callback()
        for _ in range(2):
            self()

    def __call__(self) -> None:
        fit(
            self.network, self.batches, plain(), self.optimizer, self.settings, callback=self.callback, rule=self.rule
        )  # fmt: skip

    @property
    def state_bytes(self) -> int:
        """Of what the rule remembers from step to step."""
        return _bytes(tree_leaves(self.callback.rule_state))

    @property
    def weight_bytes(self) -> int:
        """Of the network."""
        return _bytes(list(self.network.parameters()))


def _bytes(found: list[Any]) -> int:
    return sum(x.nbytes for x in found if isinstance(x, torch.Tensor))
