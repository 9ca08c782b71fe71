"""What the main stage keeps at every round, and how it is taken up again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewbits.codec import Base
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._pilot import PilotChoice
from fewbits.pipeline._rounds import Kept, Rounds
from fewbits.pipeline._sizes import Coded
from fewbits.pipeline.restore import decoded
from fewbits.report.report import PilotRun, Report, Round
from fewbits.train import checkpoint
from fewbits.train.hold import QATCallback, Ramp


def saved(
    rounds: Rounds,
    qat: QATCallback,
    optimizer: torch.optim.Optimizer | None,
    chosen: PilotChoice,
    done: Compressed | None,
) -> dict[str, Any]:
    """Plain data and tensors.

    Args:
        chosen: what pilot runs chose. done: the best of the trainings before this one.
    """
    best = rounds.best
    return {
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
        "state": qat.state.packed(),
        "model": qat.model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "controller": vars(rounds.controller),
        "history": [vars(r) for r in rounds.history],
        "best": None if best is None else (best.data, best.digest, best.lam, best.accuracy),
        "files": [vars(file) for file in rounds.files],
        "age": rounds.age,
        "random": checkpoint.random_state(),
        "rule": qat.rule_state,
        "scorer": qat.scorer.state() if qat.scorer is not None else None,
    }


def choice(state: dict[str, Any]) -> PilotChoice:
    """What the pilots of an interrupted run chose."""
    saved = state["chosen"]
    return PilotChoice(saved["bits"], saved["size"], tuple(PilotRun(**r) for r in saved["seen"]), saved["attempt"])


def done(state: dict[str, Any], full: nn.Module, base: Base | None = None) -> Compressed | None:
    """The best of the trainings that an interrupted run had ended, of a network like ``full``."""
    if state["done"] is None:
        return None
    data, report = state["done"]
    return Compressed(decoded(data, full, base), data, Report.from_json(report), base)


def restore(state: dict[str, Any], rounds: Rounds, qat: QATCallback, optimizer: torch.optim.Optimizer | None) -> None:
    """Take up a run where :func:`saved` left it."""
    qat.model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    qat.state = qat.state.unpacked(state["state"])
    qat.steps, qat.share = state["steps"], state["share"]
    qat.lam, qat.settled = state["lam"], state["settled"]
    qat.ramp = None if state["ramp"] is None else Ramp(*state["ramp"])
    vars(rounds.controller).update(state["controller"])
    rounds.history = [Round(**r) for r in state["history"]]
    rounds.files, rounds.age = [Coded(**file) for file in state.get("files", ())], state.get("age", 0)
    if state["best"] is not None:
        rounds.best = Kept(*state["best"])
    qat.rule_state = state["rule"]
    checkpoint.set_random_state(state["random"])
    if qat.scorer is not None:
        qat.scorer.restore(state["scorer"])
