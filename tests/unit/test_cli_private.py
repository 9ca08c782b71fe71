"""The commands of encrypted inference as a user meets them: files in, files out, and a sentence at every mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("tenseal.sealapi")

from test_cli import Ran, fewbits

from fewbits.codec import encode
from fewbits.plan import Dense, Plan
from fewbits.private.binding import sealed_profile
from private_programs import OUTPUTS, SAMPLE, Squares

SERVER = Path(__file__).parents[1] / "private_server.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client's folder: a profile, keys, two samples in one array, and what is none of these."""
    made = tmp_path_factory.mktemp("client")
    (made / "net.profile").write_bytes(sealed_profile(Squares.profile))
    np.save(made / "samples.npy", np.array([[0.5] * 8, SAMPLE]))
    np.save(made / "words.npy", np.array(["a", "b"]))
    (made / "empty").touch()
    ran = fewbits("private", "keygen", made / "net.profile", "--out", made / "keys", "--with-mac")
    assert ran.code == 0, ran.err
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(folder), "{}"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield f"127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.communicate()


def private(*arguments: object) -> Ran:
    return fewbits("private", *arguments)


def test_only_the_owner_can_read_what_is_secret(folder: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "keys").iterdir()}
    assert set(modes) == {"secret.key", "public.key", "evaluation.keys", "mac.key"}
    assert modes["secret.key"] == modes["mac.key"] == 0o600
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700


def test_from_a_sample_to_its_outputs(folder: Path, address: str, tmp_path: Path) -> None:
    keys = folder / "keys"
    ran = private("profile", address, "--out", tmp_path / "net.profile")
    assert (tmp_path / "net.profile").read_bytes() == (folder / "net.profile").read_bytes()
    assert "degree 4,096, 3 primes of 106.0 bits together (128-bit security), 2 rotations" in ran.out
    for key in ("secret.key", "public.key"):
        sample = ("encrypt", folder / "samples.npy", "--index", 1, "--key", keys / key, "--out", tmp_path / "request")
        assert private(*sample).code == 0
        evaluation = ("--keys", keys / "evaluation.keys") if key == "secret.key" else ()
        ran = private("request", tmp_path / "request", address, *evaluation, "--out", tmp_path / "answer")
        assert ran.code == 0, ran.err
        assert ("keys sent before" in ran.out) == bool(evaluation)
        ran = private(
            *("decrypt", tmp_path / "answer", "--key", keys / "secret.key", "--request", tmp_path / "request"),
            *("--out", tmp_path / "outputs.npy", "--json", tmp_path / "outputs.json"),
        )
        assert ran.code == 0, ran.err
        assert ran.out.startswith("largest output: 7 (1")
        figures = json.loads((tmp_path / "outputs.json").read_text())
        assert figures["argmax"] == 7
        for found in (figures["outputs"], np.load(tmp_path / "outputs.npy")):
            assert np.abs(np.array(found) - OUTPUTS).max() < 1e-3
        assert {stat.S_IMODE((tmp_path / f"outputs.{end}").stat().st_mode) for end in ("npy", "json")} == {0o600}


