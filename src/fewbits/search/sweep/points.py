"""Which settings a sweep tries: a list that depends on the seed and, for ``tpe``, on finished trials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from fewbits.recipe.variation import Sweep
from fewbits.search.sweep.space import Params, SweepSpace

Seen = tuple[Params, Sequence[float] | None]
"""A setting, and its objectives; ``None`` where it failed."""

_PATIENCE = 200  # drawn settings in a row that were there already, before the space counts as exhausted


def spread(space: SweepSpace, sweep: Sweep) -> Iterator[Params]:
    """Settings for ever: scrambled Sobol points, or random ones."""
    keys = len(space.over)
    if sweep.sampler == "random":
        generator = torch.Generator().manual_seed(sweep.seed)
        while True:
            yield space.at(torch.rand(keys, generator=generator, dtype=torch.float64).tolist())
    engine = torch.quasirandom.SobolEngine(keys, scramble=True, seed=sweep.seed)
    while True:
        yield space.at(engine.draw(1, dtype=torch.float64)[0].clamp(0, 1 - 1e-9).tolist())


def planned(space: SweepSpace, sweep: Sweep, seen: Sequence[Seen]) -> list[Params]:
    """The first settings of a sweep, none of them twice, at most ``sweep.trials``.

    Args:
        seen: all finished trials, in the order of the list. For ``tpe``, the list goes on by one batch when all of
            it are seen; the other samplers need to see nothing.
    """
    wanted = sweep.trials
    if sweep.sampler != "tpe":
        return different(spread(space, sweep), wanted)
    batch = sweep.batch
    listed = different(spread(space, sweep), min(batch, wanted))
    if len(listed) < min(batch, wanted):
        return listed
    for begin in range(batch, wanted, batch):
        if len(seen) < begin:
            break
        listed = different(_suggested(space, sweep, seen[:begin]), min(begin + batch, wanted), listed)
    return listed


def different(drawn: Iterator[Params], count: int, start: Sequence[Params] = ()) -> list[Params]:
    """``count`` different settings, or as many as there seem to be; ``start`` are the first of them."""
    found, known, again = list(start), {key(p) for p in start}, 0
    while len(found) < count and again < _PATIENCE:
        params = next(drawn)
        if key(params) in known:
            again += 1
            continue
        again = 0
        known.add(key(params))
        found.append(params)
    return found


def key(params: Params) -> str:
    """The same for equal settings only."""
    return json.dumps(params, sort_keys=True)


def _suggested(space: SweepSpace, sweep: Sweep, seen: Sequence[Seen]) -> Iterator[Params]:
    """Settings that Optuna's tree-structured Parzen estimator expects to improve the front."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=(sweep.seed + 1) * 1_000_003 + len(seen), n_startup_trials=0, multivariate=True, constant_liar=True
        )
    study = optuna.create_study(directions=directions(sweep), sampler=sampler)
    distributions = space.distributions()
    for params, values in seen:
        if values is not None:
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, values=list(values)))
    if not study.trials:
        yield from spread(space, sweep)
    while True:
        yield study.ask(fixed_distributions=distributions).params


def directions(sweep: Sweep) -> list[Literal["maximize", "minimize"]]:
    """Optuna's words for which way each objective is better."""
    return ["maximize" if name == "accuracy" else "minimize" for name in sweep.objectives]
