"""Networks drawn at random, by every method: each works with outputs as promised, or is refused in a sentence."""

from __future__ import annotations

import copy
import re
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import fewbits as fb
from benchmarks.random_graphs import Graph, draw
from benchmarks.unit import Place, Row, Unit
from fewbits import codec
from fewbits.attach import merge_statistics
from fewbits.channels import dependencies, prune_channels, zero_channels
from fewbits.errors import BudgetError, DataError, FewbitsError, UnsupportedError
from fewbits.graph import biased
from fewbits.int8 import folded
from fewbits.pipeline.restore import restore
from fewbits.task import Inputs, Task, main_output

TRAIN: Row = {"epochs": 1, "lr": 1e-3}
COMMON: Row = {"train": TRAIN, "rounds": 1, "coding": "fast"}
RECIPES: dict[str, Row] = {
    "ecq": COMMON | {"assign": {"method": "ecq", "bits": 4, "lam": 0.05}},
    "pruning": COMMON | {"assign": {"method": "none"}, "prune": {"sparsity": 0.5}},
    "channels": COMMON | {"assign": {"method": "none"}, "train": None},
    "int8": COMMON | {"assign": {"method": "int8"}, "train": TRAIN, "activations": {"calibrate": 1}},
    "ecqx": COMMON | {"assign": {"method": "ecqx", "bits": 4, "lam": 0.05}, "measure": {"batches": 1}},
}
OVER = ("channels", "parameters", "channels", "macs", "parameters", "channels", "parameters", "channels")
CRITERIA = ("taylor", "magnitude", "l1", "random")
EACH = 50  # graphs in a row
SECONDS = 60  # for one; more is a hang
ROUNDING = 1e-8  # of float64, relative to the largest output: sums in another order, through some 25 operations
WARNINGS = 3  # of different texts; more is a flood
LETTERS = 500  # of a sentence, names of one's own included


class BrokenPromiseError(Exception):
    """A promise that was not kept."""


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for fifty seeds by one method: how many work, why others are refused, and what is broken."""
    torch.set_num_threads(1)
    method, first = unit.labels["method"], EACH * unit.seed
    start = time.monotonic()
    found = [(seed, *outcome(draw(seed), method)) for seed in range(first, first + EACH)]
    counts = Counter(word for _, word, _ in found)
    row = unit.labels | {"graphs": EACH} | {word: counts[word] for word in ("works", "refused", "broken")}
    reasons = Counter(kind_of(told) for _, word, told in found if word == "refused")
    row["reasons"] = dict(reasons.most_common())
    row["failures"] = {str(seed): told for seed, word, told in found if word == "broken"}
    return [row | {"seconds": round(time.monotonic() - start, 1)}]


def outcome(graph: Graph, method: str) -> tuple[str, str]:
    """``works``, ``refused`` or ``broken``, and what was told."""
    try:
        with warnings.catch_warnings(record=True) as caught, within(SECONDS):
            warnings.simplefilter("always")
            told = CHECKS[method](graph)
    except FewbitsError as error:
        told = str(error)
        fault = "is no sentence: " if "\n" in told or len(told) > LETTERS or not told.strip() else ""
        if isinstance(error, DataError):  # the network takes its data by itself
            fault = "blames the data: "
        word = f"{type(error).__name__}: {told}"
        return ("broken", fault + word) if fault else ("refused", word)
    except Exception as error:  # what no user should see
        return "broken", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    texts = {str(warning.message) for warning in caught if warning.category is not DeprecationWarning}
    if len(texts) > WARNINGS:
        return "broken", f"{len(texts)} warnings: {' | '.join(sorted(texts))[:300]}"
    return ("refused", told) if told else ("works", "")


def kind_of(told: str) -> str:
    """A refusal without the names and numbers of one network."""
    return re.sub(r"_?\d+", "", told)[:160]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError where a block takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"takes more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def task() -> Task:
    """Classification; of several outputs the first is meant."""
    return Task(loss=lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets), outputs=main_output)


def compressed(graph: Graph, method: str) -> None:
    """From the call to the file, and from the file to the network, which computes what its tensors say.

    The second way: a network of the class that is given the decoded values by hand.
    """
    model = graph.build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [graph.batch(0), graph.batch(1)]
    recipe = RECIPES[method] | ({"channels": channels_of(graph.seed)} if method == "channels" else {})
    small = fb.compress(model, batches, task=task(), recipe=recipe, progress=None)
    if any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()):
        raise BrokenPromiseError("the network given was changed")
    if not small.report.identical:
        raise BrokenPromiseError("the decoded network's outputs differ")
    inputs = graph.batch(2)[0]
    loaded, plan = restore(small.data, graph.build(seed=graph.seed + 1))
    decoded = codec.decode(small.data, codec.shapes(small.data))
    if set(decoded) != set(plan) or any(not torch.equal(decoded[n].values(), small.plan[n].values()) for n in decoded):
        raise BrokenPromiseError("decoded tensors differ from the plan's")
    outputs = outputs_of(loaded, inputs)
    if not bool(torch.isfinite(outputs).all()):
        raise BrokenPromiseError("outputs are NaN or infinite")
    if not torch.equal(outputs, outputs_of(small.into(graph.build(seed=graph.seed + 2)), inputs)):
        raise BrokenPromiseError("the loaded network computes something else than the compressed one")
    if method in ("ecq", "ecqx", "pruning"):
        by_hand = graph.build(seed=graph.seed + 3)
        with torch.no_grad():
            for name, tensor in by_hand.state_dict().items():
                if (held := decoded.named(name)) is not None:
                    tensor.copy_(held.values())
        if not torch.equal(outputs, outputs_of(by_hand, inputs)):
            raise BrokenPromiseError("the loaded network computes something else than its tensors say")


def channels_of(seed: int) -> Row:
    """What channels are counted and chosen by: another way from seed to seed."""
    over, measured = OVER[seed % len(OVER)], seed % 3 == 0
    return {over: 0.95, "criterion": CRITERIA[seed // 4 % len(CRITERIA)], "measured": measured, "train": TRAIN}


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Any) -> Tensor:
    """Logits, in evaluation mode. Some networks change their inputs in place."""
    model.eval()
    inputs = copy.deepcopy(inputs)
    return main_output(model(**inputs) if isinstance(inputs, dict) else model(inputs))


def differ(found: Tensor, wanted: Tensor) -> float:
    """Relative to the largest output."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))


