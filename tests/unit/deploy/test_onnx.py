"""Networks in ONNX Runtime against the same networks in torch."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits import zoo
from fewbits.attach import attach, plan_of
from fewbits.deploy.onnx import _compare as compare
from fewbits.deploy.onnx import _export as exporting
from fewbits.deploy.onnx import to_onnx
from fewbits.deploy.onnx._weights import Integers, _packed, put, smallest_width
from fewbits.deploy.onnx.runtime import run, session
from fewbits.errors import ExportError, MissingExtraError
from fewbits.int8.folding import folded
from fewbits.pipeline.restore import network_of, restore
from fewbits.plan import Clustered, Masked, Plan
from networks import plan_for, quantized, randomised, residual

onnx = pytest.importorskip("onnx")


def small(name: str) -> tuple[nn.Module, Tensor]:
    options = {"fastgrnn": {"steps": 3, "rank_w": 2, "hidden": 8}}.get(name, {})
    shape = {"fastgrnn": (6, 3), "resnet-20": (3, 8, 8)}.get(name) or zoo.INPUTS[name]
    model = randomised(zoo.build(name, seed=0, **options)).float().eval()
    return model, torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def sequences() -> tuple[nn.Module, Tensor]:
    """Matrices on inputs of three dimensions, which torch exports the other way round."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), torch.randn(3, 7, 4)


def clustered(model: nn.Module, bits: int) -> tuple[nn.Module, Plan]:
    held = copy.deepcopy(model)
    attach(held, plan_for(model, bits))
    plan = plan_of(held)
    return network_of(plan, model), plan


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


