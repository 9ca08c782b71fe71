"""Paths by search: some are tried, at random or by evolution, and the best is taken."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fewbits.errors import NonFiniteError, RecipeError, did_you_mean
from fewbits.multitask._names import checked
from fewbits.multitask._paths import Paths, random_paths

SEARCHES = ("random", "evolution")


@dataclass(frozen=True)
class PathSearch:
    """What a search of paths found.

    Attributes:
        best: the paths of the highest score; of equal ones the first. scores: of all that were tried, in order.
        tried: the paths themselves.
    """

    best: Paths
    scores: tuple[float, ...]
    tried: tuple[Paths, ...]


def search_paths(
    score: Callable[[Paths], float],
    tasks: Iterable[str],
    layers: int,
    modules: int,
    per_layer: int,
    *,
    tries: int,
    seed: int,
    how: str = "evolution",
    population: int = 4,
    sample: int = 2,
) -> PathSearch:
    """The best of some paths, by a score such as the accuracy on validation data after a short training.

    ``random`` draws every one anew, as :func:`random_paths`. ``evolution`` draws a population so. Then it changes the
    best of a sample of those that are alive, and the oldest one dies (regularised evolution, Real et al., arXiv
    1802.01548, algorithm 1). A change moves one task in one layer from a segment to another.

    Args:
        score: more is better. tasks, layers, modules, per_layer: as of :func:`random_paths`.
        tries: how many paths are scored. how: ``random`` or ``evolution``. population, sample: of evolution.

    Raises:
        RecipeError: an unknown way, no tries, or a sample that is larger than the population. NonFiniteError: a score
            is NaN.
    """
    if how not in SEARCHES:
        raise RecipeError(f"how is one of {', '.join(SEARCHES)}, got {how!r}{did_you_mean(how, SEARCHES)}")
    if tries < 1 or not 1 <= sample <= population:
        raise RecipeError(
            f"a search has 1 try at least, and a sample of 1 to population={population}, got tries={tries} and "
            f"sample={sample}"
        )
    names, draw = checked(tasks), np.random.default_rng(seed)
    alive: deque[int] = deque()
    tried: list[Paths] = []
    scores: list[float] = []
    for number in range(tries):
        if how == "random" or number < population:
            paths = random_paths(names, layers, modules, per_layer, seed=int(draw.integers(2**31)))
        else:
            drawn = draw.choice(len(alive), sample, replace=False)
            paths = changed(tried[max((alive[i] for i in drawn), key=scores.__getitem__)], draw)
            alive.popleft()
        tried.append(paths)
        scores.append(float(score(paths)))
        if math.isnan(scores[-1]):
            raise NonFiniteError(f"the score of paths is NaN at try {number + 1}: have it give a number")
        alive.append(number)
    best = int(np.argmax(scores))
    return PathSearch(tried[best], tuple(scores), tuple(tried))


def changed(paths: Paths, draw: np.random.Generator) -> Paths:
    """The paths with one task moved from a segment to another in one layer; the same where it has all segments."""
    found = {name: path.clone() for name, path in paths.items()}
    row = found[list(found)[draw.integers(len(found))]][int(draw.integers(paths.layers))]
    on, off = row.nonzero().flatten(), (~row).nonzero().flatten()
    if len(off):
        row[on[int(draw.integers(len(on)))]] = False
        row[off[int(draw.integers(len(off)))]] = True
    return Paths(found)
