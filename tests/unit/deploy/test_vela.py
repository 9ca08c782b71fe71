"""Networks compiled by Vela: clusters are small there, nothing is left to the processor, and errors are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_tflite import NETWORKS, integers

from fewbits.deploy.vela import _operators, to_vela
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
