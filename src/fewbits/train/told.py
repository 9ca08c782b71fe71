"""A callback that says how far a training is."""

from __future__ import annotations

from collections.abc import Callable

from fewbits.train.loop import Callback


class Told(Callback):
    """Says the steps that are done, and the loss.

    Args:
        progress: what is told, as ``progress(steps done, steps in total, a line)``. what: before the loss in that line.
        times: how often in a whole training; default: after every step.
    """

    def __init__(self, progress: Callable[[int, int, str], None], what: str = "", *, times: int | None = None) -> None:
        self.progress, self.what, self.times = progress, what, times

    def after_update(self, done: int, total: int, loss: float) -> None:
        if self.times is None or done * self.times // total > (done - 1) * self.times // total:
            self.progress(done, total, f"{self.what}loss {loss:.3f}")
