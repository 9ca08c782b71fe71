"""The smallest file that keeps a least accuracy, in few tries."""

from __future__ import annotations

import math


def rank_key(kept: bool, size: int, accuracy: float) -> tuple[bool, float]:
    """What the best file is the maximum of: the smallest accurate enough, else the most accurate."""
    return kept, -size if kept else accuracy


class SizeSearch:
    """A search by asking and telling: :meth:`next` names a size to try, :meth:`tell` says what came of it.

    While nothing is accurate enough it goes up; while everything is, down; then it halves the gap, on a
    scale of ratios. What is kept has been measured, so noise in the accuracy costs bytes, never the promise.

    Args:
        min_accuracy: percent that a file must reach.
        limit: upper bound on bytes, if there is one as well.
        tries: how many sizes at most.
        close: ratio of the smallest size that was accurate enough to the largest below it that was not, to stop at.
        down, up: from one size to the next while all keep the least accuracy, or none does.
    """

    def __init__(
        self,
        min_accuracy: float,
        limit: int | None = None,
        *,
        tries: int = 8,
        close: float = 1.02,
        down: float = 0.85,
        up: float = 1.25,
    ) -> None:
        self.min_accuracy, self.limit, self.tries, self.close = min_accuracy, limit, tries, close
        self.down, self.up = down, up
        self.kept: int | None = None  # smallest size that keeps the least accuracy
        self.lost: float | None = None  # largest size below it that does not
        self.fitting = limit is None  # whether anything no larger than the limit was seen

    def next(self) -> float | None:
        """Bytes to try, or ``None`` when the search is over."""
        if self.tries <= 0:
            return None
        if not self.fitting:
            return self.limit
        if self.kept is None:
            if self.lost is None:
                return None
            if self.limit is not None and self.lost * min(self.close, 1.02) >= self.limit:
                return None  # even about as large as allowed it is not accurate enough
            return self.lost * self.up if self.limit is None else min(self.lost * self.up, self.limit)
        if self.lost is None:
            return self.kept * self.down
        return math.sqrt(self.kept * self.lost) if self.kept / self.lost > self.close else None

    def tell(self, size: int, accuracy: float, goal: float | None = None) -> None:
        """What a file has. Without ``goal`` it was there anyway, and costs no try.

        Args:
            goal: the size that was asked for; ``size`` may be below it where sizes jump.
        """
        self.tries -= goal is not None
        if self.limit is not None and size > self.limit:
            return
        self.fitting = True
        if accuracy >= self.min_accuracy:
            self.kept = size if self.kept is None else min(self.kept, size)
            if self.lost is not None and self.lost >= self.kept:
                self.lost = None
        else:
            self.fail(size if goal is None else goal)

    def fail(self, goal: float) -> None:
        """A size that does not keep the least accuracy, or that no file has."""
        if self.kept is None or goal < self.kept:
            self.lost = goal if self.lost is None else max(self.lost, goal)
