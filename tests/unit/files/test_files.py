"""Whole files or none: interruptions, full disks, odd targets, what killed processes leave, checksums, locks."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fewbits import files
from fewbits.errors import DataError, FileError
from fewbits.train import checkpoint

WRITER = """
import signal, sys, torch
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from fewbits.train import checkpoint
place = Path(sys.argv[1])
values = {"recipe": "r", "processes": 1, "values": {"w": [torch.full((1000, 250), float(k)) for k in range(6)]}}
checkpoint.save(place, values)
print("ready", flush=True)
try:
    for _ in range(10_000):
        checkpoint.save(place, values)
except KeyboardInterrupt:
    sys.exit(130)
"""


def interrupted(place: Path, times: int, seed: int) -> list[str]:
    """What went wrong in so many processes that write checkpoints on and on and get SIGINT at a random time."""
    draw, wrong = random.Random(seed), []
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        if process.returncode != 130:
            wrong.append(f"{process.returncode}: {told[-300:]}")
        if checkpoint.load(place, "r") is None:
            wrong.append("no state")
        if [name for name in os.listdir(place.parent) if name != place.name]:
            wrong.append(f"left: {os.listdir(place.parent)}")
    return wrong


def test_ctrl_c_leaves_a_whole_state_and_no_other_file(tmp_path: Path) -> None:
    assert interrupted(tmp_path / "a.state", 1, 0) == []


@pytest.mark.parametrize("times", [20, pytest.param(500, marks=pytest.mark.long)])
def test_ctrl_c_at_any_time(tmp_path: Path, times: int) -> None:
    """In one process, so that 500 take a minute: the signal comes at a random time of a random write."""
    place, values = tmp_path / "a.state", {"recipe": "r", "values": [torch.ones(1000, 250) for _ in range(6)]}
    checkpoint.save(place, values)
    begin = time.perf_counter()
    checkpoint.save(place, values)
    each, draw, seen = time.perf_counter() - begin, random.Random(0), 0
    for _ in range(times):
        before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        try:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 3 * each))
            for _ in range(4):
                checkpoint.save(place, values)
            time.sleep(60)  # the signal ends it, however fast this disk is now
        except KeyboardInterrupt:
            seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert checkpoint.load(place, "r") is not None
        assert os.listdir(tmp_path) == ["a.state"]
    assert seen == times


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    place, draw = tmp_path / "a.state", random.Random(1)
    checkpoint.save(place, {"recipe": "r", "values": {"w": torch.arange(500.0)}})
    good = place.read_bytes()
    for _ in range(200):
        at, bit = draw.randrange(len(good)), 1 << draw.randrange(8)
        place.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
        with pytest.raises(DataError, match=r"a\.state .* delete it to start anew"):
            checkpoint.load(place, "r")
    for other in (good[:-1], good + b"\0", good[:20], b""):
        place.write_bytes(other)
        with pytest.raises(DataError, match="delete it to start anew"):
            checkpoint.load(place, "r")
    torch.save({"format": 9, "recipe": "r"}, place)  # as earlier versions left it
    with pytest.raises(DataError, match="not a checkpoint of this version"):
        checkpoint.load(place, "r")
    place.write_bytes(good)
    assert checkpoint.load(place, "r") is not None
    assert checkpoint.load(tmp_path / "none", "r") is None


def test_what_a_killed_process_left_goes_with_the_next_write_and_nobody_elses(tmp_path: Path) -> None:
    code = "import os, sys; from fewbits import files\nwith files.replacing(sys.argv[1]): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")]).returncode == -9
    (left,) = tmp_path.iterdir()
    machine = re.fullmatch(r"\.fewbits-(\w{8})-.*", left.name)
    assert machine is not None
    elsewhere = tmp_path / left.name.replace(machine[1], "0123abcd")
    elsewhere.write_text("of another machine, which may be alive")
    with files.replacing(tmp_path / "slow") as alive:
        files.write(tmp_path / "y", b"1")
        assert os.path.exists(alive)
        assert not left.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([elsewhere.name, "slow", "y"])


def test_a_number_that_another_process_has_now_is_not_alive(tmp_path: Path) -> None:
    mine = f".fewbits-{files._MACHINE}-{os.getpid()}-12345-{'0' * 16}.tmp"
    (tmp_path / mine).write_text("of a process that had my number")
    files.write(tmp_path / "y", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["y"]


@pytest.mark.skipif(os.name == "nt", reason="modes are Unix's")
def test_a_mode_that_is_asked_for_is_there_from_the_first_moment(tmp_path: Path) -> None:
    place = tmp_path / "secret"
    place.write_bytes(b"old")
    place.chmod(0o644)
    with files.replacing(place, 0o600) as beside:
        assert stat.S_IMODE(os.stat(beside).st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    files.write(tmp_path / "new", b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_the_mode_stays_and_a_link_is_followed(tmp_path: Path) -> None:
    files.write(tmp_path / "new", b"1")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~mask
    (tmp_path / "new").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    files.write(tmp_path / "link", b"22")
    assert (tmp_path / "new").read_bytes() == b"22"
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, words in ((tmp_path / "pipe", "is a FIFO"), (Path("/dev/null"), "is a device"), (tmp_path, "directory")):
        with pytest.raises(FileError, match=words):
            files.write(place, b"1")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(FileError, match=r"cannot write .*none"):
        files.write(tmp_path / "none" / "x", b"1")


def test_a_full_disk_says_so_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.state"
    checkpoint.save(place, {"recipe": "r", "values": 1})
    good = place.read_bytes()

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FileError, match=r"a\.state.*No space left on device"):
        checkpoint.save(place, {"recipe": "r", "values": 2})
    assert place.read_bytes() == good
    assert list(tmp_path.iterdir()) == [place]


def test_a_second_job_is_told_who_works_in_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fewbits import files\n"
        "with files.locked(Path(sys.argv[1]), 'resnet, seed 3'): print('in', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    told = rf"in use by process {first.pid}, since 2.* \(resnet, seed 3\)"
    with pytest.raises(FileError, match=told), files.locked(tmp_path, "other"):
        pass
    first.kill()
    first.wait()
    with files.locked(tmp_path, "other"), files.locked(tmp_path, "again, in the same thread"):  # killed: free again
        assert (tmp_path / files.LOCK).exists()
    assert not list(tmp_path.iterdir())
