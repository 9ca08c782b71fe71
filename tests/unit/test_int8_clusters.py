"""Clusters with integer activations: levels stay, the step is the scale, biases are short, outputs have a grid."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fewbits as fb
from fewbits import recipe as recipes
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.int8 import integer_form, is_integer
from fewbits.int8.clusters import adjusted, clustered_plan, on_scales, ranged_form, ranges_of
from fewbits.int8.folding import folded
from fewbits.pipeline import check
from fewbits.pipeline.restore import network_of
from fewbits.plan import Affine, Clustered, Dense, Plan
from fewbits.task import accuracy

STEP = 0.11


class Residual(nn.Module):
    """A sum, a normalisation with negative and zero factors, and a head without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(x + self.second(x)).mean((2, 3)))


def clustered(model: nn.Module) -> Plan:
    """Levels of 4 bits, held by the model as well."""
    entries: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("weight") and tensor.dim() > 1 and not name.startswith("second"):
            entries[name] = Clustered((tensor / STEP).round().clamp(-7, 7).to(torch.int16), 4, step=STEP)
            tensor.copy_(entries[name].values())
        elif not name.endswith("num_batches_tracked"):
            entries[name] = Dense(tensor.clone())
    return Plan(entries)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, -1.5, 0.0, 1e-9, 2.0, -0.2]))
        model.norm.bias.normal_()
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2)
    return model


def test_levels_are_the_clusters_and_scales_what_folding_makes_of_the_step(network: nn.Module) -> None:
    plan, x = clustered(network), torch.randn(16, 1, 8, 8)
    made = clustered_plan(network, plan, ranges_of(network, [x]))
    _, factors = folded(network)
    entry, factor = made["first.weight"], factors["first"]
    assert isinstance(entry, Affine)
    assert entry.bits == 4
    alive = factor.abs() > 1e-6
    sign = torch.where(factor < 0, -1, 1).view(-1, 1, 1, 1)
    assert torch.equal(entry.levels[alive], (plan["first.weight"].levels * sign).to(torch.int8)[alive])
    assert torch.allclose(entry.scales[alive].double(), STEP * factor.abs()[alive], rtol=2**-8)
    mantissa, _ = torch.frexp(entry.scales.double())
    assert torch.equal(mantissa * 2**8, (mantissa * 2**8).round())
    assert not entry.levels[2].any()  # switched off
    head = made["head.weight"]
    assert isinstance(head, Affine)
    assert torch.equal(head.values(), plan["head.weight"].values())  # nothing was folded into it
    second = made["second.weight"]  # was left as floats
    assert isinstance(second, Affine)
    assert second.bits == 8
    net = network_of(made, network)
    with torch.no_grad():
        expected, found = network(x), net(x)
    assert float((expected - found).abs().max()) < 0.05 * float(expected.abs().max())
    scale, zero = made["quantizers.head.scale"].values(), made["quantizers.head.zero_point"].values()
    levels = (found / scale).round()
    assert torch.equal(levels * scale, found)
    assert int(levels.min()) >= -int(zero)
    assert int(levels.max()) <= 255 - int(zero)


def test_a_bias_that_needs_a_larger_scale_costs_the_channel_its_levels(network: nn.Module) -> None:
    """Channel 3 has a factor of 1e-9: its weights move its output by less than a thousandth of its bias."""
    plan, x = clustered(network), torch.randn(16, 1, 8, 8)
    made = clustered_plan(network, plan, ranges_of(network, [x]))
    entry, bias = made["first.weight"], made["first.bias"].values()
    scale = made["quantizers.x.scale"].values()
    units = bias.double() / (entry.scales.double() * float(scale))
    assert float(units.abs().max()) <= 2**30 * 1.01
    assert not entry.levels[3].any()
    assert entry.levels[[0, 1, 4, 5]].any()


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=2), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_codebook_becomes_a_grid_that_holds_it(ends: list[float], seed: int) -> None:
    levels = torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, (3, 5))).to(torch.int16)
    entry = Clustered(levels, 2, codebook=(-ends[0], 0.0, ends[1]), lowest=-1)
    made = on_scales("w", entry, None)
    assert torch.equal(made.levels == 0, levels == 0)
    large, small = max(ends), min(ends)
    limit = 2.0**-8 if small > large / 2 else 0.5 * large / 127 / small + 1e-6  # 127 levels can do no better
    off = (made.values() - entry.values()).abs() / entry.values().abs().clamp_min(1e-9)
    if small >= large / 127:
        assert float(off.max()) <= max(limit, 2.0**-8) + 1e-6


def test_more_than_eight_bits_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"w has levels of 9 bits.*assign\.bits"):
        on_scales("w", Clustered(torch.zeros(2, 2, dtype=torch.int16), 9, step=1.0), None)
    with pytest.raises(RecipeError, match=r"at most 8 bits, got 9"):
        check(recipes.make({"assign": {"method": "ecq", "bits": 9}, "activations": "int8"}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activations": "float16"}, r"activations: int8, or a section with bits, calibrate and train; got 'float16'"),
        ({"activations": {"train": {}}, "assign": {"method": "int8"}}, r"activations\.train is for clusters"),
        ({"activations": {"train": {"precision": "bfloat16"}}}, r"activations\.train learns by backprop in float32"),
        ({"activations": {"train": {"rule": "feedback-alignment"}}}, r"activations\.train learns by backprop"),
    ],
)
def test_what_cannot_be_is_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(recipes.make(values))


