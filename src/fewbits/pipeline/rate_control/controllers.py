"""Budgets: from bytes or accuracy points, which the user knows, to lambda, which nobody knows.

A rate controller is asked at every round for the strength of the entropy term until the next (with ``train.gradual``,
at the next). It sees the accuracy on validation data, and how large the file would be now for any lambda:
``size_at`` codes it. Where that has a method ``about``, this says nearly the same at once, and is asked first. Where it
is also ``costly``, no file is coded on the way to a target.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from fewbits.errors import BudgetError

SizeAt = Callable[[float], int]

HEADROOM = 0.997
"""Share of a target that the last assignment takes: the floats' coded size still changes while they settle."""

FAR = 0.1
"""Logarithm of the way to a goal, beyond which an estimate is compared with a file."""

REACHED = 0.8
"""Share of a target below which an estimate of the smallest file is enough to begin."""

LARGEST = 1e6  # in units of a layer's lambda_max, far beyond the point where every weight is zero


def solve(size_at: SizeAt, goal: float, guess: float, *, tolerance: float = 0.01, tries: int = 24) -> float:
    """The lambda at which the file is just below ``goal`` bytes; see :func:`bracket`."""
    return bracket(size_at, goal, guess, tolerance=tolerance, tries=tries)[1]


def bracket(
    size_at: SizeAt, goal: float, guess: float, *, tolerance: float = 0.01, tries: int = 24
) -> tuple[float, float]:
    """Two lambdas, with a file above ``goal`` bytes and one just below it.

    The second file may lie far below the goal where the size jumps; the two lambdas are next to each other then.

    Args:
        size_at: bytes of the file for a lambda; falls, not strictly, with lambda (a few percent up where a floor
            begins to hold do no harm, but for goals that close to the smallest file).
        goal: upper bound, bytes.
        guess: where to start, > 0.
        tolerance: how far below the goal is close enough, relative to it.
        tries: evaluations of ``size_at`` at most, beyond those that find the bracket.

    Where there are estimates, they lead to the first of the lambdas that are tried.

    Raises:
        BudgetError: even the smallest file is larger than the goal.

    Returns:
        ``(0, 0)`` if no lambda is needed.
    """
    found = None if estimate_of(size_at) is size_at else guided(size_at, goal, guess, tolerance)
    return found or bisected(size_at, goal, guess, tolerance, tries)


def guided(size_at: SizeAt, goal: float, guess: float, tolerance: float, tries: int = 4) -> tuple[float, float] | None:
    """As :func:`bracket`, by estimates that get better with every file; ``None`` where they lead nowhere.

    The second size is of a file. So is the first where sizes jump; elsewhere it is an estimate.
    """
    about, tried = estimate_of(size_at), set[float]()
    try:
        for _ in range(tries):
            low, high = bisected(about, goal * (1 - tolerance / 2), guess, tolerance / 4, 40)
            if high in tried:
                return None
            tried.add(high)
            size = size_at(high)
            if size <= goal and (high == 0.0 or size >= goal * (1 - tolerance)):
                return bisected(about, 1.02 * goal, high, 0.01, 40)[0] if high else 0.0, high
            if size <= goal and high <= low * (1 + 1e-5) and size_at(low) > goal:
                return low, high
            guess = high or guess
    except BudgetError:  # said of files only
        pass
    return None


def bisected(size_at: SizeAt, goal: float, guess: float, tolerance: float, tries: int) -> tuple[float, float]:
    """As :func:`bracket`, by bisection on the logarithm alone."""
    if size_at(0.0) <= goal:
        return 0.0, 0.0
    low, high = 0.0, max(guess, 1e-9)
    while (size := size_at(high)) > goal:
        low, high = high, high * 2
        if high > LARGEST:
            raise BudgetError(
                f"{goal:.0f} bytes cannot be reached: at its smallest the file still has {size} bytes, which are "
                "biases, normalisation and the header (significand: 5 makes them smaller), the weights that "
                "assign.options.min_kept keeps, and with ecqx those that relevance keeps (a larger assign.options.p "
                f"lets more of them go); ask for {math.ceil(1.1 * size)} bytes or more"
            )
    while low == 0.0:  # the guess was large enough: find a lambda that is not
        if high < 1e-12:
            return 0.0, high
        if (found := size_at(high / 2)) > goal:
            low = high / 2
        else:
            high, size = high / 2, found
    for _ in range(tries):
        if size >= goal * (1 - tolerance) or high / low < 1 + 1e-6:
            break
        middle = math.sqrt(low * high)
        found = size_at(middle)
        if found > goal:
            low = middle
        else:
            high, size = middle, found
    return low, high


def check(size_at: SizeAt, target: int) -> None:
    """Refuse before the first step a target that the zeros of every weight would not reach.

    Raises:
        BudgetError: as :func:`solve`.
    """
    if estimate_of(size_at)(LARGEST) > REACHED * target and size_at(LARGEST) > target:
        bisected(size_at, target, LARGEST, 0.0, 0)


def estimate_of(size_at: SizeAt) -> SizeAt:
    """What asks for no file, if there is such a thing."""
    about: SizeAt = getattr(size_at, "about", size_at)
    return about


