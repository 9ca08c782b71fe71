"""A folder's lock when something comes in between: Ctrl-C, full disks, disks without locks, forked children."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fewbits import files
from fewbits.errors import FileError


@pytest.mark.parametrize("times", [300, pytest.param(3000, marks=pytest.mark.long)])
def test_ctrl_c_while_a_folder_is_locked_does_not_lock_its_process_out(tmp_path: Path, times: int) -> None:
    draw, seen = random.Random(0), 0
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        for number in range(times):
            place = tmp_path / str(number)
            place.mkdir()
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 4e-4))
                while True:
                    with files.locked(place, "a job"):
                        pass
            except KeyboardInterrupt:
                seen += 1
            with files.locked(place, "the same job once more"):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == times


@pytest.mark.parametrize("call", ["ftruncate", "write"])
def test_a_full_disk_does_not_keep_a_job_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    with files.locked(tmp_path, "a job that may need no room"):
        assert (tmp_path / files.LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_locks_is_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", none)
    with files.locked(tmp_path, "a job"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_forked_child_keeps_no_lock_alive_and_frees_none(tmp_path: Path) -> None:
    """Such as a worker of a loader, whose parent is killed."""
    code = (
        "import os, sys, time; from pathlib import Path; from fewbits import files\n"
        "place = Path(sys.argv[1])\n"
        "try:\n"
        "    with files.locked(place, 'parent'):\n"
        "        if not os.fork():\n"
        "            sys.exit()\n"
        "        os.wait()\n"
        "        assert (place / files.LOCK).exists(), 'a child that left the block freed the folder'\n"
        "        if not (child := os.fork()):\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "        print(child, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "finally:\n"
        "    sys.stdout.flush()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.wait() == -9
        deadline = time.monotonic() + 20  # until the child has run at all, which a busy machine may put off
        while True:
            try:
                with files.locked(tmp_path, "the next"):
                    break
            except FileError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("name", ["SIG_DFL", "SIG_IGN"])
def test_ctrl_c_after_a_write_is_what_it_was_before(name: str) -> None:
    code = (
        f"import signal; from fewbits import files; signal.signal(signal.SIGINT, signal.{name})\n"
        "with files.uninterrupted():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('in', flush=True)\n"
        "print('out', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if name == "SIG_DFL":
        assert (done.returncode, done.stdout) == (-signal.SIGINT, "in\n"), "the signal was swallowed"
    else:
        assert (done.returncode, done.stdout) == (0, "in\nout\n")


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match=r"cannot write to the folder .*none: No such file"),
        files.locked(tmp_path / "none", "a job"),
    ):
        pass
