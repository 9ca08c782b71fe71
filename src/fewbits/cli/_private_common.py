"""What commands of encrypted inference share: a MAC key, a connection, a program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewbits.private.connection import Connection
    from fewbits.private.profile import Profile
    from fewbits.private.program import Program

SAMPLES = 256  # on which ranges are measured


class Profiles(StrEnum):
    PRECISE = "precise"
    FAST = "fast"


Arithmetic = Annotated[
    Profiles, typer.Option("--profile", help="fast: fewer rescales and primes, at a hundredth of the precision.")
]
Mac = Annotated[
    Path | None, typer.Option("--mac", help="mac.key, which client and server share: nobody else can change messages.")
]


def mac_of(path: Path | None) -> bytes | None:
    """The MAC key in a file, if one is given."""
    from fewbits import files
    from fewbits.private.mac import open_mac_key

    return None if path is None else open_mac_key(files.read(path), str(path))


def told(profile: Profile) -> str:
    """A profile in a line."""
    parameters, inputs = profile.parameters, len(profile.input_slots)
    return (
        f"degree {parameters.degree:,}, {len(parameters.primes)} primes of {parameters.bits:.1f} bits together (128-bit"
        f" security), {len(profile.rotations)} rotations, {inputs} ciphertext{'s' * (inputs != 1)} in, "
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
    file: Path,
    recipe: str | None,
    network: str | None,
    data: str | None,
    base: Path | None,
    member: str | None,
    arithmetic: Profiles,
) -> Program:
    """The encrypted program of a ``.few`` file, and of the network that it is decoded into."""
    import torch

    from fewbits import job
    from fewbits.cli._deploy import named
    from fewbits.errors import RecipeError, UnsupportedError
    from fewbits.job.batches import some_batches
    from fewbits.pipeline import opened
    from fewbits.pipeline.restore import restore
    from fewbits.private.compile import compile_network

    loaded = named(recipe, network, data)
    if loaded is None:
        raise RecipeError(
            "give --recipe, or --network and --data (mine.py:Net and mine.py:loaders): the network that the file is "
            "decoded into, and data on which ranges of its numbers are measured"
        )
    coded, origin = opened(file, base or loaded.base, member)
    made = job.skeleton(loaded)
    batches = [inputs for inputs, _ in some_batches(made.dataset, made.feed, SAMPLES)]
    if not all(isinstance(inputs, torch.Tensor) for inputs in batches):
        raise UnsupportedError("encrypted inference takes networks of one input, a tensor; this one takes several")
    samples = torch.cat(batches)[:SAMPLES]
    restored, _ = restore(coded, made.network, origin)
    return compile_network(restored.eval(), samples, profile=arithmetic.value)
