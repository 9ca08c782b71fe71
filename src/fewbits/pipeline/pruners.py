"""The pruner that a recipe names, at every moment of the training: one row per method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewbits import assign
from fewbits.assign.magnitude import feather_theta
from fewbits.errors import RecipeError, SelectionError, did_you_mean
from fewbits.pipeline.methods import method_of
from fewbits.private import Diagonals, diagonals_of
from fewbits.recipe import Recipe
from fewbits.recipe.pruning import Packing, Prune

PrunerAt = Callable[[float], assign.Assigner]
"""The pruner at a share of the training, 0 to 1."""


@dataclass(frozen=True)
class Pruner:
    """A row: an assigner that gives masks, and what it needs.

    Attributes:
        make: ``make(part, share, seed=..., of=..., regrow=..., straight_through=...)``: the recipe's section, the share
            of its sparsity that is reached by now (0 to 1), and what pruners take.
        amount: the key that says how much goes: ``sparsity``, ``rates`` or ``pattern``.
        min_kept: whether it keeps a minimum per layer. scores: whether it reads scores (the recipe's ``measure``).
        measure: the only ``measure.name`` it goes with; ``None``: any, if it reads scores.
        shrinks: whether it changes survivors, which clusters then cannot hold.
        rises: whether its sparsity may rise by a schedule.
        packed: whether it prunes diagonals of a packing, which :func:`diagonals_for` finds.
    """

    make: Callable[..., assign.Assigner]
    amount: str = "sparsity"
    min_kept: bool = False
    scores: bool = False
    measure: str | None = None
    shrinks: bool = False
    rises: bool = True
    packed: bool = False


def _sparse(make: Callable[..., assign.Assigner], *more: str) -> Callable[..., assign.Assigner]:
    """A pruner to a sparsity that takes further keys of the section by their names."""

    def at(part: Prune, share: float, *, seed: int, **common: Any) -> assign.Assigner:
        assert part.sparsity is not None  # the check sees to that
        return make(part.sparsity * share, **{name: getattr(part, name) for name in more}, **common)

    return at


def _random(part: Prune, share: float, *, seed: int, **common: Any) -> assign.Assigner:
    assert part.sparsity is not None
    return assign.random_pruning(part.sparsity * share, seed=seed, **common)


def _feather(part: Prune, share: float, *, of: int | None, **_: Any) -> assign.Assigner:
    assert part.sparsity is not None
    return assign.feather(part.sparsity * share, part.min_kept, of=of, theta=feather_theta(part.sparsity))


def _layers(part: Prune, share: float, *, of: int | None, seed: int, **common: Any) -> assign.Assigner:
    assert part.rates is not None
    return assign.layerwise(part.rates, share=share, **common)


def _pattern(part: Prune, share: float, *, of: int | None, seed: int, **common: Any) -> assign.Assigner:
    assert part.pattern is not None
    return assign.n_of_m(part.pattern, **common)


def _diagonals(
    part: Prune, share: float, *, of: int | None, seed: int, diagonals: Diagonals, **common: Any
) -> assign.Assigner:
    assert part.sparsity is not None

    def groups(name: str, weight: Tensor) -> Tensor:
        return diagonals.groups.get(name, torch.zeros(weight.shape, dtype=torch.int64))  # one group, which stays

    return assign.grouped(part.sparsity * share, groups, lines=diagonals.lines, **common)


PRUNERS: dict[str, Pruner] = {
    "global-magnitude": Pruner(_sparse(assign.global_magnitude, "min_kept"), min_kept=True),
    "lamp": Pruner(_sparse(assign.lamp)),
    "erk": Pruner(_sparse(assign.erk)),
    "uniform": Pruner(_sparse(assign.uniform)),
    "feather": Pruner(_feather, min_kept=True, shrinks=True),
    "random": Pruner(_random),
    "layers": Pruner(_layers, amount="rates"),
    "scores": Pruner(_sparse(assign.scored), scores=True),
    "wanda": Pruner(_sparse(assign.wanda), scores=True, measure="inputs"),
    "n:m": Pruner(_pattern, amount="pattern", rises=False),
    "diagonals": Pruner(_diagonals, packed=True),
}
"""By the name that a recipe gives in ``prune.method``. A row more is a criterion more."""


def pruner_row(part: Prune) -> Pruner:
    """The row of a recipe's section.

    Raises:
        RecipeError: no such method.
    """
    if part.method not in PRUNERS:
        hint = did_you_mean(part.method, PRUNERS)
        raise RecipeError(f"prune.method: no {part.method!r}{hint} (there are {', '.join(PRUNERS)})")
    return PRUNERS[part.method]


def diagonals_for(recipe: Recipe, model: nn.Module, weights: Iterable[str], shape: tuple[int, ...]) -> Diagonals:
    """The diagonals of the selected weights.

    Args:
        weights: names of those that are selected. shape: of a sample.

    Raises:
        UnsupportedError: the network cannot be computed on encrypted inputs. SelectionError: no selected weight has
            diagonals.
    """
    assert recipe.prune is not None
    packing = recipe.prune.packing or Packing()
    found = diagonals_of(model, shape, degree=packing.degree, profile=packing.profile)
    names = [name for name in weights if name in found.groups]
    if not names:
        raise SelectionError(
            f"prune: no selected weight has diagonals; {', '.join(found.groups)} would, so select one of them"
        )
    return Diagonals({name: found.groups[name] for name in names}, {name: found.lines[name] for name in names})


def check_last(pruner_at: PrunerAt, weights: Mapping[str, Tensor], scores: Mapping[str, Tensor] | None) -> None:
    """Refuse now what only the final sparsity does not allow, such as a larger ``min_kept``, and not half-way."""
    last = pruner_at(1.0)
    last.update(weights, scores, last.init(weights))


def pruner_of(recipe: Recipe, parameters: int, diagonals: Diagonals | None = None) -> PrunerAt | None:
    """``None`` if the recipe does not prune.

    Args:
        parameters: of the whole network, for a sparsity that is a share of them.
        diagonals: from :func:`diagonals_for`, for a row that prunes them.
    """
    part = recipe.prune
    if part is None:
        return None
    row, rising = pruner_row(part), assign.rising(part.schedule, part.begin, part.end)
    common: dict[str, Any] = {"regrow": part.regrow, "of": parameters if part.over == "parameters" else None}
    if method_of(recipe).survivors:  # floats need a gradient to come back; background weights of clusters have theirs
        common["straight_through"] = float(part.regrow)
    if row.packed:
        common["diagonals"] = diagonals or Diagonals()
    return lambda share: row.make(part, rising(share), seed=recipe.seed, **common)
