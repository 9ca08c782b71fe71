"""TLS of the standard library, with its own defaults: names are checked, old versions are not spoken."""

from __future__ import annotations

import ssl
from pathlib import Path

from fewbits.errors import PrivateError


def server_tls(certificate: Path, key: Path, clients: Path | None = None) -> ssl.SSLContext:
    """Of a server.

    Args:
        certificate, key: PEM files; the key without a password.
        clients: PEM file of those who may sign clients' certificates; then a client must have one.

    Raises:
        PrivateError: one of the files is missing, or is none of these.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _chain(context, certificate, key)
    if clients is not None:
        _trust(context, clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(trusted: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Of a client.

    Args:
        trusted: PEM file of those who may sign the server's certificate, or of that itself; ``None`` for whom the
            system trusts.
        certificate, key: PEM files, where the server asks clients for a certificate.
    """
    context = ssl.create_default_context()
    if trusted is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, trusted)
    if certificate is not None:
        _chain(context, certificate, key)
    return context


def _chain(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def no_password() -> str:
        raise PrivateError(f"the key in {key or certificate} has a password: give one without")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except OSError as error:  # ssl.SSLError is one
        names = f"{certificate} and {key}" if key else str(certificate)
        raise PrivateError(f"no certificate with its key in {names}: {_reason(error)}") from None


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise PrivateError(f"no certificates to trust in {file}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return (error.strerror if not isinstance(error, ssl.SSLError) else error.reason) or str(error)
