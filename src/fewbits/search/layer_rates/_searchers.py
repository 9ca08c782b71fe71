"""Searchers that learn nothing: what an agent has to beat, with the same evaluations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fewbits import assign
from fewbits.recipe.notation import min_kept_of
from fewbits.search.layer_rates._evaluator import Evaluator
from fewbits.search.layer_rates._space import Kept, RateSpace

Searcher = Callable[[Evaluator, int], None]
"""``searcher(evaluator, seed)`` asks until it has no further question, or ``Spent`` is raised."""

Curve = Callable[[float], Kept]
"""A family of choices with one setting."""

GRID = 21  # points of the first pass over a setting
STEPS = 22  # thresholds of the common scale: ALPHA is the largest, in standard deviations
ALPHA = 2.2
FLOORS = ("0%", "0.03%", "0.1%", "0.3%", "1%")  # of all weights, per layer; of Global MP


def scan(evaluator: Evaluator, curve: Curve, low: float, high: float, evaluations: int) -> float:
    """The best setting of a curve: a grid, and then finer grids about the best point so far.

    Args:
        evaluations: at most so many. It ends, too, when neighbouring points are the same choice.

    Returns:
        The best score.
    """
    top = -np.inf
    end = min(evaluator.budget, evaluator.used + evaluations)
    points = min(GRID, max(3, evaluations))
    while evaluator.used < end:
        before = evaluator.used
        grid = np.linspace(low, high, points)
        scores = []
        for value in grid:
            if evaluator.used >= end:
                return top
            scores.append(evaluator(curve(float(value))).score)
            top = max(top, scores[-1])
        best = int(np.argmax(scores))
        low, high = float(grid[max(0, best - 1)]), float(grid[min(points - 1, best + 1)])
        points = 9
        if evaluator.used == before:  # nothing new was left to ask
            break
    return top


def global_magnitude(evaluator: Evaluator, seed: int = 0) -> None:
    """Global MP: the sparsity is scanned for five floors with half of the budget, then for the best of them."""

    def scanned(min_kept: str, evaluations: int) -> float:
        make = partial(assign.global_magnitude, min_kept=min_kept)
        return scan(evaluator, _curve(evaluator.space, make), 0.0, _most(evaluator.space, min_kept), evaluations)

    share = evaluator.budget // 2 // len(FLOORS)
    scores = {min_kept: scanned(min_kept, share) for min_kept in FLOORS}
    scanned(max(scores, key=lambda min_kept: scores[min_kept]), evaluator.left)


def lamp(evaluator: Evaluator, seed: int = 0) -> None:
    """LAMP: the sparsity is scanned."""
    scan(evaluator, _curve(evaluator.space, assign.lamp), 0.0, _most(evaluator.space), evaluator.left)


def erk(evaluator: Evaluator, seed: int = 0) -> None:
    """ERK: the sparsity is scanned."""
    scan(evaluator, _curve(evaluator.space, assign.erk), 0.0, _most(evaluator.space), evaluator.left)


def uniform(evaluator: Evaluator, seed: int = 0) -> None:
    """The same sparsity in every layer, scanned."""
    scan(evaluator, _curve(evaluator.space, assign.uniform), 0.0, _most(evaluator.space), evaluator.left)


def random(evaluator: Evaluator, seed: int = 0) -> None:
    """A threshold for each layer, drawn from the actions of the agent."""
    generator = np.random.default_rng(seed)
    space = evaluator.space
    for _ in range(20 * evaluator.budget):  # a tiny network has fewer choices than that
        drawn = generator.integers(0, STEPS + 1, len(space))
        evaluator(tuple(space.above(i, ALPHA * a / STEPS) for i, a in enumerate(drawn.tolist())))


def greedy(evaluator: Evaluator, seed: int = 0) -> None:
    """A sensitivity scan: how far each layer alone can go, then all of them as far as one common loss allows.

    Half of the evaluations prune one layer at a time, at evenly spaced thresholds; the others scan the loss of
    accuracy that a layer alone may cause (linear between the thresholds, in points of accuracy).
    """
    space, dense = evaluator.space, evaluator.dense.accuracy
    levels = max(1, min(STEPS, evaluator.budget // 2 // len(space)))
    alphas = [ALPHA * (i + 1) / levels for i in range(levels)]
    losses = []
    for layer in range(len(space)):
        alone = [(*space.dense[:layer], space.above(layer, a), *space.dense[layer + 1 :]) for a in alphas]
        found = [dense - evaluator(kept).accuracy for kept in alone]
        losses.append(np.maximum.accumulate([0.0, *found]))
    worst = max(float(loss[-1]) for loss in losses)

    def curve(share: float) -> Kept:
        # Most of what matters lies at small losses: the scale is quadratic.
        allowed = worst * share**2
        reached = [_crossing([0.0, *alphas], loss, allowed) for loss in losses]
        return tuple(space.above(i, a) for i, a in enumerate(reached))

    scan(evaluator, curve, 0.0, 1.0, evaluator.left)


def _crossing(alphas: list[float], losses: np.ndarray, allowed: float) -> float:
    """The largest threshold at which a rising curve of losses, drawn as straight lines, does not exceed ``allowed``."""
    last = int(np.searchsorted(losses, allowed, side="right")) - 1
    if last < 0:
        return 0.0
    if last == len(alphas) - 1:
        return alphas[-1]
    way = (allowed - losses[last]) / (losses[last + 1] - losses[last])
    return float(alphas[last] + way * (alphas[last + 1] - alphas[last]))


def _curve(space: RateSpace, make: Callable[[float], assign.Assigner]) -> Curve:
    def at(sparsity: float) -> Kept:
        assigner = make(sparsity)
        plan, _ = assigner.update(space.weights, None, assigner.init(space.weights))
        return space.clipped([int(entry.kept.sum()) for entry in plan.compressed.values()])

    return at


def _most(space: RateSpace, min_kept: str = "0%") -> float:
    """The largest sparsity that a floor allows."""
    sigma = min_kept_of(min_kept, space.total)
    return sum(size - min(size, sigma) for size in space.sizes) / space.total


SIMPLE: dict[str, Searcher] = {
    "global-magnitude": global_magnitude,
    "lamp": lamp,
    "erk": erk,
    "uniform": uniform,
    "random": random,
    "greedy": greedy,
}
