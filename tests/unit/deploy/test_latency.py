"""Timing: whose turn it is, what is compared with what, and what cannot be timed."""

from __future__ import annotations

import numpy as np
import pytest

from fewbits.deploy import latency
from fewbits.deploy.latency import Latency, measure_latency
from fewbits.deploy.onnx.runtime import session
from fewbits.errors import ExportError, RecipeError

onnx = pytest.importorskip("onnx")


def model(width: int = 3, *, batch: object = "batch", layers: int = 1, kind: str = "FLOAT") -> bytes:
    """``layers`` products with a square matrix."""
    helper, number = onnx.helper, getattr(onnx.TensorProto, kind)
    matrix = onnx.numpy_helper.from_array(np.eye(width, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(layers)]
    ends = [helper.make_tensor_value_info(f"x{i}", number, [batch, width]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [matrix])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(latency, "BURST", 2e-4)


def test_rows_medians_and_ratios():
    models = {"small": model(), "large": model(256, layers=20)}
    rows = measure_latency(models, batches=(1, 16), rounds=4)
    assert [(row.name, row.batch) for row in rows] == [("small", 1), ("large", 1), ("small", 16), ("large", 16)]
    for row in rows:
        assert row.bytes == len(models[row.name])
        assert row.calls >= 4
        assert 0 < row.fast <= row.seconds <= row.slow
        assert row.throughput == pytest.approx(row.batch / row.seconds)
    for small, large in (rows[:2], rows[2:]):
        assert small.speedup == 1.0
        assert large.speedup == pytest.approx(small.seconds / large.seconds)
        assert large.speedup < 0.5


def test_models_take_turns_forward_and_backward(monkeypatch):
    order = []
    monkeypatch.setattr(latency, "_burst", lambda made, inputs, clock: order.append(made) or [1.0])
    monkeypatch.setattr(latency, "session", lambda data, threads: data)
    monkeypatch.setattr(latency, "_input", lambda *args: {})
    rows = measure_latency({"a": b"A", "b": b"B"}, batches=(1,), rounds=2)
    assert order == [b"B", b"A", b"A", b"B", b"B", b"A", b"A", b"B"]
    assert rows[0] == Latency("a", 1, 1, 1, 1.0, 1.0, 1.0, 2, 1.0)  # two warm-up bursts are not counted


def test_seconds_are_those_of_the_clock(monkeypatch):
    class Made:
        def run(self, outputs, inputs):
            pass

    ticks = iter(range(10_000))
    monkeypatch.setattr(latency, "session", lambda data, threads: Made())
    monkeypatch.setattr(latency, "_input", lambda *args: {})
    (row,) = measure_latency({"a": b"A"}, batches=(1,), rounds=3, clock=lambda: 0.5 * next(ticks))
    assert (row.seconds, row.fast, row.slow, row.calls) == (0.5, 0.5, 0.5, 3)


def clustered(*, integer_activations: bool) -> bytes:
    """A product with int8 weights that are scaled, by inputs that are rounded to 8 bits or not."""
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    weights = [array(np.eye(3, dtype=np.int8), "w"), array(np.float32(0.5), "s"), array(np.int8(0), "z")]
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"])]
    if integer_activations:
        nodes += [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
        nodes += [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"])]
    nodes += [helper.make_node("MatMul", ["r" if integer_activations else "x", "d"], ["y"])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.mark.parametrize("integer_activations", [False, True])
def test_clusters_become_floats_once_where_activations_are_floats(integer_activations, monkeypatch, tmp_path):
    import onnxruntime as ort

    original, kept = ort.InferenceSession, tmp_path / "optimized.onnx"

    def written(data, options, **rest):
        options.optimized_model_filepath = str(kept)
        return original(data, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", written)
    made = session(clustered(integer_activations=integer_activations))
    x = np.float32([[1, -2, 3]])
    np.testing.assert_allclose(made.run(None, {"x": x})[0], x / 2)
    left = {node.op_type for node in onnx.load(kept).graph.node}
    assert ("QuantizeLinear" in left) == integer_activations
    assert integer_activations or left <= {"MatMul", "FusedMatMul", "Gemm"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batches": (0,)}, RecipeError, "batch must be at least 1, got 0"),
        ({"threads": 0}, RecipeError, "threads must be at least 1"),
        ({"rounds": 0}, RecipeError, "rounds must be at least 1"),
        ({"batches": ()}, RecipeError, "batch must be"),
    ],
)
def test_impossible_numbers(options, error, message):
    with pytest.raises(error, match=message):
        measure_latency({"a": model()}, **options)


def test_impossible_models():
    with pytest.raises(ExportError, match="a takes batches of 2 only, not of 1"):
        measure_latency({"a": model(batch=2)}, batches=(1,))
    with pytest.raises(ExportError, match="a has an input of tensor"):
        measure_latency({"a": double()}, batches=(1,))


def double() -> bytes:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
