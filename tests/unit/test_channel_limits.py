"""Channels go until a sample takes no more time or energy than is allowed on a machine."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn

from fewbits import recipe as recipes
from fewbits.channel_masks import channels_of
from fewbits.data import DataSet
from fewbits.errors import BudgetError, RecipeError, UnsupportedError
from fewbits.hardware import layers, machine_of, machine_text, price
from fewbits.pipeline import check
from fewbits.pipeline.stages.channels import remove_channels
from fewbits.recipe.notation import parse_joules, parse_seconds
from fewbits.recipe.pruning import ChannelPruning


def priced(model: nn.Module) -> tuple[float, float]:
    """Milliseconds and microjoules, from the network itself: no plan, no channels, no limit took part."""
    plain = copy.deepcopy(model)
    found = price(layers(plain, (1, 8, 8)), machine_of("eyeriss-v2"))
    assert found.joules is not None
    return 1e3 * found.seconds, 1e6 * found.joules


@pytest.mark.parametrize(("quantity", "share"), [("latency", 0.5), ("energy", 0.5)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_the_limit_is_kept_and_used(
    trained: nn.Module, handwriting: DataSet, quantity: str, share: float, rounds: int
) -> None:
    which = quantity == "energy"
    most = share * priced(trained)[which]
    given = {"max_energy": f"{most:.9f} uJ"} if which else {"max_latency": f"{most:.9f} ms"}
    part = ChannelPruning(machine="eyeriss-v2", train=None, rounds=rounds, samples=64, measured=False, **given)
    small = remove_channels(trained, handwriting.loader("train", 32), part).model
    cost = priced(small)[which]
    assert cost <= most * (1 + 1e-9)
    assert cost > 0.8 * most  # a channel of this small network is up to a fifth of it
    kept = channels_of(small)
    assert kept is not None


def test_a_network_that_is_cheap_enough_stays_whole(trained: nn.Module, handwriting: DataSet) -> None:
    part = ChannelPruning(max_latency="1 s", machine="eyeriss-v2", train=None, samples=64, measured=False)
    small = remove_channels(trained, handwriting.loader("train", 32), part).model
    assert priced(small) == priced(trained)


def test_what_cannot_be_reached_says_how_far_it_went(trained: nn.Module, handwriting: DataSet) -> None:
    part = ChannelPruning(max_latency="1 ns", machine="eyeriss-v2", train=None, samples=64, measured=False)
    with pytest.raises(BudgetError, match=r"1e-06 ms on eyeriss-v2 .* the least that was found is [\d.e-]+ ms;"):
        remove_channels(trained, handwriting.loader("train", 32), part)


def test_a_network_that_does_not_fit_loses_channels_until_it_does(
    trained: nn.Module, handwriting: DataSet, tmp_path: Path
) -> None:
    text = machine_text("eie")
    assert "size_kib: {value: 8192" in text
    weights = sum(layer.weights for layer in layers(trained, (1, 8, 8)))
    tiny = text.replace("value: 8192", f"value: {weights * 0.5 / 1024:.3f}", 1)  # a byte a weight, with its run length
    (tmp_path / "tiny.yaml").write_text(tiny.replace("convolutions: false", "convolutions: true"))
    machine = str(tmp_path / "tiny.yaml")
    part = ChannelPruning(max_latency="1 s", machine=machine, train=None, samples=64, measured=False)
    small = remove_channels(trained, handwriting.loader("train", 32), part).model
    assert sum(layer.weights for layer in layers(small, (1, 8, 8))) < weights


def test_a_machine_that_cannot_take_a_layer_names_it(trained: nn.Module, handwriting: DataSet) -> None:
    part = ChannelPruning(max_latency="1 s", machine="eie", train=None, samples=64, measured=False)
    with pytest.raises(UnsupportedError, match=r"0\.weight"):
        remove_channels(trained, handwriting.loader("train", 32), part)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"max_latency": "2 ms"}, "need a machine"),
        ({"macs": 0.5, "machine": "eyeriss-v2"}, "goes with max_latency or max_energy"),
        ({"macs": 0.5, "max_latency": "2 ms", "machine": "eyeriss-v2"}, "one target"),
        ({"max_latency": "2 mJ", "machine": "eyeriss-v2"}, "'2 mJ' is not a time with its unit"),
        ({"max_energy": "0.5", "machine": "eyeriss-v2"}, "not an energy with its unit"),
        ({"max_energy": "0 mJ", "machine": "eyeriss-v2"}, "must be positive"),
        ({"max_latency": "2 ms", "machine": "eyeris-v2"}, "no machine 'eyeris-v2'"),
        ({"max_energy": "2 mJ", "machine": "tpu-v1"}, "tpu-v1 has no energy"),
    ],
)
def test_a_wrong_limit_is_told_before_any_work(section: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check(recipes.make({"network": {"name": "digits-net"}, "channels": section}))


def test_a_machine_of_ones_own_lies_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.yaml").write_text(machine_text("eyeriss-v2"))
    (tmp_path / "mine" / "recipe.yaml").write_text(
        "schema: 2\nnetwork: {name: digits-net}\nchannels: {max_latency: 2 ms, machine: own.yaml}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = recipes.load(tmp_path / "mine" / "recipe.yaml")
    assert found.channels is not None
    check(found)
    assert Path(found.channels.machine or "").samefile(tmp_path / "mine" / "own.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("2 ms", 2e-3), ("350us", 350e-6), (".5 s", 0.5), ("3 µs", 3e-6), ("1e-3 s", 1e-3)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)
    assert parse_joules(text.replace("s", "J")) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["2", "ms", "2 sec", "-1 ms", "1 ks", "nan s", "inf s", "1e400 s", "", 5, None])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(RecipeError, match=r"time"):
        parse_seconds(text)  # type: ignore[arg-type]
