"""Training on one task after the other, through the one loop, with what it does to those before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from accelerate import Accelerator
from torch import nn

from fewbits.errors import RecipeError, did_you_mean
from fewbits.multitask._ewc import EWC
from fewbits.multitask._keeping import Keeping, Replay
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._over_time import OverTime, scores_of
from fewbits.multitask._packnet import PackNet
from fewbits.multitask._tasks import Tasks
from fewbits.multitask._training import check_whole_loss, train_tasks
from fewbits.recipe.training import Training
from fewbits.task import Classification, Task, fed
from fewbits.train import Callback, KeptTraining, Store

KEEPING: dict[str, type[Keeping]] = {"plain": Keeping, "replay": Replay, "ewc": EWC, "packnet": PackNet}
"""Ways to keep earlier tasks, by name."""


def keeping_of(name: str, **options: Any) -> Keeping:
    """A way to keep earlier tasks by its name, with its options.

    Raises:
        RecipeError: no such way, or a value that it cannot have.
    """
    if name not in KEEPING:
        raise RecipeError(f"no way of keeping is called {name!r}{did_you_mean(name, KEEPING)} ({', '.join(KEEPING)})")
    return KEEPING[name](**options)


class _Accompanied(KeptTraining):
    """A training that is kept as its companion leaves it after each step."""

    keeping: Callback

    def watch(self) -> AbstractContextManager[Any]:
        return self.keeping.watch()

    def before_update(self, outputs: Any, batch: Any) -> None:
        self.keeping.before_update(outputs, batch)

    def after_update(self, done: int, total: int, loss: float) -> None:
        self.keeping.after_update(done, total, loss)
        super().after_update(done, total, loss)


def train_in_sequence(
    net: SegmentNet,
    loaders: Mapping[str, Any],
    training: Training,
    *,
    seed: int,
    evaluate: Mapping[str, Iterable[Any]],
    keeping: Keeping | None = None,
    tasks: Mapping[str, Task] | None = None,
    store: Store | None = None,
) -> OverTime:
    """Train a network on one task after the other, in place, in the order of the loaders.

    A task has the epochs of ``training`` on its own batches, with an optimizer and a schedule of its own. All tasks
    together so have the steps that :func:`train_tasks` has in as many epochs.

    Args:
        loaders: batches ``(x, targets)`` by task. training, tasks: as of :func:`train_tasks`.
        evaluate: batches ``(x, targets)`` of the same tasks, on which all of them are evaluated after each one.
        keeping: how earlier tasks are kept; default: not at all. One that was used before remembers that.
        store: keeps the state of the training, and has what an interrupted one left.

    Returns:
        A row of scores after each task. A task is evaluated as ``keeping`` has it seen: with
        ``keeping.seen_as(net, task)`` around it, the network computes the same later on.

    Raises:
        RecipeError: data to evaluate of other tasks than those to train. Else as :func:`train_tasks`.
    """
    order = list(loaders)
    if set(order) != set(evaluate):
        raise RecipeError(f"tasks to train are {order}, and to evaluate {list(evaluate)}: give the same")
    for name in order:
        net.path(name)
    if keeping is not None and type(keeping) is not Keeping:
        check_whole_loss(training, type(keeping).__name__)
    keeping, store = keeping or Keeping(), store or Store(None, "", Accelerator())
    aim = Tasks({name: (tasks or {}).get(name, Classification()) for name in net.tasks})
    data = {name: evaluate[name] for name in order}
    saved, rows = store.get("sequence"), []
    if saved is not None:
        rows, keeping.state = list(saved["rows"]), saved["keeping"]
        net.load_state_dict(saved["model"])
    for number in range(len(rows), len(order)):
        name = order[number]
        kept = _Accompanied(store, f"sequence.{name}")
        if kept.saved is not None:
            keeping.state = kept.saved["notes"]
            net.load_state_dict(kept.saved["model"])  # callbacks look at it before the loop has it
        kept.keeping = keeping.begin(net, name, order) or Callback()
        kept.notes = keeping.state
        train_tasks(
            net, {name: loaders[name]}, training, seed=seed + number, tasks=tasks, kept=kept,
            penalty=keeping.penalty(net, aim),
        )  # fmt: skip
        keeping.end(net, name, aim, fed(nn.Identity(), loaders[name]))
        rows.append(scores_of(net, aim, data, keeping.seen_as))
        whole = {"rows": rows, "keeping": keeping.state, "model": net.state_dict()}
        store.put("sequence", whole, drop=[f"sequence.{name}"])
    return OverTime(tuple(order), tuple(tuple(row) for row in rows), tuple(range(len(order))))
