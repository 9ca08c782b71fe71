"""Networks that lie in ONNX files: weights compressed, the graph as it came."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fewbits as fb
from fewbits.deploy.onnx import OnnxNetwork, from_onnx, to_onnx
from fewbits.errors import DataError, FileError, RecipeError, SelectionError, UnsupportedError
from fewbits.pipeline.restore import restore
from fewbits.weights import select

onnx = pytest.importorskip("onnx")
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def numbers(*shape: int, kind: Any = np.float32) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(kind)


def proto(
    nodes: list[Any], tensors: dict[str, Any], inputs: dict[str, Any], outputs: list[str], opset: int = 17
) -> Any:
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info(name, *what) for name, what in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


def image_net(opset: int = 17) -> Any:
    """A convolution, and a matrix that is a constant behind a transpose; names as exporters give them."""
    node = onnx.helper.make_node
    matrix = onnx.numpy_helper.from_array(numbers(5, 32), "value")
    nodes = [
        node("Conv", ["input.1", "conv.weight", "conv.bias"], ["h"], pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("ReduceMean", ["r"], ["m"], axes=[2, 3], keepdims=0),
        node("Constant", [], ["onnx::MatMul_3"], value=matrix),
        node("Transpose", ["onnx::MatMul_3"], ["t"], perm=[1, 0]),
        node("MatMul", ["m", "t"], ["p"]),
        node("Add", ["p", "conv"], ["scores"]),
    ]
    tensors = {"conv.weight": numbers(32, 3, 3, 3), "conv.bias": numbers(32), "conv": numbers(1, 5)}
    return proto(nodes, tensors, {"input.1": (FLOAT, ["n", 3, 8, 8])}, ["scores"], opset)


def text_net() -> Any:
    """Two inputs and two outputs, an embedding and an LSTM."""
    node = onnx.helper.make_node
    nodes = [
        node("Gather", ["table", "words"], ["e"]),
        node("Transpose", ["e"], ["s"], perm=[1, 0, 2]),
        node("LSTM", ["s", "w", "r"], ["y", "hidden"], hidden_size=6),
        node("Mul", ["hidden", "factor"], ["scaled"]),
    ]
    tensors = {"table": numbers(50, 8), "w": numbers(1, 24, 8), "r": numbers(1, 24, 6)}
    return proto(nodes, tensors, {"words": (INT64, ["n", 4]), "factor": (FLOAT, ["n", 6])}, ["y", "scaled"])


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_a_graph_computes_what_the_runtime_does_and_names_its_weights() -> None:
    net, x = OnnxNetwork(image_net()), images()
    expected = torch.nn.functional.conv2d(
        x, torch.from_numpy(numbers(32, 3, 3, 3)), torch.from_numpy(numbers(32)), padding=1
    )
    expected = expected.relu().mean((2, 3)) @ torch.from_numpy(numbers(5, 32)).T + torch.from_numpy(numbers(1, 5))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert list(select(net)) == ["conv.weight", "tensors.onnx__MatMul_3"]
    assert set(net.names.values()) == {"conv.weight", "conv.bias", "conv", "onnx::MatMul_3"}
    assert len(dict(net.named_parameters())) == 4


def test_outputs_follow_the_parameters_and_copies_are_their_own() -> None:
    net, x = OnnxNetwork(image_net()), images()
    before, other = net(x), copy.deepcopy(net)
    with torch.no_grad():
        next(p for n, p in other.named_parameters() if n == "conv.bias").add_(1)
    assert torch.equal(net(x), before)
    assert not torch.equal(other(x), before)


def test_from_the_file_to_a_smaller_one_and_back_as_onnx(tmp_path: Path) -> None:
    onnx.save(image_net(), tmp_path / "net.onnx")
    net, x = from_onnx(tmp_path / "net.onnx"), images()
    small = fb.compress(net, evaluate=[(x, net(x).argmax(1))], target=900, progress=None)
    assert small.report.file_bytes <= 900
    assert small.report.identical
    small.save(tmp_path / "net.few")
    loaded = fb.load(tmp_path / "net.few", like=from_onnx(tmp_path / "net.onnx"))
    fb.export(tmp_path / "net.few", tmp_path / "small.onnx", like=net, inputs=x)
    written = onnx.load(tmp_path / "small.onnx")
    assert [n.op_type for n in written.graph.node][-6:] == ["Conv", "Relu", "ReduceMean", "Transpose", "MatMul", "Add"]
    kinds = {t.name: t.data_type for t in written.graph.initializer}
    assert kinds["conv.weight.levels"] == kinds["onnx::MatMul_3.levels"] == onnx.TensorProto.INT8
    again = from_onnx(tmp_path / "small.onnx")
    torch.testing.assert_close(again(x), loaded(x), rtol=1e-5, atol=1e-5)


def test_opset_21_has_integers_of_4_bits_and_older_ones_say_so(tmp_path: Path) -> None:
    for opset, kind, said in ((21, onnx.TensorProto.INT4, 0), (17, onnx.TensorProto.INT8, 1), (9, FLOAT, 1)):
        model = image_net(17)
        model.opset_import[0].version = opset
        if opset == 21:  # axes became an input
            node = next(n for n in model.graph.node if n.op_type == "ReduceMean")
            del node.attribute[:]
            node.input.append("axes")
            node.attribute.append(onnx.helper.make_attribute("keepdims", 0))
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
        net = OnnxNetwork(model)
        small = fb.compress(net, progress=None)
        restored, plan = restore(small.data, net)
        wrote = to_onnx(restored, images(), tmp_path / "net.onnx", plan=plan)
        found = {t.data_type for t in onnx.load(tmp_path / "net.onnx").graph.initializer if "weight" in t.name}
        assert kind in found
        assert len(wrote.notes) == said


def test_several_inputs_and_outputs_integers_and_recurrent_weights(tmp_path: Path) -> None:
    net = OnnxNetwork(text_net())
    batch = {"words": torch.arange(12).reshape(3, 4), "factor": torch.ones(3, 6)}
    found = net(**batch)
    assert list(found) == ["y", "scaled"]
    assert set(select(net)) == {"tensors.table", "tensors.w", "tensors.r"}
    small = fb.compress(
        net, [(batch["words"], batch["factor"], torch.zeros(3))], recipe=WITHOUT_TRAINING, progress=None
    )
    assert small.report.identical
    restored, plan = restore(small.data, OnnxNetwork(text_net()))
    to_onnx(restored, batch, tmp_path / "net.onnx", plan=plan)
    again = from_onnx(tmp_path / "net.onnx")(**batch)
    torch.testing.assert_close(again["scaled"], restored(**batch)["scaled"])


WITHOUT_TRAINING = {"assign": {"method": "ecq", "lam": 0.05}, "train": None}


def test_halves_stay_halves_in_the_graph(tmp_path: Path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model = proto([node], {"w": numbers(8, 4, kind=np.float16)}, {"x": (onnx.TensorProto.FLOAT16, ["n", 8])}, ["y"])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    net = OnnxNetwork(model)
    x = torch.ones(2, 8, dtype=torch.float16)
    assert net(x).dtype == torch.float16
    small = fb.compress(net, progress=None)
    restored, plan = restore(small.data, net)
    wrote = to_onnx(restored, x, tmp_path / "net.onnx", plan=plan)
    assert wrote.notes == ("1 tensor stayed float: they are not in float32",)
    assert onnx.load(tmp_path / "net.onnx").graph.initializer[0].data_type == onnx.TensorProto.FLOAT16


def test_a_graph_of_one_batch_size_is_given_whole_batches() -> None:
    model = image_net()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 128
    data = [(images(128), torch.zeros(128))]
    small = fb.compress(OnnxNetwork(model), data, recipe=WITHOUT_TRAINING, progress=None)
    assert small.report.identical


def test_any_name_of_a_tensor_has_a_place() -> None:
    names = ["a", "a.b", "parametrizations.x", "..", "_c", "forward", "half.d", "tensors.e", "tensors", "x:y", "x_y"]
    nodes = [onnx.helper.make_node("Identity", [name], [f"o{n}"]) for n, name in enumerate(names)]
    tensors = {name: numbers(2, n + 1) for n, name in enumerate(names)}
    net = OnnxNetwork(proto(nodes, tensors, {"in": (FLOAT, [1])}, [f"o{n}" for n in range(len(names))]))
    assert sorted(net.names.values()) == sorted(names)
    found = net(torch.zeros(1))
    for n, name in enumerate(names):
        assert np.array_equal(found[f"o{n}"].numpy(), tensors[name])


def test_tensors_beside_the_file_are_read(tmp_path: Path) -> None:
    onnx.save(image_net(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.bin")
    whole = OnnxNetwork(image_net())
    assert torch.equal(from_onnx(tmp_path / "net.onnx")(images()), whole(images()))


def test_what_no_runtime_can_do_is_refused_in_a_sentence(tmp_path: Path) -> None:
    net, x = OnnxNetwork(image_net()), images()
    data = [(x, torch.zeros(6).long())]
    with pytest.raises(UnsupportedError, match=r"no gradient of the loss reaches OnnxNetwork.*leave train out"):
        fb.compress(net, data, progress=None)
    with pytest.raises(UnsupportedError, match="no gradient of the loss reaches OnnxNetwork"):
        fb.compress(net, data, recipe={"assign": {"method": "ecqx"}, "train": None}, progress=None)
    with pytest.raises(UnsupportedError, match=r"cannot read the structure of OnnxNetwork.*ecq"):
        fb.compress(net, data, recipe={"assign": {"method": "int8"}}, progress=None)
    with pytest.raises(DataError, match=r"the graph takes input.1, but was given 2 by place"):
        net(x, x)
    with pytest.raises(DataError, match=r"the graph takes input.1, but was given pixels and more"):
        net({"pixels": x, "more": x})
    with pytest.raises(DataError, match=r"the graph's input input.1 is a tensor, but was given list \(\[6"):
        net([x])
    with pytest.raises(DataError, match="ONNX Runtime fails on these inputs"):
        net(x[:, :2])


def test_integers_and_bfloat16_are_refused(tmp_path: Path) -> None:
    model = image_net()
    del model.graph.initializer[2:]
    model.graph.node[-1].input[1] = "p"
    net = OnnxNetwork(model)
    to_onnx(net, images(), tmp_path / "int.onnx", plan=restore(fb.compress(net, progress=None).data, net)[1])
    with pytest.raises(SelectionError, match="OnnxNetwork has no linear or convolutional layer to compress"):
        fb.compress(from_onnx(tmp_path / "int.onnx"), progress=None)
    model = image_net()
    model.graph.initializer[1].data_type = onnx.TensorProto.BFLOAT16
    with pytest.raises(UnsupportedError, match=r"conv.bias is in bfloat16"):
        OnnxNetwork(model)


def test_files_that_are_none(tmp_path: Path) -> None:
    onnx.save(image_net(), tmp_path / "net.onnx")
    with pytest.raises(FileError, match=r"there is no file .*nett.onnx.*did you mean 'net.onnx'"):
        from_onnx(tmp_path / "nett.onnx")
    for damage in (b"", b"no graph", (tmp_path / "net.onnx").read_bytes()[:500]):
        (tmp_path / "bad.onnx").write_bytes(damage)
        with pytest.raises(FileError, match=r"bad.onnx is no sound ONNX file"):
            from_onnx(tmp_path / "bad.onnx")


def test_compression_without_any_data() -> None:
    """What looks at no batch needs none; what does says so."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.ReLU(), torch.nn.Linear(40, 3))
    small = fb.compress(net, target=240, progress=None)
    assert small.report.file_bytes <= 240
    assert small.report.identical
    assert torch.equal(
        small.into(copy.deepcopy(net))(torch.ones(2, 6)), small.into(copy.deepcopy(net))(torch.ones(2, 6))
    )
    with pytest.raises(DataError, match="this recipe looks at batches, and no train= was given"):
        fb.compress(net, recipe="ecqx-4bit", progress=None)
    with pytest.raises(RecipeError, match="steps is about batches of train: give train, or leave steps out"):
        fb.compress(net, steps=5, progress=None)
    with pytest.raises(RecipeError, match=r"a teacher needs train\.distill"):
        fb.compress(net, teacher=net, recipe={"assign": {"method": "ecq"}, "train": {"distill": 0.5}}, progress=None)
