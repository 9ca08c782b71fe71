"""What concerns a process: its memory, by its own status (Linux), and having a folder to itself."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def forget_peak() -> int:
    """Let the peak count from here; the resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(key: str = "VmHWM") -> int:
    """Bytes: the peak (``VmHWM``), or what is held now (``VmRSS``)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith(f"{key}:"))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time for a folder; the others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