class Recurrent(nn.Module):
    """An embedding that is also the head, and a layer whose weights runtimes have in an order of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.head = nn.Embedding(7, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 7)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.cell(self.table(ids))[0][:, -1])


@pytest.mark.long
def test_weights_that_the_exporter_rearranges_become_floats_and_shared_ones_stay_integers(tmp_path):
    torch.manual_seed(0)
    model = Recurrent().eval()
    net, plan = clustered(model, 4)
    assert plan.aliases == {"head.weight": "table.weight"}
    found = to_onnx(net, torch.randint(7, (4, 5)), tmp_path / "net.onnx", plan=plan)
    assert found.agreement.difference < 1e-5
    assert found.notes == ("2 tensors became float32: torch's exporter rearranges the weights of cell",)
    tensors = {tensor.name: tensor for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    levels = [name for name in tensors if name.endswith(".levels")]
    assert levels in (["table.weight.levels"], ["head.weight.levels"])
    assert tensors[levels[0]].data_type == onnx.TensorProto.INT4


NAMES = ["digits-net", "fastgrnn", "lenet-300-100", "lenet-5", "mlp-gsc", "resnet-20"]


@pytest.mark.parametrize("name", NAMES)
def test_every_small_network_of_the_zoo(name, tmp_path):
    model, x = small(name)
    written = to_onnx(model, x, tmp_path / "net.onnx")
    assert written.agreement.difference < 1e-5
    assert written.agreement.layers > 3
    assert written.bytes == (tmp_path / "net.onnx").stat().st_size
    more = torch.cat([x, x + 1])  # any batch size
    (found,) = run((tmp_path / "net.onnx").read_bytes(), {"input": more.numpy()})
    with torch.no_grad():
        assert np.allclose(found, model(more).numpy(), atol=1e-3, rtol=1e-3)
    assert "BatchNormalization" not in operators(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["residual", "sequences"])
def test_int8_is_integers_with_grids(name, tmp_path):
    model, x = residual(3) if name == "residual" else sequences()
    net, plan = quantized(model, x)
    path = tmp_path / "int8.onnx"
    written = to_onnx(net, x, path, plan=plan)
    assert written.agreement.difference < 0.02
    assert written.notes == ()
    loaded = onnx.load(path)
    stored = {t.name: t for t in loaded.graph.initializer}
    floats = [t for t in stored.values() if t.data_type == onnx.TensorProto.FLOAT]
    assert {t.data_type for n, t in stored.items() if n.endswith(".levels")} == {
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT32,
    }
    assert max(np.prod(t.dims) for t in floats) <= max(len(e.scales) for e in plan.affine.values())
    for path_, entry in plan.affine.items():
        if f"{path_}.levels" in stored:
            assert np.array_equal(onnx.numpy_helper.to_array(stored[f"{path_}.levels"]), entry.levels.numpy())
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(path)


def test_sums_of_the_largest_integers_fit_in_the_runtime(tmp_path):
    # On x86 without VNNI it holds two products of 8 bits in 16 by default, and 2 * 255 * 127 is more than that holds.
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()).eval()
    with torch.no_grad():
        for conv in (model[0], model[2]):
            conv.weight.fill_(0.1)
            conv.weight[:, ::2] = 0.099
    x = torch.linspace(0.9, 1, 8 * 64).reshape(1, 8, 8, 8)
    net, plan = quantized(model, x)
    assert to_onnx(net, x, tmp_path / "int8.onnx", plan=plan).agreement.difference < 1e-3


def test_layers_in_another_place_of_the_graph_are_not_compared(graphs, monkeypatch):
    model, x = residual(3)
    names = compare.layer_outputs(graphs["float32"])
    moved, *_, last = names
    monkeypatch.setattr(compare, "layer_outputs", lambda model: names | {moved: names[last]})
    damaged = copy.deepcopy(graphs["float32"])
    weight = next(t for t in damaged.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
    with pytest.raises(ExportError, match="differ by") as told:
        compare.compare(folded(model)[0], damaged, x, integer=False)
    assert repr(moved) not in str(told.value)
    assert "inf" not in str(told.value)


def test_the_runtime_fuses_the_grids_into_integer_operations(graphs, tmp_path, monkeypatch):
    import onnxruntime as ort

    model, x = residual(3)
    net, plan = quantized(model, x)
    monkeypatch.setattr(exporting, "graph_of", lambda *args, **options: copy.deepcopy(graphs["int8"]))
    to_onnx(net, x, tmp_path / "int8.onnx", plan=plan)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    fused = operators(tmp_path / "fused.onnx")
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= fused
    assert not {"Conv", "Add", "Gemm", "MatMul"} & fused


@pytest.mark.parametrize(("bits", "kind", "width"), [(4, "INT4", 0.5), (12, "INT16", 2)])
def test_clusters_become_the_smallest_integers(bits, kind, width, tmp_path):
    model, x = residual(3)
    net, plan = clustered(model, bits)
    written = to_onnx(net, x, tmp_path / "net.onnx", plan=plan)
    assert written.agreement.difference < 1e-5
    levels = [t for t in onnx.load(tmp_path / "net.onnx").graph.initializer if t.name.endswith(".levels")]
    assert len(levels) == 3
    for tensor in levels:
        assert tensor.data_type == getattr(onnx.TensorProto, kind)
        assert len(tensor.raw_data) == -(-np.prod(tensor.dims) * width // 1)
    exact = bits == 4
    assert written.notes == (
        () if exact else (f"ONNX has no {bits}-bit integers: 3 tensors of {bits} bits became {kind.lower()}",)
    )


def test_ternary_grids_are_integers_and_other_codebooks_floats(tmp_path):
    model, x = small("digits-net")
    entries = dict(plan_of(model))
    signs = {n: entries[n].values().sign().to(torch.int16) for n in ("classifier.1.weight", "classifier.3.weight")}
    entries["classifier.1.weight"] = Clustered(signs["classifier.1.weight"], 2, codebook=(-0.1, 0.0, 0.1), lowest=-1)
    entries["classifier.3.weight"] = Clustered(signs["classifier.3.weight"], 2, codebook=(-0.1, 0.0, 0.3), lowest=-1)
    conv = entries["features.3.weight"].values()
    entries["features.3.weight"] = Masked(conv, conv.abs() > 0.05)
    plan = Plan(entries)
    written = to_onnx(network_of(plan, model), x, tmp_path / "net.onnx", plan=plan)
    assert written.notes == (
        "ONNX has no 2-bit integers: 1 tensor of 2 bits became int4",
        "1 tensor became float32: pruned floats (zeros take as much as other numbers)",
        "1 tensor became float32: codebooks that are no grid",
    )
    names = {t.name for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert "classifier.1.weight.levels" in names
    assert "classifier.3.weight" in names


def test_equal_biases_with_different_scales(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)).eval()
    for layer in model[::2]:
        nn.init.zeros_(layer.bias)
    x = torch.randn(3, 4)
    net, plan = quantized(model, x)
    assert to_onnx(net, x, tmp_path / "net.onnx", plan=plan).agreement.difference < 1e-5
    names = {t.name for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert {"0.bias.levels", "2.bias.levels", "4.bias.levels"} <= names


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_packing_against_the_onnx_package(bits):
    top = 2 ** (bits - 1) - 1
    levels = np.random.default_rng(0).integers(-top, top + 1, (3, 5))
    kind = {4: "INT4", 8: "INT8", 16: "INT16", 32: "INT32"}[bits]
    tensor = onnx.TensorProto(name="t", data_type=getattr(onnx.TensorProto, kind), dims=levels.shape)
    tensor.raw_data = _packed(levels, bits)
    assert np.array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int64), levels)
    assert smallest_width(3) == 4


original = exporting.graph_of


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What torch exports of the residual network before integers are put in: in float32, INT8, and clustered."""
    model, x = residual(3)
    found: dict[str, object] = {}
    path = tmp_path_factory.mktemp("graphs") / "net.onnx"
    cases = {"float32": (model, None), "int8": quantized(model, x), "clustered": clustered(model, 4)}
    for name, (net, plan) in cases.items():

        def keep(*args: object, name: str = name, **options: object) -> object:
            graph = original(*args, **options)
            found[name] = copy.deepcopy(graph)
            return graph

        with mock.patch.object(exporting, "graph_of", keep):
            to_onnx(net, x, path, plan=plan)
    return found