def test_ranges_need_data(trained: nn.Module) -> None:
    with pytest.raises(DataError, match="this recipe looks at batches"):
        fb.compress(trained, recipe={"assign": {"method": "ecq"}, "activations": "int8"})


def test_training_of_ranges_leaves_every_level(network: nn.Module) -> None:
    plan, x = clustered(network), torch.randn(16, 1, 8, 8)
    made = clustered_plan(network, plan, ranges_of(network, [x]))
    net = ranged_form(made, network)
    with torch.no_grad():
        level = float(made["quantizers.head.scale"].values())
        assert float((net(x) - network_of(made, network)(x)).abs().max()) < 1.01 * level  # biases are not rounded
    trainable = {name for name, p in net.named_parameters() if p.requires_grad}
    assert not trainable & set(made.compressed)
    assert "first.bias" in trainable
    with torch.no_grad():
        net.head.bias.add_(0.5)
    again = adjusted(made, net)
    for name, entry in made.affine.items():
        assert torch.equal(entry.levels, again.affine[name].levels)
    assert torch.allclose(again["head.bias"].values(), made["head.bias"].values() + 0.5)
    assert torch.allclose(again["quantizers.x.scale"].values(), made["quantizers.x.scale"].values(), rtol=1e-5)


VALUES: dict[str, Any] = {
    "assign": {"method": "ecq", "lam": 0.02}, "train": {"epochs": 0.3, "lr": 1e-3}, "rounds": 2,
    "activations": {"calibrate": 4, "train": {"epochs": 1, "lr": 3e-3}},
}  # fmt: skip


def test_ranges_are_trained_and_the_better_file_is_kept(trained: nn.Module, handwriting: Any) -> None:
    def run(**more: Any) -> fb.Compressed:
        return fb.compress(
            trained, handwriting.loader("train", 64, shuffle=True, seed=1), recipe=recipes.make(VALUES | more),
            evaluate=lambda net: accuracy(net, handwriting.loader("validation", 256)),
        )  # fmt: skip

    plain, tuned = run(activations={"calibrate": 4}), run()
    last = tuned.report.search[-1]
    assert last.what == "ranges trained"
    assert tuned.report.identical
    assert sum(seen.kept for seen in tuned.report.search) == 1
    assert tuned.report.file_bytes == len(tuned.data)
    if last.kept:
        assert last.accuracy >= plain.report.accuracy_after
        changed = [n for n in plain.plan if not torch.equal(plain.plan[n].values(), tuned.plan[n].values())]
        assert any(name.startswith("quantizers.") for name in changed)
        for name, entry in plain.plan.affine.items():
            assert torch.equal(entry.levels, tuned.plan.affine[name].levels)
    else:
        assert tuned.data == plain.data
    small = run(target=len(plain.data), assign={"method": "ecq"})  # what is larger is not taken
    assert len(small.data) <= len(plain.data)


def test_an_interrupted_training_of_ranges_goes_on(trained: nn.Module, handwriting: Any, tmp_path: Any) -> None:
    def run(**more: Any) -> fb.Compressed:
        loader = handwriting.loader("train", 64, shuffle=True, seed=1)
        return fb.compress(trained, loader, recipe=recipes.make(VALUES), **more)

    whole = run()
    seen: list[str] = []

    def stop(done: int, total: int, line: str) -> None:
        seen.append(line)
        if "ranges" in line and done > 3:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(state_file=state, progress=stop)
    assert seen[-1].startswith("training the ranges")
    again = run(state_file=state)
    assert again.data == whole.data
    assert again.plan.affine


def test_outputs_have_a_grid_only_where_the_file_says_so(network: nn.Module) -> None:
    without, with_outputs = integer_form(network), integer_form(network, whole=True)
    names = {n for n, _ in with_outputs.named_buffers()} - {n for n, _ in without.named_buffers()}
    assert names == {f"quantizers.{n}.{leaf}" for n in ("relu_1", "head") for leaf in ("scale", "zero_point")}
    plan = Plan({name: Dense(t) for name, t in without.state_dict().items()})
    assert not hasattr(network_of(plan, network).quantizers, "head")
    plan = Plan({name: Dense(t) for name, t in with_outputs.state_dict().items()})
    assert hasattr(network_of(plan, network).quantizers, "head")


def test_onnx_runtime_gives_the_same_classes(trained: nn.Module, handwriting: Any, tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    from fewbits.deploy.onnx import to_onnx

    loader = handwriting.loader("train", 64)
    values = {"assign": {"method": "ecq"}, "activations": "int8", "train": None}
    small = fb.compress(trained, loader, recipe=values)
    net = small.into(copy.deepcopy(trained))
    assert is_integer(net)
    inputs, _ = next(iter(handwriting.loader("test", 128)))
    written = to_onnx(net, inputs, tmp_path / "net.onnx", plan=small.plan)
    assert written.agreement.same_class > 0.98
    assert not written.notes
