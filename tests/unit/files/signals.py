"""A signal at a random time of a random write, in a process of its own; what came of it, counted, as JSON.

One process imports torch and forks the writers, so that five hundred take a minute: ``python signals.py WRITER SIGNAL
TIMES FOLDER``. A writer writes state after state, each filled with its number, until the signal ends it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbits import files
from fewbits.data._npz import read_npz, write_npz
from fewbits.train import checkpoint

PARTS = 6
PATIENCE = 20.0  # seconds after which a signal is lost
INTERRUPTED, WRONG, LOST = 130, 1, 77


def _tensors(size: int, number: int) -> list[torch.Tensor]:
    return [torch.full((size,), float(number)) for _ in range(PARTS)]


def _one(found: list[Any]) -> bool:
    """Whether all parts are of one writing."""
    ends = {float(end) for part in found for end in (part.min(), part.max())}
    return len(found) == PARTS and len(ends) == 1


def _state(place: Path, size: int, number: int) -> None:
    checkpoint.save(place, {"recipe": "r", "processes": 1, "values": {"w": _tensors(size, number)}})


def _whole_state(place: Path) -> bool:
    values = checkpoint.load(place, "r")
    if values is None or not _one(values["values"]["w"]):
        return False
    values.pop("format")
    again = place.with_name("again")
    checkpoint.save(again, values)  # it is gone on from: the same bytes
    same = again.read_bytes() == place.read_bytes()
    again.unlink()
    return same


def _arrays(place: Path, size: int, number: int) -> None:
    write_npz(place, {str(k): np.full(size, number, dtype=np.float32) for k in range(PARTS)})


def _whole_arrays(place: Path) -> bool:
    return _one(list(read_npz(place, {str(k): ("f", 1) for k in range(PARTS)}).values()))


def _bytes(place: Path, size: int, number: int) -> None:
    files.write(place, bytes([number % 256]) * (4 * PARTS * size))


def _whole_bytes(place: Path) -> bool:
    return len(set(files.read(place))) == 1


def _as_before(place: Path, size: int, number: int) -> None:
    torch.save(_tensors(size, number), place)


def _whole_as_before(place: Path) -> bool:
    return _one(torch.load(place, weights_only=True))


WRITERS: dict[str, tuple[Callable[[Path, int, int], None], Callable[[Path], bool]]] = {
    "state": (_state, _whole_state),
    "npz": (_arrays, _whole_arrays),
    "bytes": (_bytes, _whole_bytes),
    "torch.save to a file": (_as_before, _whole_as_before),  # how states were written once: the harness must see it
}


def _writer(write: Callable[[Path, int, int], None], place: Path, size: int, ready: int, told: Path) -> None:
    """The forked process; does not return."""
    code = LOST
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(ready, b"1")
        end = time.monotonic() + PATIENCE
        number = 1
        while time.monotonic() < end:
            write(place, size, number)
            number += 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        code = WRONG
        told.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _outcome(status: int, told: Path) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    if code == WRONG:
        last = told.read_text().strip().splitlines()[-1]
        return f"wrong error: {last[:120]}"
    return {INTERRUPTED: "interrupted", LOST: "lost"}.get(code, f"exit {code}")


def counted(name: str, number: signal.Signals, times: int, folder: Path, size: int, seed: int = 0) -> Counter[str]:
    """How the writers ended, how many files were not whole, and how many files lay beside theirs afterwards."""
    write, whole = WRITERS[name]
    place, told, draw, seen = folder / "a.file", folder.parent / "told", random.Random(seed), Counter[str]()
    write(place, size, 0)
    begin = time.perf_counter()
    write(place, size, 0)
    each = time.perf_counter() - begin
    for _ in range(times):
        readable, ready = os.pipe()
        child = os.fork()
        if not child:
            _writer(write, place, size, ready, told)
        os.read(readable, 1)
        os.close(readable)
        os.close(ready)
        time.sleep(draw.uniform(0, 3 * each))
        os.kill(child, number)
        seen[_outcome(os.waitpid(child, 0)[1], told)] += 1
        seen["left beside"] += len(os.listdir(folder)) - 1
        try:
            seen["not whole"] += not whole(place)
        except Exception:
            seen["not whole"] += 1
        if seen["not whole"] or number == signal.SIGKILL:
            write(place, size, 0)
        seen["left after the next write"] += len(os.listdir(folder)) - 1
    return +seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, number, times, folder, size = sys.argv[1:]
    print(json.dumps(counted(name, signal.Signals[number], int(times), Path(folder), int(size))))
