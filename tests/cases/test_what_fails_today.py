"""Small inputs that people have and that go wrong today. Each becomes an ordinary test with the work that mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError, FewbitsError, NonFiniteError, RecipeError
from fewbits.recipe import load, make

Batches = list[tuple[Tensor, Tensor]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.bn(self.a(x))).mean((2, 3)))


@pytest.fixture
def batches() -> Batches:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(128) % 4
    x = torch.randn(128, 3, 8, 8, generator=draw) * 0.5 + y.view(-1, 1, 1, 1)
    return [(x[i : i + 32], y[i : i + 32]) for i in range(0, 128, 32)]


def compressed(model: nn.Module, data: Any, **values: Any) -> fb.Compressed:
    evaluate = values.pop("evaluate", None)
    plain: dict[str, Any] = {
        "train": {"epochs": 1, "lr": 1e-3}, "rounds": 2, "assign": {"method": "ecq", "lam": 0.1},
    }  # fmt: skip
    return fb.compress(model, data, evaluate=evaluate, recipe=make(plain | values))


def fails_until(what: str) -> Any:
    return pytest.mark.xfail(strict=True, reason=f"until {what}")


@fails_until("metrics say their scale")
@pytest.mark.parametrize("value", [0.9, float("nan"), None])
def test_a_metric_that_is_no_percent_is_refused(batches: Batches, value: Any) -> None:
    with pytest.raises(FewbitsError, match="percent"):
        compressed(
            Net(), batches, evaluate=lambda net: value, max_drop=1.0, pilots=0, assign={"method": "ecq"}, tries=0
        )


WRONG: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a class too many": lambda x, y: (x, torch.full_like(y, 4)),
    "a class below zero": lambda x, y: (x, torch.full_like(y, -1)),
    "no samples": lambda x, y: (x[:0], y[:0]),
    "a NaN": lambda x, y: (torch.full_like(x, float("nan")), y),
}


@fails_until("every batch is checked, not the first")
@pytest.mark.parametrize("what", WRONG)
def test_a_later_batch_is_checked_like_the_first(batches: Batches, what: str) -> None:
    batches[2] = WRONG[what](*batches[2])
    with pytest.raises(DataError, match="batch 3"):
        compressed(Net(), batches)


@fails_until("batches of any kind are fed")
@pytest.mark.parametrize(
    "kind",
    [
        lambda x, y: (x, y.int()),
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: {"x": x, "y": y},
        lambda x, y: (x, y, y),
    ],
    ids=["int32 classes", "NumPy", "a dict", "three parts"],
)
def test_batches_as_people_have_them(batches: Batches, kind: Callable[[Tensor, Tensor], Any]) -> None:
    assert compressed(Net(), [kind(x, y) for x, y in batches]).report.identical


@fails_until("a seeded loader resumes to the same bytes")
def test_a_seeded_loader_goes_on_to_the_same_bytes(batches: Batches, tmp_path: Path) -> None:
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    data = torch.utils.data.TensorDataset(x, y)
    recipe = make({"train": {"epochs": 3, "lr": 1e-2}, "rounds": 6, "assign": {"method": "ecq", "lam": 0.1}})
    torch.manual_seed(0)
    model, rounds = Net(), iter(range(9))

    def run(**more: Any) -> bytes:
        order = torch.Generator().manual_seed(5)
        loader = torch.utils.data.DataLoader(data, 16, shuffle=True, generator=order)
        return fb.compress(model, loader, recipe=recipe, **more).data

    def stop(done: int, total: int, line: str) -> None:
        if next(rounds) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(state_file=tmp_path / "state", progress=stop)
    assert run(state_file=tmp_path / "state") == run()


@fails_until("an error names the tensor that is not finite")
@pytest.mark.parametrize("method", ["ecq", "int8"])
@pytest.mark.parametrize(("buffer", "value"), [("running_var", float("nan")), ("running_mean", float("inf"))])
def test_a_statistic_that_is_not_finite_is_named(batches: Batches, method: str, buffer: str, value: float) -> None:
    model = Net()
    getattr(model.bn, buffer)[1] = value
    with pytest.raises(NonFiniteError, match=rf"bn\.{buffer}"):
        compressed(model, batches, assign={"method": method}, train=None)


@fails_until("a key may stand once")
def test_two_sections_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("schema: 2\ntrain: {epochs: 1}\ntrain: {epochs: 2}\n")
    with pytest.raises(RecipeError, match="train"):
        load(tmp_path / "a.yaml")


@fails_until("words of YAML are no numbers")
@pytest.mark.parametrize(
    "values",
    [
        {"max_drop": False},
        {"assign": {"lam": False}},
        {"prune": {"sparsity": True}},
        {"train": {"epochs": float("inf")}},
        {"target": "99999999999999 GB"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_is_no_number_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        make(values)


@fails_until("the output's name is checked")
@pytest.mark.parametrize("name", ["report.json", "float.safetensors", "../outside.few", "sub/net.few"])
def test_the_output_is_a_plain_new_name(name: str) -> None:
    with pytest.raises(RecipeError, match="output"):
        make({"output": name})


@fails_until("a network without memory is filled")
def test_a_network_on_meta_is_filled(batches: Batches, tmp_path: Path) -> None:
    compressed(Net(), batches, train=None).save(tmp_path / "net.few")
    with torch.device("meta"):
        like = Net()
    net = fb.load(tmp_path / "net.few", like=like)
    assert {value.device.type for value in net.state_dict().values()} == {"cpu"}


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


def weight_norm() -> nn.Module:
    net = Net()
    nn.utils.parametrizations.weight_norm(net.head)
    return net


def endless_mask() -> nn.Module:
    net = Net()
    net.register_buffer("mask", torch.full((4, 4), float("-inf")))
    return net


@fails_until("networks are taken as people have them")
@pytest.mark.parametrize("make_net", [frozen, weight_norm, endless_mask])
def test_networks_as_people_have_them(batches: Batches, make_net: Callable[[], nn.Module]) -> None:
    assert compressed(make_net(), batches).report.identical


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.f, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.f(x.mean((2, 3))))
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


@fails_until("relevance walks the autograd graph")
def test_relevance_goes_through_a_gate(batches: Batches) -> None:
    assert compressed(SqueezeExcite(), batches, assign={"method": "ecqx", "lam": 0.1}).report.identical