def near(size_at: SizeAt, goal: float, size: float, guess: float, *, files: bool = True) -> float:
    """As :func:`solve` on the way: a lambda by estimates, with one file where the goal is far from ``size`` bytes.

    The weights go on changing, and the next round sees what came of it.

    Args:
        files: whether that one is coded.
    """
    about = estimate_of(size_at)
    try:
        lam = bisected(about, goal, guess, 0.02, 24)[1]
        if files and about is not size_at and abs(math.log(goal / size)) > FAR:
            size_at(lam)  # the estimates are relative to this file then
            lam = bisected(about, goal, lam or guess, 0.02, 24)[1]
    except BudgetError:  # said of files only
        return solve(size_at, goal, guess, tolerance=0.02)
    return lam


class RateController(ABC):
    """Chooses lambda round by round."""

    needs_accuracy = False
    """Whether it cannot work without the accuracy of every round."""
    steers = True
    """Whether anything depends on what it sees."""

    @abstractmethod
    def next(self, share: float, size: int, accuracy: float | None, size_at: SizeAt) -> float:
        """Lambda for the time until the next round.

        Args:
            share: share of the training that is over, 0 to 1 (0 before the first step).
            size: bytes of the file as of now.
            accuracy: percent on validation data now, if this controller needs it.
            size_at: bytes of the file for any lambda, with the weights as of now.
        """

    @abstractmethod
    def final(self, size_at: SizeAt) -> float:
        """Lambda of the last assignment, which then stays."""

    def see(self, size: int, accuracy: float | None) -> None:  # noqa: B027 - most need not know
        """What came of the last rounds, before :meth:`final`."""


class Fixed(RateController):
    """The paper's way: lambda is given."""

    steers = False

    def __init__(self, lam: float) -> None:
        self.lam = lam

    def next(self, share: float, size: int, accuracy: float | None, size_at: SizeAt) -> float:
        return self.lam

    def final(self, size_at: SizeAt) -> float:
        return self.lam


class TargetSize(RateController):
    """The size falls geometrically from where it starts to the target, and stays there.

    Asked with the share of the training that will be over at the next round, it gives the lambda to move toward until
    then; with the present one, the lambda to jump to.

    Args:
        target: bytes of the file. arrive: share of the training after which the target is reached.
    """

    def __init__(self, target: int, arrive: float = 0.25) -> None:
        self.target, self.arrive = target, arrive
        self.begin: float | None = None
        self.lam = 0.05

    def goal(self, share: float, size: int) -> float:
        if self.begin is None:
            self.begin = float(max(size, self.target))
        way = 1.0 if share >= self.arrive else share / self.arrive
        return float(self.begin * (self.target / self.begin) ** way)

    def next(self, share: float, size: int, accuracy: float | None, size_at: SizeAt) -> float:
        if self.begin is None:
            check(size_at, self.target)
        goal = self.goal(share, size)
        files = goal <= self.target or not getattr(size_at, "costly", False)
        self.lam = near(size_at, goal, size, self.lam or 0.05, files=files)
        return self.lam

    def final(self, size_at: SizeAt) -> float:
        tolerance = 0.006 if getattr(size_at, "costly", False) else 0.003  # mostly two files instead of three
        self.lam = solve(size_at, self.target * HEADROOM, self.lam or 0.05, tolerance=tolerance)
        return self.lam


class MaxDrop(RateController):
    """Smaller as long as accuracy stays above a least one, in growing steps; where it does not, first wait, then back.

    A network that has just lost weights recovers while it trains on, so one loss of accuracy says little: the size
    is held for a round. A second one in a row sends it half the way back to the smallest size that kept the accuracy,
    and makes the next steps smaller. Towards the end, when there is no time to recover, every loss counts.

    Args:
        min_accuracy: percent on validation data that a file must reach.
        target: upper bound on bytes, if there is one as well.
    """

    needs_accuracy = True
    late = 0.75  # share of the training after which it does not wait

    def __init__(self, min_accuracy: float, target: int | None = None) -> None:
        self.min_accuracy, self.target = min_accuracy, target
        self.shrink = 0.75
        self.best: float | None = None
        self.lost = 0  # rounds in a row below it
        self.lam = 0.05

    def next(self, share: float, size: int, accuracy: float | None, size_at: SizeAt) -> float:
        assert accuracy is not None
        goal = self._goal(share, size, accuracy)
        if self.target is not None:
            if share == 0:
                check(size_at, self.target)
            goal = min(goal, max(self.target, goal * (1 - share)))
        return self._toward(lambda: near(size_at, goal, size, self.lam or 0.05))

    def see(self, size: int, accuracy: float | None) -> None:
        if accuracy is not None and accuracy >= self.min_accuracy:
            self.best = size if self.best is None else min(self.best, size)

    def _goal(self, share: float, size: int, accuracy: float) -> float:
        self.see(size, accuracy)
        if accuracy >= self.min_accuracy:
            self.lost = 0
            step, self.shrink = self.shrink, max(0.5, self.shrink**1.25)
            return size * step
        self.lost += 1
        if self.lost < 2 and share < self.late:
            return size
        self.lost = 0
        self.shrink = min(0.97, self.shrink**0.6)
        if self.best is not None and self.best > size:
            return math.sqrt(size * self.best)
        return size / self.shrink

    def final(self, size_at: SizeAt) -> float:
        if self.best is not None:
            goal = self.best if self.target is None else min(self.best, self.target * HEADROOM)
            self._toward(lambda: solve(size_at, goal, self.lam or 0.05, tolerance=0.003))
        return self.lam

    def _toward(self, lam: Callable[[], float]) -> float:
        try:
            self.lam = lam()
        except BudgetError:  # nobody asked for this goal: as small as can be, then
            self.lam = LARGEST
        return self.lam
