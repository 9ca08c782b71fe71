"""The trials that processes and machines share: planned once, taken by one, finished or given back."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fewbits.errors import DataError
from fewbits.recipe.variation import Sweep
from fewbits.search.sweep import _owner as owner
from fewbits.search.sweep import points
from fewbits.search.sweep.space import Params, SweepSpace
from fewbits.search.sweep.storage import optuna

ATTEMPTS = 3  # a setting that ends its process so often is not tried again
BEAT = 20.0  # seconds from one heartbeat to the next


class Queue:
    """A study of Optuna whose trials carry the number of their setting (``point``) in the list of :mod:`.points`.

    Nothing here needs a coordinator: any process may plan, take, finish, and give back what a dead process left. Two
    that plan at once plan the same, and of two trials of a setting the one with the lower number counts.

    Args:
        storage: see :mod:`.storage`. name: of the study in it.
        identity: what must be the same for every process that joins: recipe, sweep, float network.

    Raises:
        DataError: the study of that name is another one.
    """

    def __init__(
        self, storage: Any, name: str, sweep: Sweep, identity: Mapping[str, str], *, pulse: owner.Pulse | None = None
    ) -> None:
        self.library = optuna()
        self.sweep, self.space, self.pulse = sweep, SweepSpace.of(sweep), pulse or owner.Pulse()
        self._due: list[Params] | None = None
        self._ready = 0  # batches that were finished when the list was made
        self.study = self.library.create_study(
            study_name=name, storage=storage, directions=points.directions(sweep), load_if_exists=True,
            sampler=self.library.samplers.RandomSampler(seed=0),
        )  # fmt: skip
        self._check(name, identity)

    def _check(self, name: str, identity: Mapping[str, str]) -> None:
        known = self.study.user_attrs
        for what, value in identity.items():
            if what not in known:
                self.study.set_user_attr(what, value)
            elif known[what] != value:
                raise DataError(
                    f"the sweep {name!r} in this storage has another {what}; go on with what it was begun with, or "
                    "give another --name or --out"
                )

    @property
    def total(self) -> int:
        """How many settings there will be."""
        return self.sweep.trials if self.space.size is None else min(self.sweep.trials, self.space.size)

    # -- what there is -----------------------------------------------------------------------------------

    def by_point(self) -> dict[int, list[Any]]:
        """Trials by their setting's number, each in the order of their own numbers."""
        found: dict[int, list[Any]] = defaultdict(list)
        for trial in self.study.get_trials(deepcopy=False):
            if "point" in trial.user_attrs:
                found[trial.user_attrs["point"]].append(trial)
        return found

    def finished(self) -> dict[int, Any]:
        """The trial that settled each setting: completed, or failed for a reason, or too often by dying."""
        return {point: done for point, trials in self.by_point().items() if (done := self._settled(trials)) is not None}

    def _settled(self, trials: list[Any]) -> Any | None:
        state = self.library.trial.TrialState
        for trial in trials:
            if trial.state == state.COMPLETE or (trial.state == state.FAIL and "why" in trial.user_attrs):
                return trial
        died = [t for t in trials if t.state == state.FAIL and "twin" not in t.user_attrs]
        return died[-1] if len(died) >= ATTEMPTS else None

    def plan(self) -> bool:
        """Put settings that are due and missing into the queue; returns whether all there will be are settled."""
        state = self.library.trial.TrialState
        present, finished = self.by_point(), self.finished()
        seen: list[points.Seen] = []
        for point in range(len(finished)):
            if point not in finished:
                break  # the list goes on only behind what is finished without a gap
            done = finished[point]
            seen.append((done.params or self._params(done), done.values if done.state == state.COMPLETE else None))
        ready = len(seen) // self.sweep.batch
        if self._due is None or ready != self._ready:
            self._due, self._ready = points.planned(self.space, self.sweep, seen), ready
        due = self._due
        for point, params in enumerate(due):
            live = [t for t in present.get(point, []) if t.state in (state.WAITING, state.RUNNING)]
            if point not in finished and not live:
                self.study.enqueue_trial(params, user_attrs={"point": point, "params": json.dumps(params)})
        return all(point in finished for point in range(len(due)))

    @staticmethod
    def _params(trial: Any) -> Params:
        return dict(json.loads(trial.user_attrs["params"]))

    # -- a worker's steps --------------------------------------------------------------------------------

    def take(self) -> Any | None:
        """A trial of this process's own, or ``None`` when none is waiting."""
        state = self.library.trial.TrialState
        if not self.study.get_trials(deepcopy=False, states=(state.WAITING,)):
            return None
        trial = self.study.ask()
        attributes = trial.user_attrs
        try:
            trial.set_user_attr("owner", owner.me())  # at once: until then nobody can tell whether its process lives
            if "point" not in attributes:  # somebody else was faster, and Optuna made one up
                self.study.tell(trial, state=state.FAIL)
                return None
            self.space.suggest(trial)
        except (ValueError, RuntimeError):  # taken for dead meanwhile, on a machine that hardly moves
            return None
        rivals = [
            t for t in self.by_point()[attributes["point"]]
            if t.number != trial.number
            and (t.state == state.COMPLETE or (t.state == state.RUNNING and t.number < trial.number))
        ]  # fmt: skip
        if rivals:
            trial.set_user_attr("twin", rivals[0].number)
            self.study.tell(trial, state=state.FAIL)
            return None
        return trial

    @contextmanager
    def beating(self, trial: Any) -> Iterator[None]:
        """Heartbeats of a trial while the block runs."""
        over = threading.Event()

        def beat() -> None:
            count = 0
            while not over.wait(BEAT):
                count += 1
                try:
                    trial.set_user_attr("beat", count)
                except Exception:  # the storage is away: others will notice that, this thread need not
                    time.sleep(0)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def complete(self, trial: Any, values: list[float], row: dict[str, Any]) -> None:
        """A trial's objectives, and everything that goes into the results."""
        self._tell(trial, {"row": json.dumps(row)}, values=values)

    def fail(self, trial: Any, why: str) -> None:
        """A setting that cannot work; it is not tried again."""
        self._tell(trial, {"why": why}, state=self.library.trial.TrialState.FAIL)

    def _tell(self, trial: Any, more: Mapping[str, str], **outcome: Any) -> None:
        try:
            for name, text in more.items():
                trial.set_user_attr(name, text)
            self.study.tell(trial, **outcome)
        except (ValueError, RuntimeError):  # taken for dead, and finished by somebody else meanwhile
            return

    def reclaim(self) -> int:
        """Give back the running trials of dead processes; returns how many."""
        state, count = self.library.trial.TrialState, 0
        for trial in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            attributes = trial.user_attrs
            if not self.pulse.gone(trial.number, attributes.get("owner"), attributes.get("beat")):
                continue
            try:
                self.study.tell(trial.number, state=state.FAIL)
            except (ValueError, RuntimeError):  # somebody else was faster
                continue
            count += 1
        return count
