"""A process of a server that computes: SEAL holds the interpreter's lock, so threads would take turns.

The server forks it, with the program already in memory. It reads a message and writes its answer, one after the
other, until the server is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable

FRAME = struct.Struct(">Q")
_SIGNAL_AT_PARENTS_END = 1  # PR_SET_PDEATHSIG


def start(make: Callable[[], Callable[[bytes], bytes]]) -> tuple[int, socket.socket]:
    """Fork a worker.

    Args:
        make: called in the worker; makes what answers a message.

    Returns:
        Its process number, and the socket on which it reads and writes frames: eight bytes of length, and the bytes.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        theirs.close()
        return process, ours
    code = 1
    try:
        handle = theirs.detach()
        _alone(handle)
        _serve(handle, make())
        code = 0
    except BaseException as error:  # whatever it is, what the server forked from must not go on here
        with contextlib.suppress(BaseException):
            os.write(2, f"worker: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)
    raise AssertionError("unreachable")


def _alone(handle: int) -> None:
    """Let go of what the server had open: a socket lives as long as the last process that holds it."""
    with contextlib.suppress(OSError, AttributeError):  # Linux: it ends with the server, also within a long computation
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the server hears, and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.closerange(3, handle)
    os.closerange(handle + 1, os.sysconf("SC_OPEN_MAX") if not os.path.isdir("/proc/self/fd") else _highest() + 1)


def _highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def _serve(handle: int, answer: Callable[[bytes], bytes]) -> None:
    while True:
        head = _read(handle, FRAME.size)
        if head is None:
            return
        message = _read(handle, FRAME.unpack(head)[0])
        if message is None:
            return
        reply = answer(message)
        rest = memoryview(FRAME.pack(len(reply)) + reply)
        while rest:
            rest = rest[os.write(handle, rest) :]


def _read(handle: int, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = os.read(handle, min(1 << 20, size - len(found)))
        if not part:
            return None
        found += part
    return bytes(found)
