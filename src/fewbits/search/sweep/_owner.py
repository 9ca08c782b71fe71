"""Whose trial it is, and whether that process still lives."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def me() -> dict[str, Any]:
    """This process, told apart from any other of any machine and any time."""
    return {"host": _host(), "pid": os.getpid(), "born": _born(os.getpid())}


def _host() -> str:
    """The machine since it was started; containers on it have names of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{platform.node()}/{boot}"


def _born(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; ``None`` for one that is gone, and where nobody tells."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else rest[18]


class Pulse:
    """Tells dead owners from living ones: here by the process, elsewhere by a heartbeat that stands still.

    Args:
        patience: seconds without a new heartbeat after which an owner on another machine counts as dead. Measured by
            the clock of this process alone, so machines need not agree on the time.
        nameless: the same for a trial whose owner never said who it is: it died in the moment of taking it.
    """

    def __init__(self, patience: float = 300.0, nameless: float = 30.0) -> None:
        self.patience, self.nameless = patience, nameless
        self.seen: dict[int, tuple[Any, float]] = {}

    def gone(self, trial: int, owner: dict[str, Any] | None, beat: Any) -> bool:
        """Whether nobody works on a running trial any more.

        Args:
            trial: its number. owner: what :func:`me` said there. beat: its last heartbeat.
        """
        if owner is not None and owner.get("host") == _host() and owner.get("born") is not None:
            return _born(int(owner["pid"])) != owner["born"]
        last, since = self.seen.get(trial, (None, 0.0))
        if trial not in self.seen or last != beat:
            self.seen[trial] = (beat, time.monotonic())
            return False
        return time.monotonic() - since > (self.nameless if owner is None else self.patience)
