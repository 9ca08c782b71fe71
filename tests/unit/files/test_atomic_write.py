"""Whole files or none."""

import errno
import os
from pathlib import Path

import pytest

from fewbits import files
from fewbits.errors import FileError
from fewbits.files import read, write


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "net.few")


def test_round_trip(tmp_path: Path) -> None:
    target = tmp_path / "net.few"
    write(target, b"one")
    write(str(target), b"two" * 100_000)
    assert read(target) == b"two" * 100_000
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, old: bool
) -> None:
    target = tmp_path / "net.few"
    if old:
        target.write_bytes(b"old")

    def full(*args: object, **kwargs: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(FileError, match=r"cannot write .*net\.few.*No space left on device"):
        write(target, b"new")
    monkeypatch.undo()
    assert leftovers(tmp_path) == []
    assert target.read_bytes() == b"old" if old else not target.exists()


def test_a_disk_that_fills_halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.few"
    target.write_bytes(b"old")
    real, room = os.write, [10]

    def cramped(handle: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(handle, data[: min(4, room[0])])
        room[0] -= written
        return written

    monkeypatch.setattr(files.os, "write", cramped)
    with pytest.raises(FileError, match="No space left"):
        write(target, b"x" * 11)
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []
    room[0] = 10
    write(target, b"y" * 10)
    assert target.read_bytes() == b"y" * 10


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_an_interruption_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    target = tmp_path / "net.few"
    target.write_bytes(b"old")

    def interrupted(*args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_the_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for call in ("write", "fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(files.os, call, lambda *a, real=real, call=call: order.append(call) or real(*a))
    write(tmp_path / "net.few", b"new")
    assert order[:3] == ["write", "fsync", "replace"]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*folder'"):
        write(tmp_path / "folder", b"x")
    with pytest.raises(FileError, match="No such file or directory"):
        write(tmp_path / "none" / "net.few", b"x")
    with pytest.raises(FileError, match="null"):
        write(str(tmp_path / "a\0b"), b"x")
    assert leftovers(tmp_path) == ["folder"]


def test_paths_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match=r"cannot read .*net\.few': No such file or directory"):
        read(tmp_path / "net.few")
    with pytest.raises(FileError, match="Is a directory"):
        read(tmp_path)

    def locked(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", locked)
    with pytest.raises(FileError, match="Permission denied"):
        read(tmp_path / "net.few")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "net.few").symlink_to(tmp_path / "real" / "net.few")
    write(tmp_path / "net.few", b"new")
    assert (tmp_path / "net.few").is_symlink()
    assert (tmp_path / "real" / "net.few").read_bytes() == b"new"
    assert leftovers(tmp_path / "real") == []
