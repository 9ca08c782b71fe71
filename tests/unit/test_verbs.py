"""What the command line does with a file, from Python; and the bar that it shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError, FewbitsError, MismatchError, RecipeError
from fewbits.pipeline import _bar
from fewbits.recipe import make
from fewbits.task import accuracy


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.max_pool2d(torch.relu(self.conv(x)), 2).flatten(1))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(12, 1, 8, 8, generator=generator), torch.randint(3, (12,), generator=generator)) for _ in range(3)
    ]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def file(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe: dict[str, Any] = {"assign": {"method": "ecq", "lam": 0.05}, "train": None}
    path = tmp_path_factory.mktemp("verbs") / "net.few"
    fb.compress(model, batches(), recipe=recipe).save(path)
    return path


def test_inspect_takes_a_path_bytes_or_a_compression(file: Path, model: nn.Module) -> None:
    found = fb.inspect(file)
    assert found.file_bytes == file.stat().st_size
    assert {t.name for t in found.tensors} == set(model.state_dict())
    assert fb.inspect(str(file)) == fb.inspect(file.read_bytes()) == found
    with pytest.raises(FewbitsError, match=r"net\.fwe"):
        fb.inspect(file.with_suffix(".fwe"))


def test_verify_decodes_and_says_how_good_it_is(file: Path) -> None:
    like = Net()
    before = {name: tensor.clone() for name, tensor in like.state_dict().items()}
    found = fb.verify(file, like, evaluate=batches())
    assert (found.bytes, found.tensors) == (file.stat().st_size, 4)
    assert found.score == pytest.approx(accuracy(fb.load(file, like=Net()), batches()))
    assert fb.verify(file, like).score is None
    assert fb.verify(file, like, evaluate=lambda net: 0.25, metric="loss").score == 0.25
    assert all(torch.equal(before[name], tensor) for name, tensor in like.state_dict().items())
    with pytest.raises(MismatchError):
        fb.verify(file, nn.Sequential(nn.Linear(2, 2)))


def test_explain_says_what_is_left_of_what_mattered(file: Path, model: nn.Module) -> None:
    found = fb.explain(model, file, batches())
    assert [layer.name for layer in found.layers] == ["conv.weight", "head.weight"]
    assert found.samples == 36
    assert found.maps
    assert found.agreement is not None
    assert found.accuracy_before == pytest.approx(accuracy(model, batches()))
    numbers = [(x, torch.randn(12, 3)) for x, _ in batches()]
    fitted = fb.explain(model, file, numbers, task="regression")
    assert fitted.agreement is None
    assert fitted.metric == "loss"
    assert not fitted.maps


def test_export_goes_by_the_suffix(file: Path, tmp_path: Path) -> None:
    size = fb.export(file, tmp_path / "net.safetensors")
    assert size == (tmp_path / "net.safetensors").stat().st_size
    net = fb.load(file, like=Net())
    assert torch.equal(load_file(tmp_path / "net.safetensors")["head.weight"], net.head.weight)
    with pytest.raises(RecipeError, match=r"did you mean '\.onnx'"):
        fb.export(file, tmp_path / "net.onx")
    with pytest.raises(RecipeError, match="like="):
        fb.export(file, tmp_path / "net.onnx")


def test_export_to_onnx(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert fb.export(file, tmp_path / "net.onnx", like=Net(), inputs=batches()[0][0]) > 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> None:
    recipe: dict[str, Any] = {"assign": {"method": "ecq", "lam": 0.05}, "train": {"epochs": 1}, "rounds": 3}

    def shown(stream: io.StringIO, **options: Any) -> str:
        monkeypatch.setattr("sys.stderr", stream)
        fb.compress(model, batches(), recipe=recipe, **options)
        return stream.getvalue()

    assert "100 %" in shown(Terminal())
    assert shown(Terminal(), progress=None) == ""
    assert shown(io.StringIO()) == ""
    seen: list[tuple[int, int, str]] = []
    assert shown(Terminal(), progress=lambda *told: seen.append(told)) == ""
    assert seen[-1][:2] == (3, 3)


def test_one_bar_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(Accelerator, "is_main_process", property(lambda self: False))
    with _bar.telling("bar", Accelerator()) as told:
        assert told is None


def test_a_string_is_no_list_of_batches(model: nn.Module) -> None:
    with pytest.raises(DataError, match="holds no batches"):
        fb.compress(model, "train.npy")


class Tied(nn.Module):
    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        if shared:
            self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(1))


def test_two_tensors_do_not_go_into_a_network_that_shares_them() -> None:
    """The last one would win, without a word."""
    small = fb.compress(Tied(shared=False), recipe=make({"assign": {"method": "ecq", "lam": 0.0}}), progress=None)
    with pytest.raises(MismatchError, match=r"'table.weight' and 'head.weight' are one tensor of the network"):
        fb.load(small.data, like=Tied(shared=True))
    same = Tied(shared=False)
    same.head.load_state_dict(same.table.state_dict())
    small = fb.compress(same, recipe=make({"assign": {"method": "ecq", "lam": 0.0}}), progress=None)
    x = torch.arange(6).view(2, 3)
    assert torch.equal(fb.load(small.data, like=Tied(shared=True))(x), fb.load(small.data, like=Tied(shared=False))(x))


def test_verify_takes_a_task_as_compress_does() -> None:
    data = [(torch.arange(6).view(2, 3), torch.tensor([0, 1]))]
    small = fb.compress(Tied(shared=True), recipe=make({"assign": {"method": "ecq", "lam": 0.0}}), progress=None)
    task = {"name": "classification", "options": {}}
    named = fb.verify(small.data, like=Tied(shared=True), evaluate=data, task="classification")
    assert fb.verify(small.data, like=Tied(shared=True), evaluate=data, task=task) == named
