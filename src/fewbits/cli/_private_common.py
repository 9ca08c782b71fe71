"""What commands of encrypted inference share: a MAC key, a connection, a program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewbits.private.connection import Connection
    from fewbits.private.profile import Profile
    from fewbits.private.program import Program

Mac = Annotated[
    Path | None, typer.Option("--mac", help="mac.key, which client and server share: messages cannot be changed then.")
]


def mac_of(path: Path | None) -> bytes | None:
    """The MAC key in a file, if one is given."""
    from fewbits import files
    from fewbits.private.mac import open_mac_key

    return None if path is None else open_mac_key(files.read(path), str(path))


def told(profile: Profile) -> str:
    """A profile in a line."""
    parameters = profile.parameters
    return (
        f"degree {parameters.degree:,}, {len(parameters.primes)} primes of {parameters.bits:.1f} bits together (128-bit "
        f"security), {len(profile.rotations)} rotations, {len(profile.input_slots)} ciphertexts in, "
        f"{profile.outputs} outputs, error at most {profile.error:.2g}"
    )


def connected(
    where: str, tls: bool, trust: Path | None, certificate: Path | None, mac: Path | None, seconds: float
) -> Connection:
    """A connection to ``HOST:PORT``."""
    from fewbits.private.connection import Connection
    from fewbits.private.tls import client_tls

    host, colon, port = where.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise typer.BadParameter(f"{where} is no server: write HOST:PORT, as 127.0.0.1:7700")
    spoken = client_tls(trust, certificate) if tls or trust is not None or certificate is not None else None
    return Connection(host.strip("[]"), int(port), tls=spoken, mac_key=mac_of(mac), seconds=seconds)


def program_of(
    file: Path, recipe: str | None, network: str | None, data: str | None, base: Path | None, member: str | None
) -> Program:
    """The encrypted program of a ``.few`` file, and of the network that it is decoded into."""
    from fewbits.cli._deploy import named, network_and_inputs
    from fewbits.pipeline import opened
    from fewbits.pipeline.restore import restore
    from fewbits.private.program import compile_network
    from fewbits.task import first_of

    loaded = named(recipe, network, data)
    coded, origin = opened(file, base or (loaded.base if loaded else None), member)
    like, inputs = network_and_inputs(coded, loaded)
    restored, _ = restore(coded, like, origin)
    return compile_network(restored.eval(), first_of(inputs, 1))
