"""A server: takes connections, bounds what comes and how long it takes, and hands it to worker processes.

This process never reads what is in an envelope but its head; a worker that dies or takes too long is replaced, and
only its own client hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from fewbits import files
from fewbits.errors import DamagedError, KindError, PrivateError, ServerError
from fewbits.private.binding import profile_hash
from fewbits.private.envelope import HEAD, Envelope, Head, Kind, head_of, opened
from fewbits.private.handler import Handler, refuse_secret_key
from fewbits.private.key_store import key_store
from fewbits.private.limits import Limits, largest
from fewbits.private.messages import BusyError, refusal
from fewbits.private.pool import Pool

if TYPE_CHECKING:
    from fewbits.private.program import Program

_CHUNK = 1 << 16
_HANDSHAKE = 10.0  # seconds that TLS may take to begin
_LINGER = 2.0  # seconds in which a client that is refused may finish what it says; else it would not hear why
_GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)


class Server:
    """See :meth:`run`.

    Args:
        program: that requests are computed with.
        mac_key: which clients must use, if any.
        tls: a context of the standard library's ``ssl``; without one, what goes over the network is not encrypted
            once more.
        tell: hears of each client and request, in a line.
    """

    def __init__(
        self,
        program: Program,
        limits: Limits | None = None,
        *,
        mac_key: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._program, self._limits, self._mac_key = program, limits or Limits(), mac_key
        self._tls, self._tell = tls, tell
        self.profile = program.profile
        self._largest = largest(self.profile)
        self._open: set[asyncio.Task[None]] = set()
        self.answered = 0

    def run(
        self,
        listening: socket.socket,
        *,
        keys: list[Path] | None = None,
        ready: Callable[[str, int], None] = lambda host, port: None,
    ) -> None:
        """Serve until SIGINT or SIGTERM.

        Args:
            listening: of :func:`~fewbits.private.address.listen`; it is closed at the end.
            keys: files of evaluation keys that are there from the start.
            ready: called with host and port once connections are taken.

        Raises:
            PrivateError: one of the files holds a secret key, or is for another profile.
        """
        if not hasattr(os, "fork"):
            raise ServerError("a server needs a system with fork, as Linux and macOS have it; clients work here")
        bound = profile_hash(self.profile)
        given = {path: read_evaluation_keys(path, bound) for path in keys or []}
        with listening, key_store(self._limits) as self._store:
            handler = Handler(self._program, self._mac_key, self._store.get, tell=self._tell)
            for path, found in given.items():
                self._store.put(found.key, found.sealed(self._mac_key))
                self._tell(f"keys {found.key.hex()} of {path}")
            self._pool = Pool(handler, self._limits)
            try:
                asyncio.run(self._main(listening, ready))
            finally:
                self._pool.close()

    async def _main(self, listening: socket.socket, ready: Callable[[str, int], None]) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, stop.set)
        await self._pool.start()
        patience = _HANDSHAKE if self._tls else None
        server = await asyncio.start_server(self._client, sock=listening, ssl=self._tls, ssl_handshake_timeout=patience)
        ready(*listening.getsockname()[:2])
        await stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) > self._limits.clients:
                raise BusyError(f"it has {self._limits.clients} clients already; try again later")
            while await self._turn(reader, writer):
                pass
        except PrivateError as error:
            self._tell(f"{_peer(writer)}: refused: {error}")
            with contextlib.suppress(*_GONE, TimeoutError):
                await self._refuse(reader, writer, error)
        except _GONE:
            pass  # it went away
        finally:
            self._open.discard(task)
            writer.close()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One message and its answer; whether the client may say more."""
        seconds = self._limits.receive_seconds
        spooled: Path | None = None
        try:
            try:
                async with asyncio.timeout(seconds):
                    head = await self._head(reader)
                    if head is None:
                        return False
                    first, told = head
                    if told.kind is Kind.EVALUATION_KEYS:
                        spooled = await self._spooled(reader, first, told.size)
                        job = b"F" + os.fsencode(spooled)
                    else:
                        job = b"M" + first + await reader.readexactly(told.size - len(first))
            except TimeoutError:
                raise ServerError(f"no whole message came within {seconds:g} seconds") from None
            self._store.used(told.key)
            reply = await self._pool.answer(job, told.key)
            kind = head_of(reply).kind
            if kind is Kind.ACCEPTED and spooled is not None:
                self._store.take(told.key, spooled)
        finally:
            if spooled is not None:
                spooled.unlink(missing_ok=True)
        self.answered += kind is Kind.ANSWER
        self._tell(f"{_peer(writer)}: {told.kind.words}, {told.size:,} bytes: {kind.words}, {len(reply):,} bytes")
        writer.write(reply)
        try:
            async with asyncio.timeout(seconds):
                await writer.drain()
        except TimeoutError:
            return False
        return True

    async def _head(self, reader: asyncio.StreamReader) -> tuple[bytes, Head] | None:
        try:
            first = await reader.readexactly(HEAD.size)
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise
        refuse_secret_key(first, "the message")
        head = head_of(first, "the message")
        if head.kind not in self._largest:
            raise KindError(f"the message is {head.kind.words}, and a server takes none")
        if head.size > self._largest[head.kind]:
            raise DamagedError(
                f"the message says that it has {head.size:,} bytes; {head.kind.words} of this profile has at most "
                f"{self._largest[head.kind]:,}"
            )
        return first, head

    async def _spooled(self, reader: asyncio.StreamReader, first: bytes, size: int) -> Path:
        """Evaluation keys are large: they wait in a file, not in memory."""
        handle, path = self._store.incoming()
        try:
            with open(handle, "wb", buffering=0) as file:
                part, left = first, size
                while True:
                    _write(file, part)
                    left -= len(part)
                    if not left:
                        return path
                    part = await reader.read(min(_CHUNK, left))
                    if not part:
                        raise asyncio.IncompleteReadError(b"", left)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: PrivateError) -> None:
        writer.write(refusal(error, mac_key=self._mac_key))
        async with asyncio.timeout(_LINGER):
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(_CHUNK):
                pass


def _write(file: FileIO, data: bytes) -> None:
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise ServerError(f"it cannot keep keys: {error.strerror}") from None


def _peer(writer: asyncio.StreamWriter) -> str:
    found = writer.get_extra_info("peername")
    return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else "somebody"


def read_evaluation_keys(path: Path, profile: bytes | None = None) -> Envelope:
    """Evaluation keys in a file, of any profile or this one.

    Raises:
        PrivateError: it holds a secret key, or something else, or is damaged. FileError: it cannot be read.
    """
    data = files.read(path)
    refuse_secret_key(data, str(path))
    return opened(data, Kind.EVALUATION_KEYS, profile=profile, what=str(path))
