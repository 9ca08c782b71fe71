"""Which segments each task goes through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import RecipeError
from fewbits.multitask._names import checked


class Paths(Mapping[str, Tensor]):
    """The path of each task: ``[layers, modules]``, true where it goes through a segment.

    Args:
        paths: by task, anything that makes a matrix of truth values; all of one shape.

    Raises:
        RecipeError: matrices of different shapes, or a layer in which a task has no segment.
    """

    def __init__(self, paths: Mapping[str, Any]) -> None:
        names = checked(paths)
        self._paths = {name: torch.as_tensor(np.asarray(paths[name], dtype=bool)) for name in names}
        shapes = {tuple(path.shape) for path in self._paths.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 2:
            raise RecipeError(f"paths are matrices [layers, modules] of one shape, got {sorted(shapes)}")
        for name, path in self._paths.items():
            empty = [layer for layer, row in enumerate(path) if not row.any()]
            if empty:
                raise RecipeError(f"task {name!r} has no segment in layer {empty[0]}; each layer needs one at least")

    def __getitem__(self, task: str) -> Tensor:
        return self._paths[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def layers(self) -> int:
        return next(iter(self._paths.values())).shape[0]

    @property
    def modules(self) -> int:
        """How many segments a layer has room for."""
        return next(iter(self._paths.values())).shape[1]

    def users(self) -> dict[tuple[int, int], list[str]]:
        """``{(layer, module): tasks}`` of every segment that a task goes through, layer by layer."""
        places = [(layer, module) for layer in range(self.layers) for module in range(self.modules)]
        found = {place: [name for name, path in self._paths.items() if path[place]] for place in places}
        return {place: names for place, names in found.items() if names}


@dataclass(frozen=True)
class Released:
    """A configuration of PaRT's released code: so many tasks, layers, segments in a layer, and in a path's layer."""

    tasks: int
    layers: int
    modules: int
    per_layer: int


RELEASED = {
    "cifar100": Released(10, 9, 12, 4),
    "cifar10+100": Released(10, 9, 15, 4),
    "5tasks": Released(5, 5, 8, 2),
}
"""The three configurations (arXiv 2201.09534; scripts/*.json of commit 589bf4a)."""

RELEASED_SEEDS = (456, 23743, 96253, 36, 2543)


def random_paths(tasks: Iterable[str], layers: int, modules: int, per_layer: int, seed: int) -> Paths:
    """Segments drawn uniformly, for each task and layer apart, as PaRT does.

    Draws are those of the released code (NumPy's generator of 2011, rejecting what is there already), so that its seeds
    give its paths. Tasks are drawn in order: more tasks do not change the paths of those before.

    Raises:
        RecipeError: more segments in a path's layer than there are, or none.
    """
    if not 1 <= per_layer <= modules:
        raise RecipeError(f"a path has 1 to {modules} segments in a layer of {modules}, got {per_layer}")
    draw = np.random.RandomState(seed)
    found = {}
    for name in checked(tasks):
        path = np.zeros((layers, modules), bool)
        for row in path:
            while row.sum() < per_layer:
                row[int(draw.random_sample() * modules)] = True
        found[name] = path
    return Paths(found)


def released_paths(configuration: str, seed: int, tasks: Sequence[str] | None = None) -> Paths:
    """The paths of PaRT's released code.

    Args:
        configuration: one of ``RELEASED``. seed: one of ``RELEASED_SEEDS``, or any other.
        tasks: their names, in order; default: ``task0``, ``task1``, ...

    Raises:
        RecipeError: an unknown configuration, or another number of tasks than it has.
    """
    if configuration not in RELEASED:
        raise RecipeError(f"no configuration {configuration!r} ({', '.join(RELEASED)})")
    known = RELEASED[configuration]
    names = [f"task{number}" for number in range(known.tasks)] if tasks is None else list(tasks)
    if len(names) != known.tasks:
        raise RecipeError(f"configuration {configuration} has {known.tasks} tasks, got {len(names)} names")
    return random_paths(names, known.layers, known.modules, known.per_layer, seed)


def branched_paths(tasks: Iterable[str], layers: int, shared: Iterable[int] = (), *, per_layer: int = 1) -> Paths:
    """The same segments for all tasks in ``shared`` layers, and as many for each task alone elsewhere.

    No shared layer is a network for each task: a small one, or a path-sized one with ``per_layer`` of paths. All layers
    are one trunk with a head for each task. The first are private tops, and the last are private bottoms.

    Args:
        per_layer: segments of a task in each layer.

    Raises:
        RecipeError: a layer that is not there, or no segment in a layer.
    """
    names, common = checked(tasks), set(shared)
    if not common <= set(range(layers)):
        raise RecipeError(f"layers go from 0 to {layers - 1}, got shared={sorted(common)}")
    if per_layer < 1:
        raise RecipeError(f"a path has 1 segment in a layer at least, got {per_layer}")
    found = {name: np.zeros((layers, len(names) * per_layer), bool) for name in names}
    for number, name in enumerate(names):
        for layer in range(layers):
            begin = 0 if layer in common else number * per_layer
            found[name][layer, begin : begin + per_layer] = True
    return Paths(found)
