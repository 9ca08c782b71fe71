"""The demo of encrypted inference: each role is a process of its own, as if it were on a machine of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewbits.cli._console import Json, say, show, show_rows
from fewbits.cli._private_common import Arithmetic, Profiles

if TYPE_CHECKING:
    import numpy as np

NETWORK = '''\
"""A network that runs on encrypted numbers: its activation is a square."""

from torch import Tensor, nn


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), Square(), nn.Linear(32, 10))
'''
_PATIENCE = 600.0  # seconds that a role may take
_STARTED = "listening on "


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for all files.")] = Path("out/private"),
    samples: Annotated[int, typer.Option("--samples", min=1, max=100, help="How many inputs.")] = 3,
    arithmetic: Arithmetic = Profiles.FAST,
    json_file: Json = None,
) -> None:
    """All roles on a small network: key owner, sender, messenger and server, each a process of its own.

    The network reads handwritten digits of 8 x 8 pixels. What every role has lies in a folder of its own.
    """
    from fewbits.private._seal import seal

    seal()  # before any work, if it is not installed
    there = {name: out / name for name in ("server", "client")}
    for folder in there.values():
        folder.mkdir(parents=True, exist_ok=True)
    inputs, plain = _network(there["server"], samples)
    rows: list[tuple[str, str, int | None, float | None]] = []

    def role(name: str, *arguments: object, makes: Sequence[str] = ()) -> None:
        start = time.perf_counter()
        _run(there["client"], *arguments)
        seconds = time.perf_counter() - start
        for i, each in enumerate(makes or [""]):
            size = (there["client"] / each).stat().st_size if each else None
            rows.append((name, each, size, None if i else seconds))

    with _server(there["server"], arithmetic) as (address, seconds):
        rows.append(("serve", "", None, seconds))
        role("profile", "profile", address, "--out", "net.profile", makes=["net.profile"])
        role("keygen", "keygen", "net.profile", "--force", makes=_MADE)
        answers = []
        for i in range(samples):
            _save(there["client"] / "sample.npy", inputs[i])
            role("encrypt", "encrypt", "sample.npy", "--key", "keys/secret.key", "--out", "request", makes=["request"])
            role("request", "request", "request", address, *_KEYS, "--out", "answer", makes=["answer"])
            role("decrypt", "decrypt", "answer", *_SECRET, "--request", "request", "--json", "outputs.json")
            answers.append(json.loads((there["client"] / "outputs.json").read_text())["outputs"])
    found = _compared(plain, answers)
    show_rows(
        ("role", "makes", "bytes", "seconds"),
        [
            (
                name if seconds is not None else "",
                makes,
                "" if size is None else f"{size:,}",
                "" if seconds is None else f"{seconds:.2f}",
            )
            for name, makes, size, seconds in rows
        ],
        words=2,
    )
    show(f"argmax equal to the plain network's: {found['equal']} of {samples}; largest error {found['error']:.2g}")
    show(f"written to {out}; seconds are of whole processes, their start included")
    if json_file is not None:
        from fewbits.job.folder import write_text

        names = ("role", "makes", "bytes", "seconds")
        told = [dict(zip(names, row, strict=True)) for row in rows]
        write_text(json_file, json.dumps({"roles": told, "samples": samples} | found, indent=1))


_MADE = ("keys/evaluation.keys", "keys/public.key", "keys/secret.key")
_KEYS = ("--keys", "keys/evaluation.keys")
_SECRET = ("--key", "keys/secret.key")


def _network(folder: Path, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and write the network; some inputs, and what it gives for them without encryption."""
    import torch

    import fewbits as fb
    from fewbits.data import digits

    (folder / "net.py").write_text(NETWORK)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    data = digits()
    torch.manual_seed(0)
    train = data.loader("train", 64, shuffle=True, seed=1)
    trained = fb.train(scope["net"](), train, epochs=6, lr=5e-3)
    small = fb.compress(trained, train, target="2 KB", recipe={"assign": {"method": "ecq"}, "train": {"epochs": 2}})
    small.save(folder / "net.few")
    network = fb.load(folder / "net.few", like=scope["net"]()).eval()
    inputs = next(iter(data.loader("validation", samples)))[0]
    with torch.no_grad():
        return inputs.numpy(), network(inputs).numpy()


@contextlib.contextmanager
def _server(folder: Path, arithmetic: Profiles) -> Iterator[tuple[str, float]]:
    """A server of the network; where it listens, and after how long."""
    start = time.perf_counter()
    command = ("serve", "net.few", "--network", "net.py:net", "--data", "digits", "--port", "0", "--workers", "1")
    process = subprocess.Popen(
        _command(*command, "--profile", arithmetic.value),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_STARTED):
                yield line.removeprefix(_STARTED).strip(), time.perf_counter() - start
                break
            say(line.rstrip())
        else:
            raise _failed("serve", process.communicate()[1])
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _run(folder: Path, *arguments: object) -> None:
    try:
        done = subprocess.run(_command(*arguments), cwd=folder, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise _failed(str(arguments[0]), f"it took more than {_PATIENCE:g} seconds") from None
    if done.returncode:
        raise _failed(str(arguments[0]), done.stderr)


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fewbits", "private", *map(str, arguments)]


def _failed(role: str, told: str) -> Exception:
    from fewbits.errors import PrivateError

    return PrivateError(f"{role} failed: {told.strip().removeprefix('error: ') or 'it said nothing'}")


def _save(path: Path, values: np.ndarray) -> None:
    import numpy as np

    np.save(path, values)


def _compared(plain: np.ndarray, answers: list[list[float]]) -> dict[str, Any]:
    import numpy as np

    found = np.asarray(answers)
    return {
        "equal": int((found.argmax(1) == plain.argmax(1)).sum()),
        "error": float(np.abs(found - plain).max()),
        "largest_output": float(np.abs(plain).max()),
    }
