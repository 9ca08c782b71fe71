"""``fewbits export --to onnx`` and ``fewbits bench-latency`` as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import pytest
from test_cli import fewbits

from fewbits import codec
from fewbits.plan import Plan

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 1, lr: 5.0e-3}
assign: {method: int8}
train: {epochs: 0}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    (folder / "int8.yaml").write_text(RECIPE)
    ran = fewbits("compress", folder / "int8.yaml", "--out", folder)
    assert ran.code == 0
    assert "int8, calibrated only" in ran.out
    return folder


def test_verify_and_inspect_know_int8(made: Path) -> None:
    ran = fewbits("verify", made / "net.few", "--recipe", made / "int8.yaml")
    assert ran.code == 0
    assert "the same" in ran.out
    assert "affine" in fewbits("inspect", made / "net.few").out


def test_export_and_bench(made: Path, tmp_path: Path) -> None:
    ran = fewbits(
        "export", made / "net.few", "--to", "onnx", "--recipe", made / "int8.yaml", "--out", tmp_path / "a.onnx"
    )
    assert ran.code == 0
    size = (made / "net.few").stat().st_size
    assert f"net.few has {size / 1000:.4g} KB" in ran.out
    assert "16 validation samples" in ran.out
    assert "ONNX stores numbers as they are" in ran.out
    figures = tmp_path / "figures.json"
    ran = fewbits(
        "bench-latency", made / "net.few", tmp_path / "a.onnx", "--recipe", made / "int8.yaml",
        "--batch", 2, "--rounds", 1, "--json", figures,
    )  # fmt: skip
    assert ran.code == 0
    assert "speed-up against dense float32" in ran.out
    found = json.loads(figures.read_text())
    assert [(row["model"], row["batch"]) for row in found["rows"]] == [
        ("dense float32", 2), ("net.few", 2), ("a.onnx", 2),
    ]  # fmt: skip
    assert {"commit", "machine", "versions", "command"} <= set(found)
    assert found["versions"]["onnxruntime"]


def test_what_is_refused(made: Path, tmp_path: Path) -> None:
    net = made / "net.few"
    assert "--recipe goes with --to onnx, tflite, vela" in fewbits("export", net, "--to", "nnc", "--recipe", "x").err
    assert "--levels goes with --to safetensors" in fewbits("export", net, "--to", "onnx", "--levels").err
    foreign = tmp_path / "foreign.few"
    foreign.write_bytes(codec.encode(Plan({}), header={"model": "Theirs"}))
    ran = fewbits("export", foreign, "--to", "onnx")
    assert ran.code == 2
    assert "which is no network of the zoo: give --recipe" in ran.err
    missing = tmp_path / "missing.onnx"
    assert "cannot read" in fewbits("bench-latency", missing).err
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    assert "does not take this model" in fewbits("bench-latency", bad).err
    assert "given twice" in fewbits("bench-latency", bad, bad, bad).err
    with mock.patch.dict(sys.modules, {"onnx": None}):
        ran = fewbits("export", net, "--to", "onnx", "--recipe", made / "int8.yaml")
    assert ran.code == 2
    assert "pip install 'fewbits[onnx]'" in ran.err


@pytest.mark.long
def test_export_to_tflite(made: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    ran = fewbits("export", made / "net.few", "--to", "tflite", "--recipe", made / "int8.yaml")
    assert ran.code == 0
    assert "% within one, on 16 validation samples" in ran.out
    assert "FULLY_CONNECTED 3" in ran.out
    assert "1 value without a grid got the range of the inputs given" in ran.out
    assert (made / "net.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.long
def test_export_to_vela(made: Path) -> None:
    for package in ("ai_edge_litert", "ethosu.vela"):
        pytest.importorskip(package)
    recipe = made / "clusters.yaml"
    recipe.write_text(RECIPE.replace("{method: int8}", "{method: ecq}\nactivations: int8"))
    assert fewbits("compress", recipe, "--out", made / "clusters").code == 0
    net = made / "clusters" / "net.few"
    ran = fewbits("export", net, "--to", "vela", "--recipe", recipe, "--accelerator", "ethos-u55-128")
    assert ran.code == 0
    assert "fewbits price" in ran.out
    assert "3 operations on the accelerator, 0 left to the processor" in " ".join(ran.out.split())
    assert (net.parent / "net_vela.tflite").is_file()
    assert "--memory-mode go with --to vela" in fewbits("export", net, "--to", "nnc", "--accelerator", "x").err
    ran = fewbits("export", net, "--to", "vela", "--recipe", recipe, "--accelerator", "u55")
    assert "no accelerator 'u55'" in ran.err


def test_tables_go_with_tflite() -> None:
    ran = fewbits("export", "net.few", "--to", "onnx", "--lut")
    assert ran.code == 2
    assert "--lut goes with --to tflite" in ran.err
