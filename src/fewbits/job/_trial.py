"""One trial: a run of the one training loop under a setting, judged on validation data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewbits import files
from fewbits import recipe as recipes
from fewbits.errors import DataError, RecipeError
from fewbits.hardware import Cost, CostMaker, cost_of
from fewbits.job import Job
from fewbits.job.batches import one_sample, training_batches
from fewbits.job.folder import STATE, folder, forget
from fewbits.pipeline import compress
from fewbits.pipeline.methods import bits_of
from fewbits.recipe import Recipe
from fewbits.recipe.variation import changed
from fewbits.search.sweep.space import Params, SweepSpace
from fewbits.train import checkpoint

FILES = "trials"  # folder of the trials' files, in that of the sweep


def recipe_of(base: Recipe, space: SweepSpace, params: Params) -> Recipe:
    """The recipe of a setting.

    Raises:
        RecipeError: the setting makes no recipe.
    """
    values = base.model_dump(by_alias=True, exclude_unset=True)
    values.pop("sweep", None)
    return recipes.make(changed(values, space.changes(params)))


def _fresh(place: Path, recipe: Recipe) -> None:
    """Forget what another sweep's trial, which had this number in this folder, would go on from."""
    try:
        checkpoint.load(place / STATE, recipe.model_dump_json(), whole=False)
    except DataError:
        forget(place)


@dataclass(frozen=True, eq=False)
class Trials:
    """What all trials of a process share: the data and the float network, loaded once.

    Attributes:
        costs: makers of objectives beside accuracy, bytes and the costs that come along.
    """

    base: Recipe
    job: Job
    out: Path
    costs: Mapping[str, CostMaker] = field(default_factory=dict)

    @property
    def _objectives(self) -> tuple[str, ...]:
        assert self.base.sweep is not None
        return self.base.sweep.objectives

    @property
    def space(self) -> SweepSpace:
        """What the sweep chooses from."""
        assert self.base.sweep is not None
        return SweepSpace.of(self.base.sweep)

    def costed(self) -> dict[str, Cost]:
        """The objectives that are costs, bound to the network.

        Raises:
            RecipeError: an objective that nobody knows. UnsupportedError: one that this network does not allow.
        """
        names = [name for name in self._objectives if name not in ("accuracy", "bytes")]
        if not names:
            return {}
        sample = one_sample(self.job.dataset, self.job.feed)
        return {n: cost_of(n, self.job.network, sample, self.costs) for n in names}

    def run(self, point: int, params: Params) -> tuple[list[float], dict[str, Any]]:
        """Train, write and evaluate one setting; what an interrupted process left of it is gone on from.

        Raises:
            FewbitsError: the setting is impossible, or its training fails.

        Returns:
            The objectives in the sweep's order, and the row for the results.
        """
        recipe = recipe_of(self.base, self.space, params)
        assert recipe.data is not None
        if recipe.train.teacher != self.base.train.teacher:
            raise RecipeError("train.teacher cannot vary: one is loaded for all trials")
        job, begin = self.job, time.perf_counter()
        place = folder(folder(self.out / FILES) / f"{point:03}")
        _fresh(place, recipe)
        found = compress(
            job.network,
            training_batches(job.dataset, recipe.data, job.feed, seed=recipe.seed + 1),
            evaluate=job.evaluate("validation"),
            recipe=recipe,
            task=job.task,
            metric=job.task.scale.name,
            teacher=job.teacher if recipe.train.distill else None,
            state_file=place / STATE,
            keep_state=True,
        )
        file = f"{FILES}/{point:03}/{recipe.output}"
        files.write(self.out / file, found.data)
        costs = {name: cost(found.plan) for name, cost in self.costed().items()}
        forget(place)
        report = found.report
        better = report.accuracy_after or 0.0
        better = -better if report.metric == "loss" else better
        known = {"accuracy": float(better), "bytes": float(report.file_bytes), **costs}
        row = {
            **report.row(),
            "split": "validation",
            "bits": bits_of(recipe),
            "epochs": recipe.train.epochs,
            "seconds": time.perf_counter() - begin,
            **costs,
            "file": file,
        }
        return [known[name] for name in self._objectives], row