def in_double(graph: Graph) -> tuple[nn.Module, Any]:
    """The network, and a batch of inputs, in float64."""
    inputs = graph.batch(3)[0]
    whole = {name: t.double() if t.is_floating_point() else t for name, t in inputs.items()} if isinstance(
        inputs, dict
    ) else inputs.double() if inputs.is_floating_point() else inputs  # fmt: skip
    return graph.build().double().eval(), whole


def clusters(graph: Graph) -> None:
    """By a recipe that leaves shapes alone; normalisations are merged, which computes the same."""
    model, inputs = in_double(graph)
    wanted, merged = outputs_of(model, inputs), copy.deepcopy(model)
    merge_statistics(merged, biased(merged, lambda net: outputs_of(net, inputs)))
    if not (off := differ(outputs_of(merged, inputs), wanted)) < ROUNDING:
        raise BrokenPromiseError(f"merged statistics change the outputs by {off:.2g}")
    compressed(graph, "ecq")


def narrowed(graph: Graph) -> str:
    """Channels: half of the removable ones go at random, and the network computes what it does with zeros instead."""
    model, inputs = in_double(graph)
    one = graph.batch(0, samples=1)[0]
    shape: Any = tuple(one.shape[1:]) if isinstance(one, Tensor) and one.is_floating_point() else one
    if isinstance(one, dict):
        shape = Inputs((), {name: t.double() if t.is_floating_point() else t for name, t in one.items()})
    found = dependencies(model, shape)
    for share in (0.3, 0.7):
        channels = removal(found, share, graph.seed)
        small, zeroed = copy.deepcopy(model), copy.deepcopy(model)
        zero_channels(zeroed, channels)
        prune_channels(small, channels)
        if not (off := differ(outputs_of(small, inputs), outputs_of(zeroed, inputs))) < ROUNDING:
            raise BrokenPromiseError(f"without channels the outputs change by {off:.2g}")
    try:
        compressed(graph, "channels")
    except BudgetError as error:  # what can go is less than was asked for
        return f"BudgetError: {error}"
    except UnsupportedError as error:
        if "once channels are removed" in str(error) or "relies on sizes" in str(error):
            raise BrokenPromiseError(f"found late: {error}") from error
        raise
    return ""


def removal(found: Any, share: float, seed: int) -> Any:
    """A random removal that leaves every layer a channel."""
    order = torch.randperm(found.count, generator=torch.Generator().manual_seed(seed)).tolist()
    removed: list[int] = []
    for unit in order[: round(share * found.count)]:
        kept = found.without([*removed, unit]).kept
        if all(bool(masks[0].any()) for name, masks in kept.items() if name in found.outputs and masks[0] is not None):
            removed.append(unit)
    return found.without(removed)


def integers(graph: Graph) -> None:
    """INT8: normalisations are folded, which computes the same."""
    compressed(graph, "int8")  # refuses what cannot be read
    model, inputs = in_double(graph)
    net, _ = folded(model)
    if not (off := differ(outputs_of(net, inputs), outputs_of(model, inputs))) < ROUNDING:
        raise BrokenPromiseError(f"folding changes the outputs by {off:.2g}")


CHECKS: dict[str, Callable[[Graph], str | None]] = {
    "ecq": clusters,
    "pruning": lambda graph: compressed(graph, "pruning"),
    "channels": narrowed,
    "int8": integers,
    "ecqx": lambda graph: compressed(graph, "ecqx"),
}