def tampered(graph: object, name: str, factor: float) -> Callable[..., object]:
    """An exporter that gives this graph with one initializer changed."""
    model = copy.deepcopy(graph)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    changed = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), name))
    return lambda *args, **options: model


@pytest.mark.parametrize("name", ["conv2", "linear"])
def test_the_first_layer_that_diverges_is_named(name, graphs, tmp_path, monkeypatch):
    model, x = residual(3)
    monkeypatch.setattr(exporting, "graph_of", tampered(graphs["float32"], f"{name}.weight", 1.5))
    with pytest.raises(ExportError, match=f"from layer '{name}' on: its output has the root mean square"):
        to_onnx(model, x, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_a_wrong_grid_is_named_too(graphs, tmp_path, monkeypatch):
    model, x = residual(3)
    net, plan = quantized(model, x)
    monkeypatch.setattr(exporting, "graph_of", tampered(graphs["int8"], "quantizers.relu.scale", 0.2))
    with pytest.raises(ExportError, match=r"from layer 'quantizers\.relu' on"):
        to_onnx(net, x, tmp_path / "net.onnx", plan=plan)


def test_weights_that_left_their_grid_are_refused(graphs, tmp_path, monkeypatch):
    model, x = residual(3)
    net, plan = clustered(model, 4)
    monkeypatch.setattr(exporting, "graph_of", tampered(graphs["clustered"], "conv2.weight", 1.0001))
    with pytest.raises(ExportError, match=r"conv2\.weight: torch's exporter changes the weights"):
        to_onnx(net, x, tmp_path / "net.onnx", plan=plan)
    graph = onnx.helper.make_graph([], "g", [], [])
    with pytest.raises(ExportError, match="w: the exported graph has no such weight"):
        put(
            onnx.helper.make_model(graph),
            {"w": Integers(np.ones((2, 3)), np.ones(1, np.float32), 8)},
            {"w": np.ones((2, 3))},
        )


def test_an_optimization_that_changes_the_result_is_not_blamed_on_a_layer(graphs, monkeypatch):
    model, x = residual(3)

    def wrong(data: bytes, feeds: dict[str, np.ndarray], *, optimized: bool = True) -> list[np.ndarray]:
        outputs = run(data, feeds, optimized=optimized)
        return [outputs[0] * 2] if optimized else outputs

    monkeypatch.setattr(compare.runtime, "run", wrong)
    with pytest.raises(ExportError, match="its own optimizations change them"):
        compare.compare(folded(model)[0], graphs["float32"], x, integer=False)


class Two(nn.Module):
    """Two inputs, one of them integers, and outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.scale, self.head = nn.Embedding(20, 8), nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, words: Tensor, context: Tensor) -> dict[str, Any]:
        hidden = torch.relu(self.words(words).mean(1) * self.scale(context))
        return {"scores": self.head(hidden), "rest": (hidden, context + 1)}


def test_several_inputs_and_outputs_have_their_names_and_order(tmp_path):
    torch.manual_seed(0)
    model = Two().eval()
    batch = {"words": torch.arange(12).reshape(3, 4), "context": torch.randn(3, 3)}
    small = fb.compress(model, recipe={"assign": {"method": "ecq", "bits": 4}, "train": None}, progress=None)
    restored, plan = restore(small.data, Two())
    for given in (batch, (batch["words"], batch["context"])):
        written = to_onnx(restored, given, tmp_path / "net.onnx", plan=plan)
        assert written.agreement.difference < 1e-5
        graph = onnx.load(tmp_path / "net.onnx").graph
        assert [value.name for value in graph.input] == ["words", "context"]
        assert [value.name for value in graph.output] == ["output_0", "output_1", "output_2"]
        assert onnx.TensorProto.INT4 in {tensor.data_type for tensor in graph.initializer}
    more = {name: torch.cat([value, value]) for name, value in batch.items()}  # any batch size
    found = run((tmp_path / "net.onnx").read_bytes(), {name: value.numpy() for name, value in more.items()})
    wanted = restored(**more)
    for mine, other in zip((wanted["scores"], *wanted["rest"]), found, strict=True):
        assert np.allclose(mine.detach().numpy(), other, atol=1e-5)


class Idle(nn.Module):
    """A head that only training reads; the last argument is given by its name, past another."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spread, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.body(x))
        spread = self.spread(hidden)
        if self.training:
            hidden = hidden + torch.randn_like(hidden) * spread.exp()
        return self.head(hidden if shift is None else hidden + shift)


def test_what_no_output_depends_on_is_left_out_and_arguments_may_be_passed_over(tmp_path):
    torch.manual_seed(0)
    model, batch = Idle().eval(), {"x": torch.randn(3, 4), "shift": torch.randn(3, 6)}
    small = fb.compress(model, recipe={"assign": {"method": "ecq", "bits": 4}, "train": None}, progress=None)
    restored, plan = restore(small.data, Idle())
    written = to_onnx(restored, batch, tmp_path / "net.onnx", plan=plan)
    assert written.agreement.difference < 1e-5
    assert "left out, as no output depends on it: spread.weight" in written.notes
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [value.name for value in graph.input] == ["x", "shift"]
    assert {t.data_type for t in graph.initializer if "weight.levels" in t.name} == {onnx.TensorProto.INT4}


def test_one_sample_of_several_inputs_leaves_the_batch_open(tmp_path):
    batch = {"words": torch.arange(4)[None], "context": torch.ones(1, 3)}
    to_onnx(Two().eval(), batch, tmp_path / "net.onnx")
    two = {"words": np.zeros((2, 4), np.int64), "context": np.ones((2, 3), np.float32)}
    assert [len(values) for values in run((tmp_path / "net.onnx").read_bytes(), two)] == [2, 2, 2]


class Kept:
    """A cache of an own class, as transformers' decoders return it."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


@dataclass
class Found:
    scores: Tensor
    more: Kept | None = None


def test_what_is_no_tensor_beside_the_outputs_is_left_out(tmp_path):
    class Caching(Two):
        def forward(self, words: Tensor, context: Tensor) -> Any:
            found = super().forward(words, context)
            return (Found(found["scores"], Kept(context)), Kept(words), found["rest"][0])

    batch = {"words": torch.arange(12).reshape(3, 4), "context": torch.randn(3, 3)}
    model = Caching().eval()
    to_onnx(model, batch, tmp_path / "net.onnx")
    one, two = run((tmp_path / "net.onnx").read_bytes(), {name: x.numpy() for name, x in batch.items()})
    wanted = model(**batch)
    assert np.allclose(one, wanted[0].scores.detach().numpy(), atol=1e-5)
    assert np.allclose(two, wanted[2].detach().numpy(), atol=1e-5)


def test_what_is_no_tensor_is_named(tmp_path):
    class Flagged(Two):
        def forward(self, words: Tensor, context: Tensor, twice: bool = False) -> dict[str, Any]:
            return super().forward(words, context * (1 + twice))

    class Mute(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    batch = {"words": torch.arange(4)[None], "context": torch.ones(1, 3), "twice": True}
    with pytest.raises(ExportError, match=r"twice is .*; ONNX export takes networks whose inputs are tensors"):
        to_onnx(Flagged().eval(), batch, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="Mute returns NoneType, no tensor"):
        to_onnx(Mute(), torch.ones(2, 3), tmp_path / "net.onnx")


def test_what_cannot_be_exported_or_run(tmp_path):
    class Weird(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ExportError, match="torch cannot export Weird to ONNX"):
        to_onnx(Weird(), torch.ones(2, 3), tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="does not take this model"):
        session(b"no model")


def test_a_missing_extra_is_one_sentence(tmp_path):
    model, x = residual(3)
    with (
        mock.patch.dict(sys.modules, {"onnxruntime": None}),
        pytest.raises(
            MissingExtraError, match=r"^ONNX needs onnx, onnxruntime and onnxscript: pip install 'fewbits\[onnx\]'$"
        ),
    ):
        to_onnx(model, x, tmp_path / "net.onnx")


class Twice(nn.Module):
    """A convolution and a linear layer that are each called twice, as heads at several scales are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.linear = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(8, 8),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.again(self.first(x).relu()).relu()).relu()
        return self.linear(self.linear(x.mean(1)).relu())


def test_integer_layers_that_are_called_twice(tmp_path: Path) -> None:
    """The runtime's option for wide sums writes their weights anew under one name, and failed on them."""
    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    small = fb.compress(
        Twice(), [(x, torch.zeros(16, 8))], recipe={"assign": {"method": "int8"}, "train": None}, task="regression"
    )
    net, file = small.into(Twice()), tmp_path / "net.onnx"
    to_onnx(net, x, file, plan=small.plan)
    (found,) = run(file.read_bytes(), {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), rtol=0.0, atol=0.02)
    names = [each.name for each in onnx.load(file).graph.initializer]
    assert not any("apart" in name for name in names), "the file has each weight once"
