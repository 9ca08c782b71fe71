"""The worker processes of a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from fewbits.errors import ServerError
from fewbits.private import worker
from fewbits.private.handler import Handler
from fewbits.private.limits import Limits
from fewbits.private.messages import BusyError


class _Worker:
    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.process, self._socket = worker.start(lambda: answer)
        self.key: bytes | None = None  # whose requests it had last: it has those keys loaded
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def answer(self, job: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._socket)
        reader, writer = self._streams
        writer.write(worker.FRAME.pack(len(job)))
        writer.write(job)
        await writer.drain()
        (size,) = worker.FRAME.unpack(await reader.readexactly(worker.FRAME.size))
        return await reader.readexactly(size)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)
        if self._streams is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                self._streams[1].close()
        self._socket.close()


class Pool:
    """So many workers as the limits say, of which each computes one answer at a time."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._handler, self._limits = handler, limits
        self._workers: set[_Worker] = set()
        self._free: list[_Worker] = []
        self._waiting = 0

    def _job(self, job: bytes) -> bytes:
        """In a worker: a message, or the file that one is in."""
        if job[:1] == b"F":
            with open(os.fsdecode(job[1:]), "rb") as file:
                return self._handler(file.read())
        return self._handler(job[1:])

    async def start(self) -> None:
        self._turn = asyncio.Semaphore(self._limits.workers)
        for _ in range(self._limits.workers):
            self._add()

    def _add(self) -> None:
        try:
            made = _Worker(self._job)
        except OSError as error:
            raise ServerError(f"no worker process can be started: {error}") from None
        self._workers.add(made)
        self._free.append(made)

    async def answer(self, job: bytes, key: bytes) -> bytes:
        """What a worker answers.

        Raises:
            BusyError: too many wait already. ServerError: the worker died, or took too long; another
                takes its place.
        """
        if self._turn.locked() and self._waiting >= self._limits.queue:
            raise BusyError(f"{self._waiting} requests wait for {self._limits.workers} workers; try again later")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._by_one(job, key)
        finally:
            self._turn.release()

    async def _by_one(self, job: bytes, key: bytes) -> bytes:
        if not self._free:  # one has died
            self._add()
        chosen = next((each for each in self._free if each.key == key), self._free[0])
        self._free.remove(chosen)
        sound = False
        try:
            async with asyncio.timeout(self._limits.compute_seconds):
                reply = await chosen.answer(job)
            chosen.key, sound = key, True
            return reply
        except TimeoutError:
            raise ServerError(f"the work took longer than {self._limits.compute_seconds:g} seconds") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ServerError("the process that worked on this message died") from None
        finally:
            if sound:
                self._free.append(chosen)
            else:
                self._workers.discard(chosen)
                chosen.end()

    def close(self) -> None:
        """End all workers."""
        for each in self._workers:
            each.end()
        self._workers.clear()
        self._free.clear()