def test_every_mistake_is_a_sentence(folder: Path, address: str, tmp_path: Path) -> None:
    keys, out = folder / "keys", ("--out", tmp_path / "made")
    secret, public, evaluation = (keys / name for name in ("secret.key", "public.key", "evaluation.keys"))
    request = tmp_path / "request"
    sample = folder / "samples.npy"
    assert private("encrypt", sample, "--index", 0, "--key", secret, "--out", request).code == 0
    for words, *arguments in (
        ("has secret.key, public.key, evaluation.keys already", "keygen", folder / "net.profile", "--out", keys),
        ("empty is cut off: 0 bytes", "keygen", folder / "empty", *out),
        ("cannot read .*nowhere", "keygen", tmp_path / "nowhere", *out),
        ("secret.key is a secret key; wanted is a profile", "keygen", secret, *out),
        ("cannot make the folder", "keygen", folder / "net.profile", "--out", folder / "empty" / "keys"),
        (r"evaluation keys; wanted is a secret key or a public key", "encrypt", sample, "--key", evaluation, *out),
        (r"a sample has shape \(8,\), got \(2, 8\)", "encrypt", sample, "--key", secret, *out),
        (r"no sample 2: its shape is \(2, 8\)", "encrypt", sample, "--index", 2, "--key", secret, *out),
        ("is no .npy file", "encrypt", folder / "net.profile", "--key", secret, *out),
        ("holds no array of real numbers", "encrypt", folder / "words.npy", "--key", secret, *out),
        ("cannot be written", "encrypt", sample, "--index", 0, "--key", secret, "--out", tmp_path),
        ("secret.key is a secret key; wanted is a request", "request", secret, address, *out),
        ("secret.key is a secret key; wanted is evaluation keys", "request", request, address, "--keys", secret, *out),
        ("no server at 127.0.0.1:1: ", "request", request, "127.0.0.1:1", *out),
        ("write HOST:PORT", "request", request, "127.0.0.1", *out),
        ("write HOST:PORT", "request", request, "127.0.0.1:99999", *out),
        ("is a request; wanted is an answer", "decrypt", request, "--key", secret),
        ("a public key encrypts only", "decrypt", request, "--key", public),
        ("wanted is a MAC key", "decrypt", request, "--key", secret, "--mac", public),
        ("has no MAC, and one is wanted", "request", request, address, "--mac", keys / "mac.key", *out),
        ("give --recipe, or --network and --data", "profile", tmp_path / "net.few", *out),
        ("no certificates to trust in", "profile", address, "--tls-trust", folder / "empty", *out),
        ("no server at .*SSL", "profile", address, "--tls", *out),
    ):
        ran = private(*arguments)
        assert ran.code == 2, (arguments, ran)
        assert re.fullmatch(f"error: .*{words}.*\n", ran.err), (words, ran.err)
        assert ran.out == ""
        assert not (tmp_path / "made").exists()
    assert secret.stat().st_size > 60_000  # and the keys are still there


def test_keys_that_the_server_does_not_have_must_be_given(folder: Path, address: str, tmp_path: Path) -> None:
    assert private("keygen", folder / "net.profile", "--out", tmp_path / "keys").code == 0
    made = ("--index", 0, "--key", tmp_path / "keys" / "secret.key", "--out", tmp_path / "request")
    assert private("encrypt", folder / "samples.npy", *made).code == 0
    ran = private("request", tmp_path / "request", address, "--out", tmp_path / "answer")
    assert ran.code == 2
    assert "the server says: there are no evaluation keys" in ran.err
    ran = private("keygen", folder / "net.profile", "--out", tmp_path / "keys", "--force")
    assert ran.code == 0


def test_without_the_extra_there_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenseal", None)
    monkeypatch.setitem(sys.modules, "tenseal.sealapi", None)
    for command in (("keygen", folder / "net.profile", "--out", folder / "more"), ("demo", "--out", folder / "demo")):
        ran = private(*command)
        assert ran.code == 2
        assert ran.err == "error: encrypted inference needs tenseal: pip install 'fewbits[private]'\n"
        assert not (folder / "demo").exists()


def test_serving_says_what_is_wrong_before_it_begins(folder: Path, tmp_path: Path) -> None:
    for words, *options in (
        ("cannot read", "--network", "lenet-300-100", "--data", "digits"),
        ("give --recipe, or --network and --data",),
        ("go with --tls-cert", "--tls-key", tmp_path / "key.pem"),
        ("no certificate with its key in", "--tls-cert", tmp_path / "cert.pem"),
        ("cannot read", "--mac", tmp_path / "mac.key"),
        ("'slow' is not one of 'precise', 'fast'", "--profile", "slow"),
        ("--workers", "--workers", 0),
        ("holds a secret key", "--keys", folder / "keys" / "secret.key"),
    ):
        ran = private("serve", tmp_path / "net.few", *options)
        assert ran.code == 2, ran
        assert words in ran.err
        assert ran.err.startswith("error: ")


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.two(self.one(x) ** 2)

