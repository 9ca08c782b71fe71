"""A client's side of a connection to a server. It sends envelopes only, and never what was decrypted."""

from __future__ import annotations

import socket
import ssl
import time
from types import TracebackType
from typing import TYPE_CHECKING

from fewbits.errors import DamagedError, ServerError
from fewbits.private.binding import opened_profile
from fewbits.private.envelope import HEAD, Kind, head_of, opened
from fewbits.private.messages import answered, hello

if TYPE_CHECKING:
    from fewbits.private.profile import Profile

LARGEST = 1 << 28  # bytes of a message that a client takes


class Connection:
    """To a server; use it in a ``with`` statement.

    Args:
        tls: a context of the standard library's ``ssl``, whose host name check applies.
        mac_key: that client and server share.
        seconds: that the server may take, from the first byte sent to the last one of its answer.

    Raises:
        ServerError: there is no server, or it is not the one that TLS asks for.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        mac_key: bytes | None = None,
        seconds: float = 120.0,
    ) -> None:
        self._mac_key, self._where, self._seconds = mac_key, f"{host}:{port}", seconds
        try:
            self._socket: socket.socket = socket.create_connection((host, port), timeout=seconds)
            if tls is not None:
                try:
                    self._socket = tls.wrap_socket(self._socket, server_hostname=host)
                except BaseException:
                    self._socket.close()
                    raise
        except (OSError, OverflowError) as error:
            raise ServerError(f"no server at {self._where}: {error}") from None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def profile(self) -> Profile:
        """The server's profile, checked as any: weak parameters are refused."""
        reply = self._exchanged(hello(self._mac_key))
        answered(reply, Kind.PROFILE, self._mac_key)
        return opened_profile(reply, self._mac_key, "the server's profile")

    def upload(self, keys: bytes, what: str = "what is to be sent") -> None:
        """Give the server evaluation keys, in the envelope of their file. It keeps them for a while."""
        found = opened(keys, Kind.EVALUATION_KEYS, what=what)
        reply = self._exchanged(keys if self._mac_key is None else found.sealed(self._mac_key))
        answered(reply, Kind.ACCEPTED, self._mac_key, profile=found.profile, key=found.key)

    def request(self, request: bytes, what: str = "what is to be sent") -> bytes:
        """The answer to a request, both in their envelopes.

        Raises:
            UnknownKeyError: the server has not the keys: upload them first.
        """
        found = opened(request, Kind.REQUEST, mac_key=self._mac_key, what=what)
        reply = self._exchanged(request)
        answered(reply, Kind.ANSWER, self._mac_key, profile=found.profile, key=found.key, number=found.number)
        return reply

    def _exchanged(self, message: bytes) -> bytes:
        broken: OSError | None = None
        self._deadline = time.monotonic() + self._seconds
        try:
            self._socket.settimeout(self._seconds)
            self._socket.sendall(message)
        except TimeoutError:
            raise ServerError(f"the server at {self._where} took nothing for {self._seconds:g} seconds") from None
        except OSError as error:  # it may have said why before it hung up
            broken = error
        try:
            head = self._read(HEAD.size)
            size = head_of(head, "the server's message").size
            if size > LARGEST:
                raise DamagedError(
                    f"the server's message says that it has {size:,} bytes; at most {LARGEST:,} are read"
                )
            return head + self._read(size - len(head))
        except TimeoutError:
            raise ServerError(f"the server at {self._where} did not answer within {self._seconds:g} seconds") from None
        except OSError as error:
            raise ServerError(f"the connection to {self._where} broke: {broken or error}") from None

    def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            self._socket.settimeout(max(0.01, self._deadline - time.monotonic()))
            part = self._socket.recv(min(1 << 20, size - len(found)))
            if not part:
                raise ServerError(f"the server at {self._where} hung up before its answer was whole")
            found += part
        return bytes(found)
