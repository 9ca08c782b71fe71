"""A server's memory and files are searched for the secret key, the plain input and the plain output.

The same search of the client's process finds them: it can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from memory import in_files, in_memory, readable

from fewbits.private.connection import Connection
from fewbits.private.envelope import Kind, opened
from fewbits.private.keys import Keys, generate, open_key
from fewbits.private.parts import split
from fewbits.private.serial import _plain, to_bytes
from private_programs import SAMPLE, small_program

pytestmark = pytest.mark.skipif(not readable(), reason="memory of processes cannot be read here")
TESTS = Path(__file__).parents[1]
CLIENT = """
import sys
from pathlib import Path
import numpy as np
from fewbits.private.client import Client
from fewbits.private.connection import Connection

folder, port = Path(sys.argv[1]), int(sys.argv[2])
client = Client((folder / "secret.key").read_bytes())
sample = np.load(folder / "sample.npy")
with Connection("127.0.0.1", port) as server:
    server.upload((folder / "evaluation.keys").read_bytes())
    for _ in range(2):
        outputs = client.decrypt(server.request(client.encrypt(sample)))
np.save(folder / "outputs.npy", outputs)
print("done", flush=True)
sys.stdin.read()
"""


def python(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    found: dict[str, subprocess.Popen[str]] = {}
    yield found
    for each in found.values():
        each.kill()
        each.communicate()


def secret_needles(keys: Keys) -> dict[str, bytes]:
    """Windows of the coefficients as SEAL computes with them, and of its compressed form as files have it."""
    opened = open_key(keys.secret, Kind.SECRET_KEY)
    packed = to_bytes(opened.key)
    plain = _plain(memoryview(packed), 1 << 24, "the key")
    found = {f"coefficients {at}": plain[-at : -at + 64] for at in range(128, len(plain) - 1024, len(plain) // 2)}
    return found | {"file": packed[len(packed) // 2 :][:64]}


def test_the_server_has_neither_key_nor_input_nor_output(
    tmp_path: Path, processes: dict[str, subprocess.Popen[str]]
) -> None:
    ours, theirs = tmp_path / "client", tmp_path / "server"
    for folder in (ours, theirs):
        folder.mkdir()
    profile = small_program().profile
    keys = generate(profile)
    sample = np.random.default_rng(0).uniform(-1, 1, np.shape(SAMPLE))
    np.save(ours / "sample.npy", sample)
    (ours / "secret.key").write_bytes(keys.secret)
    (ours / "evaluation.keys").write_bytes(keys.evaluation)

    server = processes["server"] = python(
        TESTS / "private_server.py", theirs, json.dumps({"workers": 1}), folder=theirs
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    client = processes["client"] = python("-c", CLIENT, ours, port, folder=ours)
    assert client.stdout is not None
    assert client.stdout.readline() == "done\n"

    outputs = np.load(ours / "outputs.npy")
    needles = secret_needles(keys) | {
        "input": sample.tobytes()[:64],
        "input in float32": sample.astype(np.float32).tobytes()[:64],
        "output": outputs.tobytes()[:64],
    }
    assert all(len(needle) >= 32 and len(set(needle)) > 8 for needle in needles.values())
    assert set(needles) - in_memory(client.pid, needles) <= {"input in float32", "file"}  # read, and let go of
    assert "file" in in_files(ours, needles)
    galois = split(opened(keys.evaluation, Kind.EVALUATION_KEYS).payload, 3, "keys")[2]
    theirs_only = {"evaluation keys": galois[1000:1064].tobytes()}
    assert in_files(theirs, needles | theirs_only) == set(theirs_only)
    assert in_memory(server.pid, needles) == set()
    with Connection("127.0.0.1", port) as connection:
        connection.profile()