def loaders():
    data = torch.rand(64, 16, generator=torch.Generator().manual_seed(1)), torch.zeros(64, dtype=torch.long)
    return [data], [data]
"""


def test_a_network_is_served_by_one_process_and_asked_by_another(tmp_path: Path) -> None:
    """Until Ctrl-C; a second server of the same port is refused."""
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    torch.manual_seed(0)
    model = scope["Net"]()
    (tmp_path / "net.py").write_text(NETWORK)
    few, out = tmp_path / "net.few", {name: tmp_path / name for name in ("profile", "keys", "request", "answer")}
    few.write_bytes(encode(Plan({name: Dense(tensor) for name, tensor in model.state_dict().items()})))
    own = ("--network", f"{tmp_path / 'net.py'}:Net", "--data", f"{tmp_path / 'net.py'}:loaders")
    process = subprocess.Popen(
        [sys.executable, "-m", "fewbits", "private", "serve", str(few), *own, "--port", "0", "--workers", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1].startswith("listening on 127.0.0.1:"), process.communicate()[1]
        address = lines[1].split()[-1]
        samples = scope["loaders"]()[0][0][0]
        np.save(tmp_path / "samples.npy", samples.numpy())
        secret = ("--key", out["keys"] / "secret.key")
        for command in (
            ("profile", few, *own, "--out", out["profile"]),
            ("keygen", out["profile"], "--out", out["keys"]),
            ("encrypt", tmp_path / "samples.npy", "--index", 5, *secret, "--out", out["request"]),
            ("request", out["request"], address, "--keys", out["keys"] / "evaluation.keys", "--out", out["answer"]),
            ("decrypt", out["answer"], *secret, "--request", out["request"], "--out", tmp_path / "outputs.npy"),
        ):
            ran = private(*command)
            assert ran.code == 0, ran.err
        wanted = model(samples[5:6]).detach().numpy()[0]
        assert np.abs(np.load(tmp_path / "outputs.npy") - wanted).max() < 0.02 * np.abs(wanted).max()
        ran = private("serve", few, *own, "--port", address.split(":")[1])
        assert (ran.code, ran.err) == (
            2,
            f"error: port {address.split(':')[1]} of 127.0.0.1 is in use: give another port, or 0 for a free one\n",
        )
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: its workers get it, too
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert told.endswith("stopped after 1 answers\n")
        assert "Traceback" not in told
        assert "worker" not in told
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_the_demo_runs_all_roles_as_processes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    ran = private("demo", "--out", tmp_path, "--samples", 1, "--json", tmp_path / "figures.json")
    assert ran.code == 0, ran.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["equal"] == figures["samples"] == 1
    assert figures["error"] < 0.02 * figures["largest_output"]
    roles = [row["role"] for row in figures["roles"] if row["seconds"] is not None]
    assert roles == ["serve", "profile", "keygen", "encrypt", "request", "decrypt"]
    sizes = {row["makes"]: row["bytes"] for row in figures["roles"] if row["makes"]}
    assert sizes["keys/evaluation.keys"] > sizes["keys/public.key"] > sizes["keys/secret.key"] > 100_000
    lines = ran.out.splitlines()[1:9]
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == roles
    assert {path.name for path in (tmp_path / "server").iterdir()} >= {"net.few", "net.py"}
    assert not list((tmp_path / "server").glob("**/*.key"))


def test_the_page_names_commands_and_options_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "private-inference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^fewbits private (\w+)(.*)$", page, re.MULTILINE))
    assert {command for command, _ in named} == {
        *("demo", "serve", "profile", "keygen", "encrypt", "request", "decrypt"),
    }
    helps = {command: private(command, "--help").out for command, _ in named}
    for command, rest in named:
        for option in re.findall(r"--[\w-]+", rest.partition("#")[0]):
            assert f"{option} " in helps[command], (command, option)
    known = " ".join(helps.values())
    for option in re.findall(r"`(--[\w-]+)`", page):
        assert f"{option} " in known, option
