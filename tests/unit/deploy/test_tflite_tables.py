"""Weights as look-up tables: coded as TFLite-Micro decodes them, and the rest of the file as before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_tflite import Made, conv, integers
from torch import nn

from fewbits.deploy.tflite import to_tflite
from fewbits.deploy.tflite._lut import HEADER, OPERATOR, constant, decoded, encoded, memory
from fewbits.deploy.tflite._package import interpreter
from fewbits.errors import ExportError
from tflite_emulation import Emulated

needed = pytest.mark.long  # the extra is there when all tests run


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=128, unique=True), st.integers(1, 300), st.integers(0, 9))
def test_indices_are_bits_from_the_highest_on(values: list[int], count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.choice(np.array(values, np.int8), count)
    found = encoded(levels)
    assert found is not None
    indices, ancillary = found
    bits = int(ancillary[5])
    assert ancillary[:HEADER].tolist() == [0, 1, 0, 0, 1, bits, 0] + [0] * 9
    assert len(ancillary) == HEADER + 2**bits
    assert 2 ** (bits - 1) < len(set(levels.tolist())) or bits == 1
    text = "".join(f"{byte:08b}" for byte in indices)
    by_hand = [int(text[at * bits : (at + 1) * bits], 2) for at in range(count)]
    assert [int(ancillary.view(np.int8)[HEADER + index]) for index in by_hand] == levels.tolist()
    assert len(text) - count * bits < 8
    for channels, last in ((1, False), (count, False), (count, True)):  # one table for all of them
        assert np.array_equal(decoded(indices, ancillary, (count,), channels, last), levels)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.booleans(), st.integers(0, 9))
def test_a_table_for_each_channel_is_read_as_the_kernel_does(
    bits: int, channels: int, each: int, last: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tables = rng.integers(-128, 128, (channels, 2**bits)).astype(np.int8)
    index = rng.integers(0, 2**bits, (each, channels) if last else (channels, each))
    text = "".join(f"{i:0{bits}b}" for i in index.ravel())
    text += "0" * (-len(text) % 8)
    packed = np.array([int(text[at : at + 8], 2) for at in range(0, len(text), 8)], np.uint8)
    header = np.array([0, 1, 0, 0, 1, bits, 2**bits, *[0] * 9], np.uint8)
    ancillary = np.concatenate([header, tables.ravel().view(np.uint8)])
    expected = tables[np.arange(channels), index] if last else np.take_along_axis(tables, index, 1)
    assert np.array_equal(decoded(packed, ancillary, index.shape, channels, last), expected)


def test_what_is_no_table_is_refused() -> None:
    assert encoded(np.arange(-128, 1).astype(np.int8)) is None, "129 values have eight bits"
    indices, ancillary = encoded(np.array([3, 3, 5, 7, 9], np.int8)) or (None, None)
    assert indices is not None
    assert ancillary is not None
    with pytest.raises(ExportError, match="5 indices of 2 bits do not lie in 1 bytes"):
        decoded(indices[:1], ancillary, (5,))
    with pytest.raises(ExportError, match="no header of a look-up table"):
        decoded(indices, np.where(np.arange(len(ancillary)) == 0, 2, ancillary).astype(np.uint8), (5,))
    with pytest.raises(ExportError, match="behind its table"):
        decoded(indices, ancillary[:-2], (5,))


class _Graph:
    """Operators as the schema has them: what they read, what they give."""

    def __init__(self, sizes: list[int], inputs: list[int], operators: list[tuple[list[int], int]]) -> None:
        made = lambda **values: type("Made", (), values)()  # noqa: E731
        self.tensors = [made(shape=[1, size]) for size in sizes]
        self.inputs, self.outputs = inputs, [operators[-1][1]]
        self.operators = [made(inputs=given, outputs=[out]) for given, out in operators]


def test_memory_is_that_of_values_at_once() -> None:
    # 0 -> 1 -> 2, and 2 + 1 -> 3; constants (4) take none
    graph = _Graph([16, 160, 32, 48, 9999], [0], [([0, 4], 1), ([1], 2), ([2, 1], 3)])
    assert memory(graph) == 160 + 32 + 48
    assert memory(_Graph([1, 1], [0], [([0], 1)])) == 32, "each is aligned"


@needed
def test_a_file_with_tables_computes_the_same_and_is_smaller(tmp_path: Path) -> None:
    s = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the extra tflite")
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    shared = nn.Conv2d(24, 24, 3, padding=1, groups=24)
    net, plan = integers(
        Made(
            lambda net, x: net.head(torch.relu(net.c(torch.relu(net.b(torch.relu(net.a(x)))))).mean((2, 3))),
            a=conv(3, 24, padding=1), b=shared, c=conv(24, 64), head=nn.Linear(64, 40),
        ), x,
    )  # fmt: skip
    plain = to_tflite(net, x, tmp_path / "plain.tflite", plan=plan)
    small = to_tflite(net, x, tmp_path / "small.tflite", plan=plan, lut=True)
    assert small.tables is not None
    assert (small.tables.bytes, small.tables.plain_bytes) == (small.bytes, plain.bytes)
    assert small.bytes == (tmp_path / "small.tflite").stat().st_size < 0.75 * plain.bytes
    assert small.tables.tables == 2, "of small layers no table is worth it"
    assert small.tables.memory >= 9 * 24 * 64 + small.tables.plain_memory / 2, "the largest weight is unpacked"
    data = (tmp_path / "small.tflite").read_bytes()
    with pytest.raises(ExportError, match=OPERATOR):  # LiteRT has no such operator
        interpreter(data)
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    graph, values = model.subgraphs[0], {}
    for place, operator in enumerate(graph.operators):
        if model.operatorCodes[operator.opcodeIndex].builtinCode == s.BuiltinOperator.CUSTOM:
            (out,) = operator.outputs
            assert out in graph.operators[place + 1].inputs, "right in front of the layer"
            tensor = graph.tensors[out]
            table, shape = constant(model, graph.tensors[operator.inputs[1]]), tuple(tensor.shape)
            indices = constant(model, graph.tensors[operator.inputs[0]])
            values[int(out)] = decoded(indices, table, shape, len(tensor.quantization.scale))
    whole = Emulated((tmp_path / "plain.tflite").read_bytes())
    tabled = _WithTables(data, values)
    levels = np.random.default_rng(0).integers(-128, 128, (4, 8, 8, 3)).astype(np.int8)
    assert np.array_equal(whole(levels)[0], tabled(levels)[0])


class _WithTables(Emulated):
    """A file whose weights were decoded before."""

    def __init__(self, data: bytes, values: dict[int, Any]) -> None:
        super().__init__(data)
        custom = {place for place, kind in enumerate(self.model.operatorCodes) if kind.builtinCode == 32}
        self.graph = copy.copy(self.graph)
        self.graph.operators = [one for one in self.graph.operators if one.opcodeIndex not in custom]
        self.given = values

    def get(self, index: int) -> Any:
        return self.given[index].astype(np.int64) if index in self.given else super().get(index)
