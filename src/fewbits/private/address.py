"""Where a server listens."""

from __future__ import annotations

import errno
import socket

from fewbits.errors import ServerError


def listen(host: str, port: int) -> socket.socket:
    """A socket of a server, before it is one: an address that cannot be had is known before any work.

    Args:
        port: 0 for any that is free.

    Raises:
        ServerError: the address cannot be had.
    """
    if not 0 <= port < 1 << 16:  # the system would take the last 16 bits
        raise ServerError(f"cannot listen on port {port}: ports go from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(128)
        except BaseException:
            made.close()
            raise
        return made
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ServerError(f"port {port} of {host} is in use: give another port, or 0 for a free one") from None
        raise ServerError(f"cannot listen on {host}, port {port}: {error}") from None
