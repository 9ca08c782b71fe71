"""Going on after an interruption: what a run leaves at every round, and how it is taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fewbits import codec
from fewbits.errors import DataError
from fewbits.pipeline.compressed import Compressed
from fewbits.pipeline.pilot import PilotChoice
from fewbits.pipeline.rounds import Kept, Rounds
from fewbits.pipeline.stages.channels import stage_belongs, stage_file, stage_training_file
from fewbits.pipeline.trial_cache import noted, trial_cache_file
from fewbits.recipe import Recipe
from fewbits.report.report import PilotRun, Report, Round
from fewbits.train import checkpoint
from fewbits.train.hold import QATCallback, Ramp


def save(
    path: Path,
    accelerator: Accelerator,
    rounds: Rounds,
    qat: QATCallback,
    optimizer: torch.optim.Optimizer,
    chosen: PilotChoice,
    done: Compressed | None,
) -> None:
    """Write the state of a run; the main process does.

    Args:
        chosen: what pilots chose. done: the best of the trainings before this one.

    Raises:
        FileError: it cannot be written.
    """
    if not accelerator.is_main_process:
        return
    best = rounds.best
    checkpoint.save(
        path,
        {
            "recipe": rounds.recipe.model_dump_json(),
            "processes": accelerator.num_processes,
            "chosen": {
                "bits": chosen.bits,
                "size": chosen.size,
                "seen": [vars(r) for r in chosen.seen],
                "attempt": chosen.attempt,
            },
            "done": None if done is None else (done.data, done.report.to_json()),
            "before": rounds.before,
            "steps": qat.steps,
            "lam": qat.lam,
            "share": qat.share,
            "ramp": None if qat.ramp is None else tuple(qat.ramp),
            "settled": qat.settled,
            "state": checkpoint.pack(qat.state),
            "model": qat.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "steering": vars(rounds.controller),
            "history": [vars(r) for r in rounds.history],
            "best": None if best is None else (rounds.candidates.encoded(best.plan), best.lam, best.accuracy),
            "random": checkpoint.random_state(),
            "scorer": qat.scorer.state() if qat.scorer is not None else None,
        },
    )


def choice(state: dict[str, Any]) -> PilotChoice:
    """What the pilots of an interrupted run chose."""
    saved = state["chosen"]
    return PilotChoice(saved["bits"], saved["size"], tuple(PilotRun(**r) for r in saved["seen"]), saved["attempt"])


def done(state: dict[str, Any], full: nn.Module) -> Compressed | None:
    """The best of the trainings that an interrupted run had ended, of a network like ``full``."""
    if state["done"] is None:
        return None
    data, report = state["done"]
    return Compressed(codec.decode(data, like=full), data, Report.from_json(report))


def check(path: Path, recipe: Recipe) -> None:
    """Refuse what an interrupted run left if it is of no use to this recipe.

    Raises:
        DataError: it is damaged, or belongs to another recipe.
    """
    for place in (path, stage_training_file(path)):
        checkpoint.load(place, recipe.model_dump_json())
    noted(trial_cache_file(path), recipe)


def belongs(path: Path, recipe: Recipe) -> bool:
    """Whether nothing that lies there is damaged or belongs to another recipe."""
    try:
        check(path, recipe)
        return stage_belongs(stage_file(path), recipe)
    except DataError:
        return False


def forget(path: Path) -> None:
    """Remove all that an interrupted run would go on from: the state first, as it is nothing without the rest."""
    for place in (path, trial_cache_file(path), stage_training_file(path), stage_file(path)):
        place.unlink(missing_ok=True)


def restore(state: dict[str, Any], rounds: Rounds, qat: QATCallback, optimizer: torch.optim.Optimizer) -> None:
    """Take up a run where :func:`save` left it."""
    qat.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    qat.state = checkpoint.unpack(state["state"])
    qat.steps, qat.share = state["steps"], state["share"]
    qat.lam, qat.settled = state["lam"], state["settled"]
    qat.ramp = None if state["ramp"] is None else Ramp(*state["ramp"])
    vars(rounds.controller).update(state["steering"])
    rounds.history = [Round(**r) for r in state["history"]]
    if state["best"] is not None:
        data, lam, accuracy = state["best"]
        rounds.best = Kept(codec.decode(data, like=rounds.candidates.full), lam, len(data), accuracy)
    checkpoint.set_random_state(state["random"])
    if qat.scorer is not None:
        qat.scorer.restore(state["scorer"])
