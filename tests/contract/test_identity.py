"""A tensor that modules share is one: in every method, whatever the order in which the modules are defined."""

from __future__ import annotations

import copy
import gzip
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits import codec
from fewbits.attach import attach, evaluating, fold, held, plan_of
from fewbits.channel_masks import ChannelMasks
from fewbits.channels import prune_channels
from fewbits.errors import MismatchError
from fewbits.plan import Clustered, Dense, Masked, Plan
from fewbits.weights import aliases, parameters_of, places, select

D = 6


class Pair(nn.Module):
    """Two linear layers with one weight, of which the second defined is used first, or the first."""

    def __init__(self, turned: bool = False, tied: bool = True) -> None:
        super().__init__()
        self.front, self.a, self.b = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.norm, self.head = nn.BatchNorm1d(D), nn.Linear(D, 3)
        self.turned = turned
        if tied:
            self.a.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.b, self.a) if self.turned else (self.a, self.b)
        return self.head(torch.relu(second(torch.relu(self.norm(first(self.front(x)))))))


class Twice(nn.Module):
    """One layer under two paths."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.front, self.one = nn.Linear(D, D), nn.Linear(D, D)
        self.two = self.one if tied else nn.Linear(D, D)
        self.head = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(self.front(x))))))


class Outer(nn.Module):
    """A weight of the network itself that a layer inside computes with as well."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, D))
        self.inner, self.head = nn.Linear(D, D), nn.Linear(D, 3)
        if tied:
            self.inner.weight = self.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(x) @ self.weight))


CASES = {
    "first is used first": Pair,
    "second is used first": lambda tied=True: Pair(True, tied),
    "one layer twice": Twice,
    "a layer's and the network's": Outer,
}
METHODS: dict[str, dict[str, Any]] = {
    "ecq": {"assign": {"method": "ecq", "lam": 0.1}},
    "ecqx": {"assign": {"method": "ecqx", "lam": 0.1}},
    "learnt": {"assign": {"method": "ecq", "lam": 0.1}, "train": {"epochs": 1, "learn": True}},
    "ternary": {"assign": {"method": "ternary", "lam": 0.1}},
    "pruned": {"assign": {"method": "none"}, "prune": {"method": "feather", "sparsity": 0.5}},
    "merged": {"assign": {"method": "ecq", "lam": 0.1}, "merge_normalisation": True, "floats": "float16"},
    "int8": {"assign": {"method": "int8"}},
    "channels": {"assign": {"method": "ecq", "lam": 0.1}, "channels": {"parameters": 0.8, "train": None}},
}


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, D, generator=generator), torch.arange(16) % 3) for _ in range(4)]


def made(case: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return CASES[case](**options).eval()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if "num_batches" not in n}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_one_entry_counted_once_written_once_and_loaded_into_both(case: str, method: str, tmp_path: Any) -> None:
    if method == "channels" and case == "a layer's and the network's":
        pytest.skip("its matrix product is no layer, so nothing can be removed")
    model = made(case)
    small = fb.compress(model, data(), recipe={"train": {"epochs": 1, "lr": 1e-2}, "rounds": 2} | METHODS[method])
    names = aliases(model) if method != "int8" else aliases(fb.pipeline.restore.network_of(small.plan, model))
    assert small.report.identical
    assert {other: first for other, first in names.items() if "num_batches" not in other} == small.plan.aliases
    assert not set(small.plan) & set(small.plan.aliases)
    numbers = sum(own[0].tensor.numel() for name, own in places(model).items() if "num_batches" not in name)
    assert small.report.float_bytes == 4 * numbers
    assert small.report.parameters == parameters_of(model) < sum(p.numel() for p in made(case, tied=False).parameters())
    assert len(small.report.tensors) == len({row.name for row in small.report.tensors}) == len(small.plan.compressed)

    small.save(tmp_path / "net.few")
    net = fb.load(tmp_path / "net.few", like=made(case))
    x = data()[0][0]
    wanted = small.plan.tensors()
    assert all(torch.equal(t, wanted[n]) for n, t in tensors(net).items() if "bias" not in n)
    assert torch.equal(net(x), small.into(made(case))(x))


@pytest.mark.parametrize("method", ["ecq", "pruned", "channels"])
@pytest.mark.parametrize("case", ["first is used first", "one layer twice"])
def test_a_skeleton_that_does_not_share_is_filled_in_both_places(case: str, method: str, tmp_path: Any) -> None:
    small = fb.compress(made(case), data(), recipe={"train": {"epochs": 1}, "rounds": 2} | METHODS[method])
    small.save(tmp_path / "net.few")
    apart = fb.load(tmp_path / "net.few", like=made(case, tied=False))
    together = fb.load(tmp_path / "net.few", like=made(case))
    assert tensors(apart).keys() == tensors(together).keys()
    assert all(torch.equal(t, tensors(together)[n]) for n, t in tensors(apart).items())
    x = data()[0][0]
    assert torch.equal(apart(x), together(x))


def test_general_purpose_compressors_get_it_once() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(300, 300, bias=False)
            self.again = nn.Linear(300, 300, bias=False)
            self.again.weight = self.head.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.head(x))

    model = Wide()
    report = fb.compress(
        model, [(torch.randn(4, 300), torch.zeros(4).long())], recipe={"assign": {"method": "ecq", "lam": 0.1}}, steps=1
    ).report
    once = len(gzip.compress(model.head.weight.detach().numpy().tobytes(), 9, mtime=0))
    assert report.others["gzip -9, float32"] == once


