"""Files that are whole or not there: the one atomic write, state with a checksum, and a folder's lock."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import signal
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fewbits.errors import DataError, FileError

try:
    import fcntl
except ImportError:  # not on Windows, where folders are not locked
    fcntl = None  # type: ignore[assignment]

_MACHINE = hashlib.sha256(str(uuid.getnode()).encode()).hexdigest()[:8]  # whose process numbers these are
_TEMPORARY = re.compile(r"\.fewbits-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{16}\.tmp")
_KINDS: dict[str, Callable[[int], bool]] = {
    "a FIFO": stat.S_ISFIFO,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a socket": stat.S_ISSOCK,
}
_STATE = b"FEWBITS STATE 1\n"
LOCK = ".fewbits.lock"


def read(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file; FileError where it is missing, a directory, or may not be read."""
    if not isinstance(path, str | os.PathLike):
        raise FileError(f"cannot read a file of type {type(path).__name__}: give its path")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {os.fspath(path)!r}: {_reason(error)}") from error


def write(path: str | os.PathLike[str], data: bytes, mode: int | None = None) -> None:
    """Put ``data`` at ``path``, wholly or not at all; see :func:`replacing`."""
    with replacing(path, mode) as beside, _opened(beside) as handle:
        _write(handle, data)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[str]:
    """A temporary file beside ``path``, which takes its place once the block is over.

    It goes to the disk first, and only then to its name. On any failure (disk full, interruption) it is removed and an
    older file at ``path`` stays as it was; of one that is replaced, the mode is kept. A symbolic link is followed.
    What killed processes of this machine left in the folder is removed.

    Args:
        mode: of the file from its first moment on, whoever owned the name before; else that of the file it replaces.

    Raises:
        FileError: the file cannot be written, or ``path`` is something else than a file; the message says why.
    """
    try:
        target = os.path.realpath(path)
        kept = _mode(target)
        folder = os.path.dirname(target)
        _clean(folder)
        name = f".fewbits-{_MACHINE}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(8)}.tmp"
        beside = os.path.join(folder, name)
        try:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode))
            yield beside
            _sync(beside, os.O_RDWR)
            if mode is None and kept is not None:
                os.chmod(beside, kept)
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        with contextlib.suppress(OSError):  # not every system can make a name durable; the file is whole either way
            _sync(folder)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {os.fspath(path)!r}: {_reason(error)}") from error


def _mode(target: str) -> int | None:
    """The mode of a file that is there already."""
    try:
        found = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    for words, is_kind in _KINDS.items():
        if is_kind(found):
            raise FileError(f"cannot write {target!r}: it is {words}, not a file; give the name of a file")
    return stat.S_IMODE(found)


def _sync(path: str, how: int = os.O_RDONLY) -> None:
    handle = os.open(path, how)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clean(folder: str) -> None:
    """Remove what processes of this machine left that are no more; another machine's may be alive."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = _TEMPORARY.fullmatch(name)
            if found and found[1] == _MACHINE and _started(int(found[2])) != int(found[3]):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _started(process: int) -> int:
    """When a process started, in units of the system: numbers of processes are used again. -1 if there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return -1 if fields[0] == "Z" else int(fields[19])
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return -1
    except (OSError, ValueError, IndexError):
        pass
    try:  # no /proc: alive or not is all there is to know
        os.kill(process, 0)
    except ProcessLookupError:
        return -1
    except OSError:
        pass
    return 0


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is over: libraries make wrong errors of it, or end the process."""
    before = signal.getsignal(signal.SIGINT)
    # Signals are the main thread's, and a handler that Python did not set cannot be set again.
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    waiting: list[object] = []
    signal.signal(signal.SIGINT, lambda *_: waiting.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            signal.raise_signal(signal.SIGINT)


class _Told(io.RawIOBase):
    """Writes on to a file, and knows length and SHA-256 of what went by: a state need not be in memory as a whole."""

    def __init__(self, handle: int) -> None:
        self.handle, self.length, self.digest = handle, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        given = memoryview(data).cast("B")
        self.digest.update(given)
        self.length += len(given)
        _write(self.handle, given)
        return len(given)


@contextlib.contextmanager
def writing_state(path: Path) -> Iterator[BinaryIO]:
    """A stream to what only :func:`read_state` reads: with its length and SHA-256; wholly written or not at all.

    Raises:
        FileError: the folder cannot be made, is not writable, or full; an older state stays intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {path.parent}: {_reason(error)}") from error
    with replacing(path) as beside, _opened(beside) as handle:
        _write(handle, bytes(len(_STATE) + 40))
        told = _Told(handle)
        yield told  # type: ignore[misc]
        os.lseek(handle, 0, os.SEEK_SET)
        _write(handle, _STATE + told.length.to_bytes(8, "big") + told.digest.digest())


def read_state(path: Path) -> memoryview:
    """What :func:`writing_state` wrote.

    Raises:
        DataError: it is damaged, or something else. FileError: it cannot be read.
    """
    data = memoryview(read(path))
    head, rest = data[: len(_STATE)], data[len(_STATE) :]
    length, digest, payload = rest[:8], rest[8:40], rest[40:]
    if head != _STATE:
        raise DataError(f"{path} is not a checkpoint of this version; delete it to start anew")
    if len(payload) != int.from_bytes(length, "big") or hashlib.sha256(payload).digest() != digest:
        raise DataError(f"{path} is damaged: its checksum does not fit; delete it to start anew")
    return payload


_held: dict[str, tuple[int, int]] = {}  # folders that this process has locked, each with thread and handle


def _forget() -> None:
    """In a forked child, such as a worker of a loader: it holds no lock, and must not keep its parent's alive."""
    for _, handle in _held.values():
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Nobody else works in ``folder`` meanwhile; the lock goes with its process, however that ends.

    The thread that holds a lock may take it again. Systems without such locks (Windows, some network disks) go on
    without.

    Args:
        what: is done there, in a few words, for whoever finds it locked.

    Raises:
        FileError: somebody works there; the message says who, and since when. Or it cannot be written.
    """
    place, thread = os.path.realpath(folder), threading.get_ident()
    if fcntl is None or _held.get(place, (None,))[0] == thread:
        yield
        return
    path = os.path.join(place, LOCK)
    try:
        with uninterrupted():
            handle = _acquired(path, folder)
            _held[place] = (thread, handle)
            _sign(handle, what)
        yield
    finally:
        with uninterrupted():
            if _held.get(place, (None,))[0] == thread:  # else it was not got, or this is a forked child
                _release(_held.pop(place)[1], path)


def _acquired(path: str, folder: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(f"cannot write to the folder {folder}: {_reason(error)}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                holder = json.loads(os.read(handle, 4096))
                who = f"process {holder['process']}, since {holder['since']} ({holder['what']})"
            except (ValueError, KeyError, TypeError):
                who = "another process"
            os.close(handle)
            raise FileError(f"{folder} is in use by {who}; wait for it, or give another --out") from None
        except OSError:  # a disk without locks
            return handle
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its last holder has removed it meanwhile


def _is_at(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(handle: int, what: str) -> None:
    words = {"process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "what": what}
    with contextlib.suppress(OSError):  # a full disk locks as well
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(words).encode())


def _release(handle: int, path: str) -> None:
    with contextlib.suppress(OSError):
        if _is_at(handle, path):
            os.unlink(path)
    os.close(handle)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
