"""The tasks of an experiment: which classes of which set of pictures each has."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pictures import pictures
from benchmarks.unit import Row
from fewbits import multitask as mt
from fewbits.data import DataSet, load
from fewbits.data.dataset import SPLITS

RELEASED = Path(__file__).parent / "part_splits.json"


def tasks_of(options: Row, folder: Path | None, seed: int) -> dict[str, DataSet]:
    """A data set for each task.

    Args:
        options: ``data``: ``cifar100`` or ``cifar10+100``, whose splits PaRT released, one for each seed; a list of
            sets, each of which is a task as a whole; or another set, whose classes are drawn by twos. ``samples``: of
            each task, in training; ``tested``: in each other split, at most. Default: all.
    """
    tested = options.get("tested")
    make = partial(_task, most={"train": options.get("samples"), "validation": tested, "test": tested}, seed=seed)
    data = options["data"]
    if isinstance(data, list):
        whole = [pictures(name, folder) for name in data]
        return {Path(each.name).name: make(each, mt.ClassMap(range(len(each.classes)))) for each in whole}
    read = cache(lambda name: load(name, folder))
    return {f"task{n}": make(read(name), own) for n, (name, own) in enumerate(_classes(data, read, seed))}


def some_classes(name: str, labels: Sequence[int]) -> DataSet:
    """A data set's samples of these classes alone, by their old numbers."""
    whole, own = load(name), torch.tensor(labels)
    parts = {which: whole.split(which) for which in SPLITS}
    return replace(whole, **{k: p.subset(torch.isin(p.targets, own).nonzero().flatten()) for k, p in parts.items()})


def _classes(data: str, read: Callable[[str], DataSet], seed: int) -> Sequence[tuple[str, mt.ClassMap]]:
    released: Any = json.loads(RELEASED.read_text())["settings"]
    if data in released:
        chosen = released[data]["splits"][seed % 5]["tasks"]
        return [(task["data"], mt.ClassMap(task["labels"])) for task in chosen]
    order = np.random.RandomState(seed).permutation(len(read(data).classes)).tolist()
    return [(data, mt.ClassMap(order[i : i + 2])) for i in range(0, len(order) - 1, 2)]


def _task(whole: DataSet, own: mt.ClassMap, most: dict[str, int | None], seed: int) -> DataSet:
    parts = {}
    for name in SPLITS:
        part = whole.split(name)
        part = part.subset(own.has(part.targets).nonzero().flatten())
        if most[name] is not None:
            part = part.subset(torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[: most[name]])
        parts[name] = replace(part, targets=own(part.targets))
    return replace(whole, classes=tuple(whole.classes[label] for label in own.labels), **parts)
