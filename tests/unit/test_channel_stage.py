"""The channel stage: from a recipe to one file that an untrained network of the class reads."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits import codec, files, job
from fewbits import recipe as recipes
from fewbits.channel_masks import channels_of
from fewbits.channels import criterion, dependencies, first_samples, measured
from fewbits.channels.select import choose, unit_scores
from fewbits.data import DataSet
from fewbits.errors import BudgetError, DataError, RecipeError, UnsupportedError
from fewbits.hardware import count
from fewbits.measure.relevance import relevance
from fewbits.pipeline import check
from fewbits.pipeline.stages.channels import RemoveChannels, remove_channels, sizes_of
from fewbits.plan import Dense
from fewbits.recipe.pruning import ChannelPruning
from fewbits.recipe.training import Recovery
from fewbits.report.page import page
from fewbits.task import accuracy
from fewbits.train import checkpoint
from networks import small_network

QUICK = {"epochs": 1, "lr": 0.02}


def macs(model: nn.Module) -> int:
    return count(model, (1, 8, 8)).macs


@pytest.mark.parametrize("criterion", ["output", "curvature", "magnitude"])
def test_channels_go_and_training_brings_the_accuracy_back(
    trained: nn.Module, handwriting: DataSet, criterion: str
) -> None:
    loader = handwriting.loader("train", 32, shuffle=True)
    before = {n: t.clone() for n, t in trained.state_dict().items()}
    part = ChannelPruning(macs=0.5, criterion=criterion, train=Recovery(epochs=2, lr=0.05), rounds=2, samples=128)
    found = remove_channels(trained, loader, part)
    assert 0.35 < macs(found.model) / macs(trained) <= 0.5
    assert len(found.choices) == 2
    first = found.choices[0].macs
    assert 0.5**0.5 - 0.1 < first <= 0.5**0.5
    assert accuracy(found.model, handwriting.loader("validation", 256)) > 80
    assert type(found.model) is type(trained)
    assert all(torch.equal(t, before[n]) for n, t in trained.state_dict().items())


def test_without_training_only_normalisations_are_recalibrated(trained: nn.Module, handwriting: DataSet) -> None:
    loader = handwriting.loader("train", 32, shuffle=True)
    found = remove_channels(trained, loader, ChannelPruning(parameters=0.6, train=None, samples=64)).model
    kept = channels_of(found)
    assert kept is not None
    rows, columns = kept.kept["5.weight"]
    want = trained[5].weight.detach()
    want = want if rows is None else want[rows]
    assert torch.equal(found[5].weight, want if columns is None else want[:, columns])
    wide, prune_channels = (sum(p.numel() for p in m.parameters()) for m in (trained, found))
    assert prune_channels <= 0.6 * wide


@pytest.mark.parametrize("layerwise", [True, False])
def test_what_a_layer_may_lose_is_measured_unless_the_recipe_says_otherwise(
    trained: nn.Module, handwriting: DataSet, layerwise: bool
) -> None:
    loader = handwriting.loader("train", 32, shuffle=True, seed=5)
    options = {} if layerwise else {"measured": False}
    chosen = remove_channels(
        trained, loader, ChannelPruning(macs=0.4, criterion="taylor", train=None, samples=64, **options)
    ).choices
    samples = first_samples(handwriting.loader("train", 32, shuffle=True, seed=5), 64)
    batches, found = list(samples), dependencies(trained, (1, 8, 8))
    units = unit_scores(found, criterion("taylor", trained, batches))
    told = measured(trained, batches, found, units)
    wanted, other = (
        choose(found, u, sizes_of(trained, (1, 8, 8)), left=0.4, per_saving=True)
        for u in ((told, units) if layerwise else (units, told))
    )
    assert chosen[0].removed == wanted.removed != other.removed


@pytest.mark.parametrize(
    "more",
    [
        {"assign": {"method": "none"}},
        {"assign": {"method": "ecq", "bits": 4, "lam": 0.1}},
        {"assign": {"method": "none"}, "prune": {"sparsity": 0.5}},
    ],
)
def test_one_file_whatever_follows(trained: nn.Module, handwriting: DataSet, more: dict, tmp_path: Path) -> None:
    recipe = recipes.make(
        {"channels": {"macs": 0.5, "train": QUICK, "samples": 64}, "train": {"epochs": 0.5}, "rounds": 2} | more
    )
    percent = lambda model: accuracy(model, handwriting.loader("validation", 256))  # noqa: E731
    small = fb.compress(trained, handwriting.loader("train", 32, shuffle=True), evaluate=percent, recipe=recipe)
    assert small.report.identical
    assert small.report.float_bytes == 4 * sum(t.numel() for n, t in trained.state_dict().items() if "num_b" not in n)
    assert small.report.accuracy_before == percent(trained)
    assert "0.5 of macs by magnitude, layers measured" in small.report.method
    small.save(tmp_path / "net.few")
    torch.manual_seed(9)
    net = fb.load(tmp_path / "net.few", like=small_network())
    inputs, _ = next(iter(handwriting.loader("test", 64)))
    assert torch.equal(net(inputs), small.into(small_network())(inputs))
    assert macs(net) <= 0.5 * macs(trained)
    more = recipes.make({"assign": {"method": "ecq", "lam": 0.3}, "train": {"epochs": 0.2}, "rounds": 1})
    again = fb.compress(net, handwriting.loader("train", 32), recipe=more)
    with pytest.raises(RecipeError, match="lost channels already"):
        fb.compress(net, handwriting.loader("train", 32), recipe=recipe)
    assert torch.equal(again.into(small_network())(inputs), again.into(copy.deepcopy(net))(inputs))


def test_a_resumed_run_does_not_choose_again(trained: nn.Module, handwriting: DataSet, tmp_path: Path) -> None:
    recipe = recipes.make(
        {
            "channels": {"channels": 0.7, "train": QUICK, "samples": 64},
            "assign": {"method": "ecq", "lam": 0.1},
            "train": {"epochs": 0.5},
            "rounds": 2,
        }
    )
    loader = handwriting.loader("train", 32, shuffle=True)
    state = tmp_path / "state"
    whole = fb.compress(trained, loader, recipe=recipe)

    lines: list[str] = []

    def stop(done: int, total: int, line: str) -> None:
        lines.append(line)
        if not line.startswith("training without the removed channels"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fb.compress(trained, loader, recipe=recipe, state_file=state, progress=stop)
    assert len(lines) == 21
    assert set(checkpoint.read(state)["values"]) == {"channels", "run"}
    with pytest.raises(DataError, match="another recipe"):
        fb.compress(trained, loader, recipe=recipe.updated(seed=5), state_file=state)
    assert fb.compress(trained, loader, recipe=recipe, state_file=state).data == whole.data
    assert not state.exists()


@pytest.mark.parametrize("interrupted", [5, 25, 35])
def test_training_without_the_removed_channels_goes_on(
    trained: nn.Module, handwriting: DataSet, tmp_path: Path, interrupted: int
) -> None:
    recipe = recipes.make(
        {
            "channels": {"channels": 0.6, "train": QUICK | {"epochs": 2}, "samples": 64, "rounds": 2},
            "assign": {"method": "ecq", "lam": 0.1},
            "train": {"epochs": 0.2},
            "rounds": 1,
        }
    )
    loader = handwriting.loader("train", 32, shuffle=True)
    state = tmp_path / "state"
    whole = fb.compress(trained, loader, recipe=recipe)

    def stop(lines: list[str], at: int | None, done: int, total: int, line: str) -> None:
        if line.startswith("training without the removed channels"):
            lines.append(line)
            if len(lines) == at:
                raise KeyboardInterrupt

    first: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fb.compress(trained, loader, recipe=recipe, state_file=state, progress=partial(stop, first, interrupted))
    assert list(tmp_path.iterdir()) == [state]
    with pytest.raises(DataError, match="another recipe"):
        fb.compress(trained, loader, recipe=recipe.updated(seed=5), state_file=state)
    rest: list[str] = []
    resumed = fb.compress(trained, loader, recipe=recipe, state_file=state, progress=partial(stop, rest, None))
    assert resumed.data == whole.data
    assert len(first) + len(rest) == 40  # nothing was done twice
    assert not list(tmp_path.iterdir())


def test_a_job_counts_against_the_float_network(tmp_path: Path) -> None:
    recipe = recipes.make(
        {
            "network": {"name": "digits-net"},
            "data": {"name": "digits"},
            "pretrain": {"epochs": 1, "lr": 2e-3},
            "channels": {"macs": 0.3, "train": QUICK},
            "assign": {"method": "none"},
            "train": {"epochs": 0.1},
        }
    )
    prepared = job.prepare(recipe)
    result = job.run(prepared, tmp_path)
    assert result.report.macs == macs(prepared.network)
    assert result.report.macs_left is not None
    assert result.report.macs_left <= 0.3 * result.report.macs
    assert macs(prepared.decoded(tmp_path / "net.few")) == result.report.macs_left
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.safetensors", "net.few", "report.json"]
    assert codec.inspect(files.read(tmp_path / "net.few")).tensors[0].shape[0] < 32
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of pictures that nothing is in
        html = page(result.report)
    assert "Layer by layer" not in html
    assert "On the way" not in html
    for meaningless in ("pruned weights", "bits per weight", "zeros   "):
        assert meaningless not in str(result.report)


def test_a_share_of_one_removes_nothing(trained: nn.Module, handwriting: DataSet) -> None:
    recipe = recipes.make(
        {"channels": {"macs": 1.0, "train": QUICK}, "assign": {"method": "int8"}, "train": {"epochs": 0}}
    )
    small = fb.compress(trained, handwriting.loader("train", 32), recipe=recipe)
    assert small.report.identical
    assert macs(small.into(small_network())) == macs(trained)


@pytest.mark.parametrize("assign", [{"method": "none"}, {"method": "int8"}, {"method": "ecq", "lam": 0.1}])
def test_removed_channels_are_explained_as_zeros(tmp_path: Path, assign: dict) -> None:
    recipe = recipes.make(
        {
            "network": {"name": "digits-net"},
            "data": {"name": "digits"},
            "pretrain": {"epochs": 1, "lr": 2e-3},
            "channels": {"macs": 0.4, "samples": 64, "train": QUICK},
            "assign": assign,
            "train": {"epochs": 0.1},
        }
    )
    prepared = job.prepare(recipe)
    result = job.run(prepared, tmp_path)
    found = job.explain(prepared, tmp_path / "net.few", "plus")
    assert result.plan.channels is not None
    batches = islice(prepared.dataset.loader("validation", 64), 8)
    amounts = relevance(prepared.network, batches, rules="plus").weights
    for layer in found.layers:
        weight = prepared.network.get_parameter(layer.name)
        left = torch.ones(weight.shape, dtype=torch.bool)
        for axis, mask in enumerate(result.plan.channels.kept.get(layer.name, ())):
            if mask is not None:
                left.transpose(0, axis)[~mask] = False  # a second way to spread them
        entry = result.plan[layer.name]
        if not isinstance(entry, Dense):
            left[left.clone()] = entry.kept.flatten()
        amount = amounts[layer.name].abs()
        assert layer.weights == weight.numel()
        assert layer.weights_kept == pytest.approx(float(left.float().mean()))
        assert layer.relevance_kept == pytest.approx(float(amount[left].sum() / amount.sum()), rel=1e-4)
    assert len(found.layers) == 4
    assert len(found.maps) == 8
    assert all(bool(m.after.isfinite().all()) and float(m.after.abs().sum()) > 0 for m in found.maps)


class Fixed(nn.Module):
    """Computes with a number of channels, which its layer or its tensor says, and one that it remembers."""

    def __init__(self, seen: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.width, self.seen = nn.Linear(4, 6), nn.Linear(6, 2), 6, seen

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return self.second(y * ((y.shape[1] if self.seen else self.first.out_features) / self.width))


class Squared(nn.Module):
    """A product of three, whose multiplications nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.square = nn.Linear(4, 6), nn.Parameter(torch.ones(2, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return nn.functional.bilinear(x, x, self.square)


def test_what_cannot_be_removed_is_refused_in_one_sentence(trained: nn.Module, handwriting: DataSet) -> None:
    batches = [(torch.randn(8, 4), torch.arange(8) % 2)]
    with pytest.raises(UnsupportedError, match="something else once channels are removed"):
        remove_channels(Fixed(), batches, ChannelPruning(channels=0.6, train=None, criterion="magnitude"))
    with pytest.raises(UnsupportedError, match=r"truediv \(truediv\) computes with their number"):
        remove_channels(Fixed(seen=True), batches, ChannelPruning(channels=0.6, train=None, criterion="magnitude"))
    model = nn.Sequential(nn.Linear(4, 6), nn.LSTM(6, 2, proj_size=1))
    with pytest.raises(UnsupportedError, match=r"no channel of Sequential can be removed .*LSTM"):
        remove_channels(model, batches, ChannelPruning(macs=0.6, train=None, criterion="magnitude"))
    with pytest.raises(UnsupportedError, match=r"matrices; with channels\.parameters in place of channels\.macs"):
        remove_channels(Squared(), batches, ChannelPruning(macs=0.6, train=None, criterion="magnitude"))
    with pytest.raises(BudgetError, match=r"cap of 0\.1"):
        remove_channels(trained, handwriting.loader("train", 32), ChannelPruning(macs=0.2, cap=0.1, train=None))
    with pytest.raises(DataError):
        remove_channels(trained, [], ChannelPruning(macs=0.5))


def test_recipes_of_channels() -> None:
    for wrong, word in (
        ({"macs": 0.5, "parameters": 0.5}, "one target"),
        ({}, "one target"),
        ({"macs": 1.5}, "macs is at most 1, got 1.5"),
        ({"macs": 0.5, "criterium": "taylor"}, "did you mean 'criterion'"),
    ):
        with pytest.raises(RecipeError, match=word):
            recipes.make({"channels": wrong})
    made = recipes.make({"channels": {"macs": 0.4}, "assign": {"method": "none"}})
    assert made.channels is not None
    assert (made.channels.over, made.channels.left) == ("macs", 0.4)
    with pytest.raises(RecipeError, match="a prune, a channels or an ops section"):
        check(recipes.make({"assign": {"method": "none"}}))


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"max_drop": 1.0}, {}, "max_drop needs evaluate"),
        ({"max_drop": 1.0, "assign": {"method": "int8"}}, {}, "max_drop needs evaluate"),
        ({"assign": {"method": "ecq", "bits": "auto"}}, {}, "needs a budget"),
        ({"assign": {"method": "ecq"}}, {"teacher": nn.Linear(2, 2)}, r"needs train\.distill"),
        ({"assign": {"method": "int8"}}, {"teacher": nn.Linear(2, 2)}, r"needs train\.distill"),
    ],
)
def test_impossible_arguments_are_told_before_channels_go(
    trained: nn.Module, changes: dict, more: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    def trained_already(*given: object, **options: object) -> None:
        raise AssertionError("channels were removed first")

    monkeypatch.setattr(RemoveChannels, "run", trained_already)
    with pytest.raises(RecipeError, match=message):
        fb.compress(trained, [], recipe=recipes.make({"channels": {"macs": 0.5}} | changes), **more)


class Viewing(nn.Module):
    """Takes a view of what a convolution gave, as many do: not possible once that is channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.view(x.size(0), -1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_takes_a_view_is_evaluated_measured_and_trained(precision: str) -> None:
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 10) for _ in range(2)]
    train = {"epochs": 1, "precision": precision}
    recipe = {"channels": {"channels": 0.7, "train": train, "samples": 32}, "assign": {"method": "none"}, "train": None}
    small = fb.compress(Viewing(), batches, evaluate=batches, recipe=recipe | {"rounds": 1})
    assert small.report.identical
