"""A whole sweep: the float network once, workers, and the table of what came out."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.errors import DataError, RecipeError
from fewbits.hardware import CostMaker, maker_of
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs
from fewbits.job._sweep_worker import Assignment, main
from fewbits.job._trial import Trials, recipe_of
from fewbits.pipeline import Progress, check
from fewbits.pipeline.parts import assigners
from fewbits.recipe import Recipe
from fewbits.search.sweep import points, storage
from fewbits.search.sweep.front import front
from fewbits.search.sweep.queue import Queue
from fewbits.search.sweep.space import SweepSpace
from fewbits.search.sweep.worker import IDLE, words, work
from fewbits.train.checkpoint import digest_of

NAME = "sweep"


@dataclass(frozen=True, eq=False)
class Swept:
    """What a sweep found.

    Attributes:
        rows: one flat dictionary per finished trial, in the order of the settings: figures (accuracy on validation
            data), the setting by dotted key, and ``front``: whether no other trial beats it.
        failed: setting and reason of those that could not be run.
        objectives: what the front is about.
    """

    rows: tuple[dict[str, Any], ...]
    failed: tuple[tuple[dict[str, Any], str], ...]
    objectives: tuple[str, ...]

    @property
    def front(self) -> tuple[dict[str, Any], ...]:
        """The rows that no other beats, smallest file first."""
        return tuple(sorted((row for row in self.rows if row["front"]), key=lambda row: row["bytes"]))


def sweep(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,
    threads: int = 0,
    address: str | None = None,
    name: str = NAME,
    costs: Mapping[str, CostMaker] | None = None,
    test: bool = False,
    say: jobs.Say = lambda line: None,
    progress: Progress | None = None,
    training: Progress | None = None,
) -> Swept:
    """Try the settings of the recipe's ``sweep`` section, and find the front.

    The same call goes on where one was stopped.
    Every trial starts from the same float network and is judged on validation data. Processes of several calls, also on
    several machines, share the trials of one storage.

    Args:
        out: folder of the float network and the trials' files; made if need be.
        workers: processes on this machine. threads: of each; 0 shares the cores among them.
        address: of the storage, see :func:`fewbits.search.sweep.storage.opened`. name: of the sweep in it.
        costs: makers of objectives by name, beside those that come along. With several workers, importable functions.
        test: evaluate the front's files on test data in the end.
        progress: called with finished trials; training: called while the float network is trained.

    Raises:
        RecipeError: no sweep section, an unknown key or objective, or no setting that makes a recipe.
        DataError: a storage that cannot be used, or that holds another sweep of this name; all workers died.
        MissingExtraError: Optuna is not installed.
    """
    storage.optuna()
    if recipe.sweep is None:
        raise RecipeError("the recipe has no sweep section: add 'sweep: {over: {assign.bits: [2, 3, 4]}}', or --sweep")
    _possible(recipe, costs or {})
    outputs.ready(recipe, out)
    outputs.folder(out)
    floats = out / outputs.FLOAT
    there = floats if floats.exists() else None
    job = jobs.prepare(recipe, say=say, progress=training, trained=there, state_file=out / outputs.TRAINING)
    if test and job.final_split != "test":
        say(f"{job.dataset.name} has no test part, so there are no figures of it")
        test = False
    if there is None:
        outputs.save_float(job.network, floats, job.dataset.normalisation, **job.words)
    job.safe()
    trials = Trials(recipe, job, out, costs or {})
    trials.costed()
    assignment = Assignment(
        recipe.model_dump_json(by_alias=True, exclude_unset=True), out, address, name,
        identity(recipe, job.network), threads, costs or {},
    )  # fmt: skip
    queue = assignment.queue()
    known = queue.finished()
    if known:
        say(f"going on with a sweep of which {words(known)}")
    if workers == 1:
        if threads:
            torch.set_num_threads(threads)
        work(queue, trials, progress=progress)
    else:
        each = threads or max(1, torch.get_num_threads() // workers)
        _together(queue, assignment, workers, each, progress, say)
    return _collected(queue, trials, test)


def identity(recipe: Recipe, network: nn.Module) -> dict[str, str]:
    """What every process of a sweep must agree on: the recipe (but for where things lie, and how many trials), and the
    float network.
    """
    values = recipe.model_dump(mode="json", by_alias=True)
    values["output"] = None
    values["sweep"].pop("trials")
    if values["data"] is not None:
        values["data"].pop("folder")
    if values["network"] is not None:
        values["network"].pop("weights")
    return {"recipe": json.dumps(values, sort_keys=True), "float network": digest_of(network.state_dict())}


def _possible(base: Recipe, costs: Mapping[str, CostMaker]) -> None:
    """Refuse, before anything is trained, what would fail in every trial: keys that no recipe has, options that no
    assigner takes, objectives that nobody knows.
    """
    assert base.sweep is not None
    for name in base.sweep.objectives:
        if name not in ("accuracy", "bytes"):
            maker_of(name, costs)
    space, problems = SweepSpace.of(base.sweep), []
    any_network = nn.Linear(1, 1)
    first = points.different(points.spread(space, base.sweep), min(10, base.sweep.trials))
    for params in first:
        try:
            made = recipe_of(base, space, params)
            check(made)
            assigners(made, any_network)
        except RecipeError as error:
            problems.append(error)
    if len(problems) == len(first):
        raise RecipeError(f"sweep.over: {problems[0]}")


def _together(
    queue: Queue, assignment: Assignment, workers: int, threads: int, progress: Progress | None, say: jobs.Say
) -> None:
    """Run worker processes until everything is settled, and look after them."""
    context = multiprocessing.get_context("spawn")
    team = [
        context.Process(target=main, args=(replace(assignment, threads=threads),), daemon=True) for _ in range(workers)
    ]
    shown = -1
    try:
        for process in team:
            process.start()
        while True:
            queue.reclaim()
            over = queue.plan()
            done = queue.finished()
            if progress is not None and len(done) != shown:
                shown = len(done)
                progress(shown, queue.total, words(done))
            if over:
                break
            if not any(process.is_alive() for process in team):
                codes = ", ".join(str(process.exitcode) for process in team)
                raise DataError(
                    f"all workers ended (exit codes {codes}) with {words(done)}; the same command goes on from there"
                )
            time.sleep(IDLE)
        for process in team:
            process.join()
    finally:
        for process in team:
            if process.is_alive():
                process.terminate()
        for process in team:
            if process.pid is not None:
                process.join()
        queue.reclaim()


def _collected(queue: Queue, trials: Trials, test: bool) -> Swept:
    finished = queue.finished()
    rows, failed = [], []
    for point in sorted(finished):
        trial = finished[point]
        params = json.loads(trial.user_attrs["params"])
        if trial.values is None:
            failed.append((params, trial.user_attrs.get("why", "its process died every time")))
            continue
        rows.append({**json.loads(trial.user_attrs["row"]), **params, "trial": point, "values": list(trial.values)})
    objectives = queue.sweep.objectives
    marks = front([row.pop("values") for row in rows], [name == "accuracy" for name in objectives])
    for row, mark in zip(rows, marks, strict=True):
        row["front"] = mark
        if test and mark:
            row["test_accuracy"] = _tested(trials, row)
    return Swept(tuple(rows), tuple(failed), objectives)


def _tested(trials: Trials, row: dict[str, Any]) -> float | None:
    """Percent on test data, if the file is on this machine."""
    path = trials.out / row["file"]
    if not path.is_file():
        return None
    return trials.job.evaluate("test")(trials.job.decoded(path))
