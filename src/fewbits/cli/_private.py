"""Commands of a client of encrypted inference: profile, keys, requests and answers, each in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewbits.cli import _private_demo as cli_demo
from fewbits.cli import _private_serve as cli_serve
from fewbits.cli._common import Base, Data, Member, Network
from fewbits.cli._console import Json, show, writable
from fewbits.cli._deploy import Recipe
from fewbits.cli._private_common import Arithmetic, Mac, Profiles, connected, mac_of, program_of, told

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(
    help="Encrypted inference: a server computes, and sees neither input, nor output, nor key.", no_args_is_help=True
)

Key = Annotated[Path, typer.Option("--key", help="The client's secret.key; to encrypt, public.key does, too.")]
Trust = Annotated[
    Path | None,
    typer.Option("--tls-trust", help="PEM file that the server's certificate is checked with; TLS is spoken then."),
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file of the client's certificate and key, if the server asks.")
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS, with a server that the system trusts.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1, help="How long the server may take.")]
SECRET, PUBLIC, EVALUATION, MAC = "secret.key", "public.key", "evaluation.keys", "mac.key"


@app.command()
def profile(
    source: Annotated[str, typer.Argument(help="HOST:PORT of a server, or a .few file.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.", callback=writable)],
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    arithmetic: Arithmetic = Profiles.PRECISE,
    mac: Mac = None,
    tls: Tls = False,
    tls_trust: Trust = None,
    tls_cert: Certificate = None,
    seconds: Seconds = 120.0,
) -> None:
    """What a client must know of a network: parameters, rotations, where inputs and outputs lie. No weights.

    Of a server it is asked for; of a .few file it is computed as 'serve' does. Weak parameters are refused.
    """
    from fewbits import files
    from fewbits.private.binding import sealed_profile

    place = Path(source)
    if place.suffix == ".few" or place.exists():
        found = program_of(place, recipe, network, data, base, member, arithmetic).profile
    else:
        with connected(source, tls, tls_trust, tls_cert, mac, seconds) as server:
            found = server.profile()
    files.write(out, sealed_profile(found))
    show(f"{out}: {told(found)}")


@app.command()
def keygen(
    profile: Annotated[Path, typer.Argument(help="A profile, of 'fewbits private profile'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the keys.")] = Path("keys"),
    force: Annotated[bool, typer.Option("--force", help="Replace keys that are there: they are lost.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Bytes that the evaluation keys may have, by a stranger's profile.")
    ] = 8 << 30,
    with_mac: Annotated[bool, typer.Option("--with-mac", help="Also make a MAC key for client and server.")] = False,
) -> None:
    """Make keys for a profile: secret.key stays here; evaluation.keys goes to the server, public.key to who sends.

    Only its owner can read secret.key, and it is not replaced without --force.
    """
    from fewbits import files
    from fewbits.errors import FileError, PrivateError
    from fewbits.private.binding import opened_profile
    from fewbits.private.keys import generate
    from fewbits.private.mac import new_mac_key

    names = [SECRET, PUBLIC, EVALUATION, *([MAC] if with_mac else [])]
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise PrivateError(f"{out} has {', '.join(there)} already: give another --out, or --force to lose these keys")
    wanted = opened_profile(files.read(profile), what=str(profile))
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {out}: {error.strerror}") from None
    made = generate(wanted, limit)
    files.write(out / EVALUATION, made.evaluation)
    files.write(out / PUBLIC, made.public)
    files.write(out / SECRET, made.secret, mode=0o600)
    if with_mac:
        files.write(out / MAC, new_mac_key(), mode=0o600)
    show(f"keys {made.id.hex()} in {out}")
    show(f"{SECRET}: {len(made.secret):,} bytes; stays here, and nobody else may have it")
    show(f"{PUBLIC}: {len(made.public):,} bytes; for whoever encrypts inputs")
    show(f"{EVALUATION}: {len(made.evaluation):,} bytes; for the server")
    if with_mac:
        show(f"{MAC}: for this client and the server, and nobody else")


@app.command()
def encrypt(
    sample: Annotated[Path, typer.Argument(help="A .npy file: one sample, or several with --index.")],
    key: Key,
    out: Annotated[Path, typer.Option("--out", help="The request to write.", callback=writable)],
    index: Annotated[int | None, typer.Option("--index", min=0, help="Which sample, of an array of several.")] = None,
    mac: Mac = None,
) -> None:
    """Encrypt one sample as a request to the server."""
    from fewbits import files
    from fewbits.private.client import Client

    values = _array(sample, index)
    client = Client(files.read(key), mac_of(mac), str(key))
    made = client.encrypt(values)
    files.write(out, made)
    show(f"{out}: {len(made):,} bytes, for keys {client.id.hex()}")


@app.command()
def request(
    request: Annotated[Path, typer.Argument(help="A request, of 'fewbits private encrypt'.")],
    server: Annotated[str, typer.Argument(help="HOST:PORT.")],
    out: Annotated[Path, typer.Option("--out", help="The answer to write.", callback=writable)],
    keys: Annotated[
        Path | None, typer.Option("--keys", help="evaluation.keys, which are sent if the server has them not.")
    ] = None,
    mac: Mac = None,
    tls: Tls = False,
    tls_trust: Trust = None,
    tls_cert: Certificate = None,
    seconds: Seconds = 120.0,
) -> None:
    """Send a request to a server and write its answer, which is encrypted. No secret key is needed, or taken."""
    import time

    from fewbits import files
    from fewbits.private.envelope import Kind, opened
    from fewbits.private.messages import UnknownKeyError

    message = files.read(request)
    evaluation = None if keys is None else files.read(keys)
    if evaluation is not None:
        opened(evaluation, Kind.EVALUATION_KEYS, what=str(keys))
    sent = 0
    with connected(server, tls, tls_trust, tls_cert, mac, seconds) as there:
        start = time.perf_counter()
        try:
            answer = there.request(message, str(request))
        except UnknownKeyError:
            if evaluation is None:
                raise
            there.upload(evaluation, str(keys))
            sent, start = len(evaluation), time.perf_counter()
            answer = there.request(message, str(request))
        taken = time.perf_counter() - start
    files.write(out, answer)
    along = f"; keys sent before: {sent:,} bytes" if sent else ""
    show(f"{out}: {len(answer):,} bytes, answered in {taken:.3f} s{along}")


@app.command()
def decrypt(
    answer: Annotated[Path, typer.Argument(help="An answer, of 'fewbits private request'.")],
    key: Key,
    request: Annotated[
        Path | None, typer.Option("--request", help="The request that it must answer, and no other.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the outputs to this .npy file.", callback=writable)
    ] = None,
    mac: Mac = None,
    json_file: Json = None,
) -> None:
    """Decrypt an answer: the network's outputs, and the largest of them. Give decrypted values to nobody (CKKS)."""
    from fewbits import files
    from fewbits.private.client import Client

    asked = None if request is None else files.read(request)
    client = Client(files.read(key), mac_of(mac), str(key))
    outputs = client.decrypt(files.read(answer), asked, str(answer))
    largest = int(outputs.argmax())
    show(f"largest output: {largest} ({outputs.ravel()[largest]:.4g})")
    show("outputs: " + " ".join(f"{value:.4g}" for value in outputs.ravel()[:100]))
    if out is not None:
        files.write(out, _npy(outputs), mode=0o600)
        show(f"written: {out}")
    if json_file is not None:
        figures = json.dumps({"argmax": largest, "outputs": outputs.tolist()}, indent=1)
        files.write(json_file, figures.encode(), mode=0o600)


def _array(path: Path, index: int | None) -> np.ndarray:
    import io

    import numpy as np

    from fewbits import files
    from fewbits.errors import DataError

    data = files.read(path)
    try:
        found: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise DataError(f"{path} is no .npy file of numbers: write one with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise DataError(f"{path} holds no array of real numbers: write one with numpy.save")
    if index is None:
        return found
    if found.ndim == 0 or index >= len(found):
        raise DataError(f"{path} has no sample {index}: its shape is {found.shape}")
    return found[index]


def _npy(values: np.ndarray) -> bytes:
    import io

    import numpy as np

    place = io.BytesIO()
    np.save(place, values)
    return place.getvalue()


app.command()(cli_serve.serve)
app.command()(cli_demo.demo)
