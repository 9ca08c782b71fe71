"""Work on a sweep until every setting is settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from fewbits.errors import FewbitsError
from fewbits.search.sweep.queue import Queue
from fewbits.search.sweep.space import Params

IDLE = 0.5  # seconds between looks when nothing is waiting


class Runner(Protocol):
    """What tries one setting; the sweep knows no more of it."""

    def run(self, point: int, params: Params) -> tuple[list[float], dict[str, Any]]:
        """The objectives in the sweep's order, and the row for the results.

        Raises:
            FewbitsError: the setting is impossible, or its training fails.
        """


def work(
    queue: Queue,
    runner: Runner,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    leave: Callable[[], bool] = lambda: False,
) -> None:
    """Take trials until every setting is settled.

    Args:
        progress: called after every trial, here or elsewhere, with how many are done, of how many, and a few words.
        leave: whether to stop before the next trial.
    """
    shown = -1
    while not leave():
        queue.reclaim()
        over = queue.plan()
        done = queue.finished()
        if progress is not None and len(done) != shown:
            shown = len(done)
            progress(shown, queue.total, words(done))
        if over:
            return
        trial = queue.take()
        if trial is not None:
            one(queue, runner, trial)
        else:
            time.sleep(IDLE)


def one(queue: Queue, runner: Runner, trial: Any) -> None:
    """Run one trial, and tell what came of it."""
    with queue.beating(trial):
        try:
            values, row = runner.run(trial.user_attrs["point"], trial.params)
        except FewbitsError as error:
            queue.fail(trial, str(error))
        else:
            queue.complete(trial, values, row)


def words(done: dict[int, Any]) -> str:
    """The state of a sweep in a few words."""
    failed = sum("why" in trial.user_attrs or trial.values is None for trial in done.values())
    return f"{len(done)} trials finished" + (f", {failed} of them failed" if failed else "")
