"""Files on a hub, against a stand-in of its client that keeps them in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import FileError, MissingExtraError, RecipeError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub in a folder."""

    class HfApi:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            assert exist_ok
            (tmp_path / repo).mkdir(parents=True, exist_ok=True)

        def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str) -> None:
            (tmp_path / repo_id / path_in_repo).write_bytes(path_or_fileobj)

    def hf_hub_download(repo: str, name: str, *, revision: str | None = None) -> str:
        path = tmp_path / repo / name
        if not path.is_file():
            raise LookupError(f"404: no {name}\nin {repo}")
        return str(path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi, hf_hub_download=hf_hub_download))
    return tmp_path


def compressed() -> fb.Compressed:
    batches = [(torch.randn(8, 4), torch.randint(3, (8,)))]
    recipe: dict[str, Any] = {"assign": {"method": "ecq", "lam": 0.05}, "train": None}
    return fb.compress(network(), batches, recipe=recipe)


def test_what_is_pushed_is_loaded_again(client: Path) -> None:
    small = compressed()
    assert small.push_to_hub("me/net") == "hf://me/net"
    assert {path.name for path in (client / "me" / "net").iterdir()} == {"net.few", "report.json", "README.md"}
    card = (client / "me" / "net" / "README.md").read_text()
    assert 'fb.load("hf://me/net"' in card
    assert str(small.report.file_bytes) in card
    for address in ("hf://me/net", "hf://me/net@main", "hf://me/net/net.few"):
        net = fb.load(address, like=network())
        assert torch.equal(net[0].weight, small.into(network())[0].weight)


@pytest.mark.parametrize("repo", ["net", "a/b/c", "a/b@c", "", "../x/y"])
def test_no_repository(client: Path, repo: str) -> None:
    with pytest.raises(RecipeError, match="owner/name"):
        compressed().push_to_hub(repo)


def test_what_is_not_there(client: Path) -> None:
    with pytest.raises(FileError, match=r"hf://me/other cannot be had: 404: no net\.few in me/other"):
        fb.load("hf://me/other", like=network())
    with pytest.raises(RecipeError, match="owner/name"):
        fb.load("hf://me", like=network())


def test_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"fewbits\[hub\]"):
        fb.load("hf://me/net", like=network())
