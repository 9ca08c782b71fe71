"""The command that serves encrypted inference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli._common import Base, Data, Interrupted, Member, Network
from fewbits.cli._console import say, show
from fewbits.cli._deploy import Recipe
from fewbits.cli._private_common import Arithmetic, Mac, Profiles, mac_of, program_of, told

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    file: Annotated[Path, typer.Argument(help="A .few file.")],
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    arithmetic: Arithmetic = Profiles.PRECISE,
    host: Annotated[str, typer.Option("--host", help="Where to listen; by default this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = 7700,
    keys: Annotated[
        list[Path] | None, typer.Option("--keys", help="evaluation.keys of a client that need not be sent then.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that compute.")] = 2,
    clients: Annotated[int, typer.Option("--clients", min=1, help="Connections at a time.")] = 16,
    queue: Annotated[int, typer.Option("--queue", min=0, help="Requests that may wait for a worker.")] = 16,
    compute: Annotated[
        float, typer.Option("--compute-seconds", min=0.001, help="How long a request may be worked on.")
    ] = 60.0,
    receive: Annotated[
        float, typer.Option("--receive-seconds", min=0.001, help="How long a client may take to send a message.")
    ] = 60.0,
    mac: Mac = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file of the server's certificate.")] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="PEM file of its key, if --tls-cert does not hold it.")
    ] = None,
    tls_clients: Annotated[
        Path | None, typer.Option("--tls-clients", help="PEM file that clients' certificates are checked with.")
    ] = None,
) -> None:
    """Run a compressed network on encrypted inputs, for clients that connect. Ctrl-C ends it.

    It holds no secret key, and refuses files and messages that hold one.
    """
    if tls_cert is None and (tls_key is not None or tls_clients is not None):
        raise typer.BadParameter("--tls-key and --tls-clients go with --tls-cert")

    from fewbits.private.address import listen
    from fewbits.private.limits import Limits
    from fewbits.private.server import Server, read_evaluation_keys
    from fewbits.private.tls import server_tls

    limits = Limits(clients, workers, queue, compute, receive)
    tls = None if tls_cert is None else server_tls(tls_cert, tls_key or tls_cert, tls_clients)
    shared = mac_of(mac)
    for path in keys or []:
        read_evaluation_keys(path)
    listening = listen(host, port)  # what cannot be had is known before the network is made a program
    server = Server(
        program_of(file, recipe, network, data, base, member, arithmetic), limits, mac_key=shared, tls=tls, tell=say
    )  # fmt: skip

    def ready(host: str, port: int) -> None:
        show(f"{file.name}: {told(server.profile)}")
        if tls is None and host not in _LOOPBACK:
            say("note: without TLS; see 'fewbits private serve --help', --tls-cert")
        show(f"listening on {f'[{host}]' if ':' in host else host}:{port}")

    server.run(listening, keys=keys, ready=ready)
    raise Interrupted(f"stopped after {server.answered} answers")
