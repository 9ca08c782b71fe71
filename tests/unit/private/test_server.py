"""A server as a process: what it takes, whom it refuses, and that it lives on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewbits.errors import AuthenticationError, DamagedError, KindError, ParametersError, PrivateError, ServerError
from fewbits.private.address import listen
from fewbits.private.client import Client
from fewbits.private.connection import Connection
from fewbits.private.envelope import HASH, HEAD, Envelope, Kind
from fewbits.private.handler import Handler
from fewbits.private.keys import Keys, generate
from fewbits.private.messages import BusyError, UnknownKeyError, answered
from fewbits.private.server import Server, _write
from fewbits.private.tls import client_tls

SCRIPT = Path(__file__).parents[2] / "private_server.py"
MAC = bytes(range(32))


class Running:
    def __init__(self, folder: Path, options: dict[str, Any], keys: list[Path]) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), json.dumps(options), *map(str, keys)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.port = int(line)

    def connect(self, **options: Any) -> Connection:
        return Connection("127.0.0.1", self.port, **{"seconds": 60.0, **options})

    def do(self, name: str) -> None:
        (self.folder / name).touch()

    def stop(self, how: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(how)
        told = self.process.communicate(timeout=60)[1]
        return self.process.returncode, told


@pytest.fixture
def start(tmp_path: Path, keys: Keys) -> Iterator[Callable[..., Running]]:
    """Starts a server that has the client's keys already; ends it."""
    started: list[Running] = []
    (tmp_path / "evaluation.keys").write_bytes(keys.evaluation)

    def make(given: bool = True, **options: Any) -> Running:
        started.append(Running(tmp_path, options, [tmp_path / "evaluation.keys"] if given else []))
        return started[-1]

    yield make
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def exact(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max() < 1e-3)


def test_a_client_sends_keys_and_requests_and_goes_again(
    start: Callable[..., Running], client: Client, keys: Keys, sample: np.ndarray, handler: Handler
) -> None:
    server = start(given=False)
    wanted = handler_outputs(handler, client, keys, sample)
    request = client.encrypt(sample)
    with server.connect() as connection:
        assert connection.profile().as_dict() == client.profile.as_dict()
        with pytest.raises(UnknownKeyError, match=client.id.hex()):
            connection.request(request)
        connection.upload(keys.evaluation)
        assert exact(client.decrypt(connection.request(request), request), wanted)
    with server.connect() as first, server.connect() as second:  # both workers come to have the keys
        for connection in (first, second, second, first):
            assert exact(client.decrypt(connection.request(request)), wanted)
    assert list(server.folder.glob("fewbits-keys-*/*")) != []
    code, told = server.stop()
    assert code == 0
    assert told.count("an answer") == 5
    assert list(server.folder.glob("fewbits-keys-*")) == []


def handler_outputs(handler: Handler, client: Client, keys: Keys, sample: np.ndarray) -> np.ndarray:
    handler(keys.evaluation)
    return client.decrypt(handler(client.encrypt(sample)))


def test_bad_messages_end_their_own_connection_only(
    start: Callable[..., Running], client: Client, keys: Keys, sample: np.ndarray
) -> None:
    """One good client stays connected through all that others do."""
    server = start(receive_seconds=3.0)
    request = client.encrypt(sample)
    long = bytearray(Envelope(Kind.REQUEST, b"").sealed())
    long[12:20] = (1 << 50).to_bytes(8, "big")
    cases: list[tuple[bytes, type[PrivateError], str]] = [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + bytes(100), DamagedError, "no file of private inference"),
        (keys.secret, KindError, "holds a secret key"),
        (keys.public, KindError, "takes none"),
        (bytes(long), DamagedError, "1,125,899,906,842,7.* at most"),
        (request[:-1], ServerError, "no whole message"),
        (request[:40], ServerError, "no whole message"),
        (request[:-1] + bytes([request[-1] ^ 1]), DamagedError, "SHA-256"),
        (keys.evaluation[:-5000] + bytes(5000), DamagedError, "SHA-256"),
    ]
    for message, error, words in cases:
        with server.connect() as bad, pytest.raises(error, match=f"the server says: .*{words}"):
            answered(bad._exchanged(message), Kind.ANSWER, None)
        with server.connect() as good:
            client.decrypt(good.request(request))
    with server.connect() as gone:  # hangs up in the middle
        gone._socket.sendall(keys.evaluation[:1000])
    with server.connect() as good:
        client.decrypt(good.request(request))
    with server.connect() as good:  # what is wrong inside of a sound frame leaves the connection as it is
        with pytest.raises(DamagedError):
            answered(good._exchanged(cases[-2][0]), Kind.ANSWER, None)
        client.decrypt(good.request(request))
    assert server.stop()[0] == 0
    assert list(server.folder.glob("fewbits-keys-*")) == []


def test_a_worker_that_dies_or_takes_too_long_is_replaced(
    start: Callable[..., Running], client: Client, sample: np.ndarray
) -> None:
    server = start(workers=1, compute_seconds=4.0)
    request = client.encrypt(sample)
    for name, words in (("die", "died"), ("sleep", "took longer than 4 seconds"), ("die", "died")):
        server.do(name)
        with server.connect() as connection, pytest.raises(ServerError, match=words):
            connection.request(request)
        with server.connect() as connection:
            client.decrypt(connection.request(request), request)
    assert server.stop()[0] == 0