@pytest.mark.parametrize("case", CASES)
def test_every_place_computes_with_what_is_held_and_folds_to_it(case: str) -> None:
    model = made(case)
    name = next(iter(set(aliases(model).values()) & set(select(model))))
    levels = (torch.arange(D * D) % 3 - 1).to(torch.int16).reshape(D, D)
    entry = Clustered(levels, 3, step=0.25)
    attach(model, {name: entry})
    x = data()[0][0]
    places_of = places(model)[name]
    assert all(torch.equal(place.tensor, entry.values()) for place in places_of)
    assert list(held(model)) == [name]
    copied = copy.deepcopy(model)
    with evaluating(copied):
        assert len({id(place.tensor) for place in places(copied)[name]}) == 1
    expected = made(case)
    with torch.no_grad():
        places(expected)[name][0].tensor.copy_(entry.values())
    assert torch.equal(model(x), expected(x))
    fold(model)
    assert torch.equal(model(x), expected(x))
    assert aliases(model) == aliases(expected)
    assert set(model.state_dict()) == set(expected.state_dict())


def test_a_threshold_is_taken_off_once() -> None:
    model = made("first is used first")
    weight = model.a.weight.detach().clone()
    entry = Masked(weight, weight.abs() > 0.1, shrink=0.1)
    attach(model, {"a.weight": entry})
    expected = model.b.weight.detach().clone()
    fold(model)
    assert torch.equal(model.a.weight, expected)
    assert model.a.weight is model.b.weight


def test_gradients_of_all_places_come_together() -> None:
    model, plain = made("first is used first").double().float(), made("first is used first")
    for net in (model, plain):
        net.eval()
    attach(model, plan_of(plain).updated({"a.weight": Masked(plain.a.weight.detach(), torch.ones(D, D) > 0)}))
    x = data()[0][0]
    model(x).sum().backward()
    plain(x).sum().backward()
    assert torch.equal(held_weight(model).grad, plain.a.weight.grad)


def held_weight(model: nn.Module) -> Tensor:
    return model.a.parametrizations.weight.original


@pytest.mark.parametrize("pattern", ["a.weight", "b.weight", "b.*"])
def test_patterns_mean_any_of_its_names(pattern: str) -> None:
    model = made("first is used first")
    assert list(select(model, [pattern])) == ["a.weight"]
    assert list(select(model, exclude=[pattern])) == ["front.weight", "head.weight"]


def test_files_from_before_have_both_names_in_full_and_are_still_read(tmp_path: Any) -> None:
    model = made("first is used first")
    both = Plan({name: Dense(t) for name, t in tensors(model).items()})
    assert not both.aliases
    data_before = codec.encode(both)
    (tmp_path / "net.few").write_bytes(data_before)
    net = fb.load(tmp_path / "net.few", like=made("first is used first"))
    assert all(torch.equal(t, tensors(model)[n]) for n, t in tensors(net).items())
    assert len(codec.encode(plan_of(model))) < len(data_before)


def test_the_check_looks_at_every_loaded_tensor() -> None:
    from fewbits.pipeline.restore import holds, network_of

    model = made("first is used first")
    plan = plan_of(model)
    net = network_of(plan, model)
    assert holds(net, plan)
    apart = network_of(plan, made("first is used first", tied=False))
    with torch.no_grad():
        apart.b.weight[0, 0] += 1
    assert not holds(apart, plan)
    assert not holds(net, Plan({name: e for name, e in plan.items() if name != "norm.bias"}))


def test_a_loop_of_ones_own_has_its_float_weights_again_where_it_ends_early() -> None:
    model, plain = made("first is used first"), made("first is used first")
    with fb.compressing(model, {"assign": {"method": "ecq", "lam": 0.1}}, steps=2):
        assert not torch.equal(model.a.weight, plain.a.weight)
    assert model.a.weight is model.b.weight
    assert all(torch.equal(t, tensors(plain)[n]) for n, t in tensors(model).items())


def test_a_loop_of_ones_own_ends_in_what_is_written() -> None:
    model = made("second is used first")
    with fb.compressing(model, {"assign": {"method": "ecq", "lam": 0.1}}, steps=1) as job:
        model(data()[0][0]).sum().backward()
        job.after_backward()
        job.after_step()
        small = job.finish()
    assert small.report.identical
    assert model.a.weight is model.b.weight
    assert all(torch.equal(t, small.plan.tensors()[n]) for n, t in tensors(model).items())


def test_a_skeleton_without_memory_shares_again() -> None:
    from fewbits.attach.plain import filled_in

    with torch.device("meta"):
        like = Pair()
    filled = filled_in(like)
    assert filled.a.weight is filled.b.weight
    assert not filled.a.weight.is_meta


def test_a_file_tells_the_other_names() -> None:
    model = made("one layer twice")
    summary = codec.inspect(codec.encode(plan_of(model)))
    assert {t.name: t.aliases for t in summary.tensors if t.aliases} == {
        "one.weight": ("two.weight",), "one.bias": ("two.bias",),
    }  # fmt: skip
    assert summary.count == sum(p.numel() for p in model.parameters())


def test_the_channels_kept_of_a_shared_tensor_are_compared_and_not_its_numbers() -> None:
    small = fb.compress(made("one layer twice"), data(), recipe={"train": {"epochs": 1}} | METHODS["channels"])
    channels = small.plan.channels
    assert channels is not None
    blank = made("one layer twice")
    torch.nn.init.constant_(blank.one.weight, torch.nan)  # as memory without numbers may be
    torch.nn.init.constant_(blank.one.bias, torch.nan)
    prune_channels(blank, channels)
    assert blank.two.weight is blank.one.weight
    other = {**channels.kept, "two.bias": tuple(m if m is None else m.flip(0) for m in channels.kept["two.bias"])}
    with pytest.raises(MismatchError, match=r"two.bias: the network uses this tensor under two names"):
        prune_channels(made("one layer twice"), ChannelMasks(other, channels.paddings))
