"""Networks compiled by Vela: clusters are small there, nothing is left to the processor, and errors are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_tflite import NETWORKS, integers

from fewbits.deploy.vela import _operators, has_pattern, to_vela
from fewbits.errors import ExportError, MissingExtraError, RecipeError
from fewbits.hardware import machine_of, price
from fewbits.int8 import RangedQuantizer, affine_plan, calibrate, integer_form
from fewbits.int8.form import hold_affine
from fewbits.pipeline import layers_of
from fewbits.pipeline.restore import network_of
from fewbits.report.sizes import entropy
from fewbits.zoo import build

needed = pytest.mark.long  # the extra is there when all tests run


@pytest.fixture
def vela() -> None:
    for package in ("ai_edge_litert", "ethosu.vela"):
        pytest.importorskip(package, reason="the extra ethos")


@needed
def test_clusters_take_their_entropy_and_ordinary_int8_does_not(vela: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    model = build("digits-net", seed=0).eval()
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [x])
    hold_affine(net)
    ordinary = affine_plan(net)
    plain = to_vela(network_of(ordinary, model), x, tmp_path / "plain.tflite", plan=ordinary)
    clusters, plan = integers(model, x)
    small = to_vela(clusters, x, tmp_path / "small.tflite", plan=plan)
    zero_order = sum(entropy(e.levels) * e.levels.numel() for e in plan.affine.values()) / 8
    assert small.weights == plain.weights == sum(e.levels.numel() for e in plan.affine.values())
    assert zero_order < small.weight_bytes < 1.1 * zero_order + 500
    assert plain.weight_bytes > 0.9 * plain.weights
    assert small.flash < plain.flash / 2
    assert (small.npu, small.cpu) == (5, 0)
    assert small.cycles < plain.cycles
    assert small.bytes == (tmp_path / "small.tflite").stat().st_size
    assert (small.system, small.memory_mode) == ("Ethos_U55_High_End_Embedded", "Shared_Sram")
    own = price(layers_of(plan, model, (1, 8, 8)), machine_of("ethos-u55-128"))
    assert sum(layer.weight_bytes for layer in own.layers) == pytest.approx(small.weight_bytes, rel=0.15)


@needed
@pytest.mark.parametrize(
    ("name", "accelerator"),
    [
        *((name, f"ethos-u{kind}-256") for name in ("depthwise", "shortcut", "pools") for kind in (65, 85)),
        ("branches", "ethos-u85-256"),  # pools by four places: others take at most three
    ],
)
def test_nothing_is_left_to_the_processor(name: str, accelerator: str, vela: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    net, plan = integers(NETWORKS[name](), x)
    found = to_vela(net, x, tmp_path / "net.tflite", plan=plan, accelerator=accelerator)
    assert found.cpu == 0
    assert found.npu > 3
    assert found.dram == 0


def thinned(model: torch.nn.Module, pattern: bool) -> torch.nn.Module:
    """A network with half of its weights: two of each four inputs, or anywhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.shape[1] % 4 == 0:
                weight = module.weight.movedim(1, -1)
                groups = torch.rand(weight.shape, generator=generator).unflatten(-1, (-1, 4))
                kept = groups >= groups.sort(-1, descending=True).values[..., 1:2] if pattern else groups < 0.5
                module.weight.mul_(kept.flatten(-2).movedim(-1, 1))
    return model


@needed
@pytest.mark.parametrize("kind", ["convolutions", "linear"])
def test_a_pattern_saves_an_u85_cycles_and_scattered_zeros_do_not(kind: str, vela: None, tmp_path: Path) -> None:
    nn, found = torch.nn, {}
    for what in ("dense", "scattered", "2:4"):
        torch.manual_seed(0)
        if kind == "linear":
            x, layers = torch.randn(4, 1, 8, 8), [nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256)]
        else:
            x, layers = torch.randn(4, 4, 8, 8), [nn.Conv2d(4, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3)]
        model = nn.Sequential(*layers)
        if what != "dense":
            thinned(model, what == "2:4")
        net, plan = integers(model, x, 0.02)
        found[what] = to_vela(net, x, tmp_path / "net.tflite", plan=plan, accelerator="ethos-u85-256")
    assert [one.patterned for one in found.values()] == [0, 0, 2]
    assert all(one.cpu == 0 for one in found.values())
    assert found["2:4"].npu_cycles < found["dense"].npu_cycles / 1.5
    assert found["scattered"].npu_cycles > 0.9 * found["dense"].npu_cycles
    assert found["2:4"].weight_bytes < found["dense"].weight_bytes
    assert found["2:4"].cycles < found["dense"].cycles


def test_a_pattern_is_one_of_the_last_dimension() -> None:
    half = np.tile(np.array([1, 0, 0, 2], np.int8), (3, 2))
    assert has_pattern("FULLY_CONNECTED", half)
    assert not has_pattern("FULLY_CONNECTED", np.roll(half, 2, 1) | half), "four of four"
    assert not has_pattern("FULLY_CONNECTED", half[:, :6])
    assert not has_pattern("FULLY_CONNECTED", half.T.copy())
    assert not has_pattern("DEPTHWISE_CONV_2D", half)


@needed
def test_what_vela_refuses_is_one_sentence(vela: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    net, plan = integers(NETWORKS["linear"](), x)
    with pytest.raises(ExportError, match=r"Vela does not compile this network for ethos-u55-128: .*Nowhere not found"):
        to_vela(net, x, tmp_path / "net.tflite", plan=plan, system="Nowhere")
    assert not list(tmp_path.iterdir())


def test_unknown_accelerators_and_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net: Any = torch.nn.Identity()
    with pytest.raises(RecipeError, match=r"no accelerator 'ethos-u55-129'.*did you mean 'ethos-u55-128'"):
        to_vela(net, None, tmp_path / "net.tflite", plan=None, accelerator="ethos-u55-129")  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewbits\[ethos\]'"):
        to_vela(net, None, tmp_path / "net.tflite", plan=None)  # type: ignore[arg-type]


def test_a_summary_without_operators_is_not_taken_for_none_on_the_processor() -> None:
    assert _operators("NPU", "NPU operators = 7 (100.0%)\nCPU operators = 0 (0.0%)") == 7
    assert _operators("CPU", "NPU operators = 7 (100.0%)") == 0
    with pytest.raises(ExportError, match="does not say how many operators"):
        _operators("CPU", "Network summary for net")