def test_clients_and_requests_beyond_the_bounds_are_told(
    start: Callable[..., Running], client: Client, sample: np.ndarray
) -> None:
    server = start(clients=2, workers=1, queue=0, compute_seconds=30.0)
    request = client.encrypt(sample)
    with server.connect() as first, server.connect() as second:
        client.decrypt(second.request(request))
        with pytest.raises(BusyError, match="2 clients already"), server.connect() as third:
            third.request(request)
        server.do("sleep")
        first._socket.sendall(request)
        until(lambda: not (server.folder / "sleep").exists())
        with pytest.raises(BusyError, match="wait for 1 workers"):
            second.request(request)
    assert server.stop()[0] == 0  # though a worker still sleeps


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def children(process: int) -> list[int]:
    return [int(name) for name in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes there")
def test_a_server_that_is_killed_in_mid_request_is_said_so(
    start: Callable[..., Running], client: Client, sample: np.ndarray
) -> None:
    server = start()
    server.do("sleep")
    workers = children(server.process.pid)
    assert len(workers) == 2

    def killed() -> None:
        until(lambda: not (server.folder / "sleep").exists())
        with server.connect() as other:  # the other worker goes on meanwhile
            client.decrypt(other.request(client.encrypt(sample)))
        server.process.kill()

    with server.connect() as connection, ThreadPoolExecutor() as threads:
        done = threads.submit(killed)
        with pytest.raises(ServerError, match=re.escape(f"127.0.0.1:{server.port}")):
            connection.request(client.encrypt(sample))
        done.result()
    server.process.communicate()
    until(lambda: not any(map(alive, workers)))  # also the one that sleeps for a minute
    (left,) = server.folder.glob("fewbits-keys-*")
    alive_too = start()
    assert left.exists()  # it may be of a server that is just beginning
    for folder in server.folder.glob("fewbits-keys-*"):
        os.utime(folder, (0, 0))
    start()
    assert not left.exists()  # the next server cleans up, but for who is alive
    assert len(list(server.folder.glob("fewbits-keys-*"))) == 2
    assert alive_too.stop()[0] == 0
    with pytest.raises(ServerError, match="no server at"), server.connect():
        pass


def test_a_port_in_use_and_an_impossible_host_are_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} of 127.0.0.1 is in use: give another port"):
            listen("127.0.0.1", port)
    with pytest.raises(ServerError, match="cannot listen on no such host"):
        listen("no such host", 0)
    with pytest.raises(ServerError, match="cannot listen"):
        listen("127.0.0.1", 70000)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="is a full disk")
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(ServerError, match="cannot keep keys: No space"):
        _write(file, b"keys")


def test_a_server_refuses_files_of_a_secret_key(program: Any, keys: Keys, tmp_path: Path) -> None:
    place = tmp_path / "evaluation.keys"
    for data in (keys.secret, b"PK archive" + keys.secret + b"rest", keys.evaluation + keys.secret):
        place.write_bytes(data)
        with pytest.raises(KindError, match=r"evaluation\.keys holds a secret key"):
            Server(program).run(listen("127.0.0.1", 0), keys=[place])
    for data, error, words in (
        (keys.public, KindError, "is a public key; wanted is evaluation keys"),
        (generate(dataclasses.replace(program.profile, rotations=(4,))).evaluation, ParametersError, "another network"),
        (b"", DamagedError, "cut off"),
    ):
        place.write_bytes(data)
        with pytest.raises(error, match=words):
            Server(program).run(listen("127.0.0.1", 0), keys=[place])


def test_with_a_mac_only_those_who_share_it_are_heard(
    start: Callable[..., Running], client: Client, keys: Keys, sample: np.ndarray
) -> None:
    server = start(mac=MAC.hex())
    shared = Client(keys.secret, MAC)
    request = shared.encrypt(sample)
    with server.connect(mac_key=MAC) as connection:
        connection.profile()
        connection.upload(keys.evaluation)
        answer = connection.request(request)
        shared.decrypt(answer, request)
    with pytest.raises(AuthenticationError, match="no key to check it"):
        client.decrypt(answer)
    with server.connect() as connection, pytest.raises(AuthenticationError):
        connection.profile()
    forged = Envelope(Kind.REQUEST, request[HEAD.size : -2 * HASH], key=keys.id).sealed(bytes(32))
    with server.connect(mac_key=MAC) as connection, pytest.raises(AuthenticationError, match="wrong MAC"):
        answered(connection._exchanged(forged), Kind.ANSWER, MAC)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_tls_checks_who_the_server_is(
    start: Callable[..., Running], client: Client, sample: np.ndarray, tmp_path: Path
) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here -keyout"
    with contextlib.chdir(tmp_path):
        subprocess.run(
            [*command.split(), "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True,
            capture_output=True,
        )
    server = start(tls=[str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")])
    with server.connect(tls=client_tls(tmp_path / "cert.pem")) as connection:
        client.decrypt(connection.request(client.encrypt(sample)))
    with pytest.raises(ServerError, match="certificate verify failed"), server.connect(tls=client_tls()):
        pass
    mutual = start(tls=[str(tmp_path / name) for name in ("cert.pem", "key.pem", "cert.pem")])
    known = client_tls(tmp_path / "cert.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    with mutual.connect(tls=known) as connection:
        connection.profile()
    with pytest.raises(ServerError), mutual.connect(tls=client_tls(tmp_path / "cert.pem")) as connection:
        connection.profile()
    with server.connect() as plain, pytest.raises(ServerError, match=r"127\.0\.0\.1"):
        plain.profile()
    with pytest.raises(PrivateError, match=r"no certificates to trust in .*key\.pem"):
        client_tls(tmp_path / "key.pem")
    with pytest.raises(PrivateError, match="no certificate with its key"):
        client_tls(tmp_path / "cert.pem", tmp_path / "cert.pem")
    assert server.stop()[0] == 0
