"""Published weights: fetched from a server on this machine, verified, kept."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from fewbits import zoo
from fewbits.errors import DataError, RecipeError
from fewbits.zoo import trained as module
from fewbits.zoo.trained import Published, fetch_weights, weights_file


def checkpoint() -> bytes:
    state = {f"module.{k}": v for k, v in zoo.build("resnet-20", seed=3).state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "best_prec1": 91.7}, buffer)
    return buffer.getvalue()


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", files
    httpd.shutdown()
    httpd.server_close()


def publish(monkeypatch, url: str, data: bytes) -> None:
    entry = Published(url, hashlib.sha256(data).hexdigest(), {"normalise": "mean .5 .5 .5 std .1 .2 .3"})
    monkeypatch.setattr(module, "PUBLISHED", {"resnet-20": entry})


def test_fetched_weights_load_and_stay(server, monkeypatch, tmp_path) -> None:
    address, files = server
    data = files["/net.th"] = checkpoint()
    publish(monkeypatch, f"{address}/net.th", data)
    path = fetch_weights("resnet-20", tmp_path)
    assert path == weights_file("resnet-20", tmp_path)
    net = zoo.build("resnet-20", seed=0)
    metadata = zoo.load_weights(net, path)
    assert zoo.normalisation(metadata).std == (0.1, 0.2, 0.3)
    for name, tensor in zoo.build("resnet-20", seed=3).state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor)
    files.clear()
    assert fetch_weights("resnet-20", tmp_path) == path  # no second download


def test_another_file_is_refused(server, monkeypatch, tmp_path) -> None:
    address, files = server
    publish(monkeypatch, f"{address}/net.th", checkpoint())
    files["/net.th"] = b"something else"
    with pytest.raises(DataError, match="not the published file"):
        fetch_weights("resnet-20", tmp_path)
    assert not weights_file("resnet-20", tmp_path).exists()


def test_a_checkpoint_that_wants_to_run_code_is_refused(server, monkeypatch, tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    address, files = server
    buffer = io.BytesIO()
    torch.save({"state_dict": Evil()}, buffer)
    data = files["/net.th"] = buffer.getvalue()
    publish(monkeypatch, f"{address}/net.th", data)
    with pytest.raises(DataError, match="read safely"):
        fetch_weights("resnet-20", tmp_path)


def test_missing_and_unknown(server, monkeypatch, tmp_path) -> None:
    address, _ = server
    publish(monkeypatch, f"{address}/gone.th", b"")
    with pytest.raises(DataError, match="cannot fetch"):
        fetch_weights("resnet-20", tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'resnet-20'"):
        fetch_weights("resnet20", tmp_path)
