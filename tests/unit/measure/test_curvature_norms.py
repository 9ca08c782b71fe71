"""Squared gradients of single samples, whatever the geometry of the layer, against autograd sample by sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.measure.curvature._norms import squares
from fewbits.measure.curvature._tap import Call
from networks import Conv1D

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw) -> nn.Module:
    dims = draw(st.sampled_from(sorted(KINDS)))
    per_axis = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    kernel, spread = per_axis(1, 3), per_axis(1, 2)
    padding = "same" if draw(st.booleans()) else per_axis(0, 2)
    stride = (1,) * dims if padding == "same" else per_axis(1, 3)
    return KINDS[dims](
        groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3)), kernel, stride, padding, spread, groups,
        padding_mode=mode,
    )  # fmt: skip


def check(layer: nn.Module, inputs: list[Tensor], rows: bool, workspace: int) -> None:
    weight, axis = layer.weight, int(isinstance(layer, Conv1D))
    calls, outputs, count = [], [], len(inputs[0])
    for x in inputs:
        outputs.append(layer(x))
        calls.append(Call("layer.weight", layer, x, x._version, torch.randn_like(outputs[-1])))
    found = torch.cat(list(squares(calls, count, rows=rows, workspace=workspace)))
    for n in range(count):
        loss = sum((out[n] * call.delta[n]).sum() for out, call in zip(outputs, calls, strict=True))
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        expected = gradient.square().movedim(axis, 0).flatten(1).sum(1) if rows else gradient.square()
        torch.testing.assert_close(found[n], expected)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@given(layer=convolutions(), uses=st.integers(1, 2), rows=st.booleans(), workspace=st.sampled_from([1, 4000, 1 << 25]))
@settings(max_examples=60)
def test_convolutions(layer, uses, rows, workspace):
    layer.double()
    sizes = [(7, 6, 5)[: len(layer.kernel_size)], (6, 5, 7)[: len(layer.kernel_size)]][:uses]
    check(layer, [torch.randn(3, layer.in_channels, *size).double() for size in sizes], rows, workspace)


@given(
    fan=st.integers(1, 5),
    outputs=st.integers(1, 5),
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=2), min_size=1, max_size=3),
    rows=st.booleans(),
    workspace=st.sampled_from([1, 4000, 1 << 25]),
    kind=st.sampled_from([nn.Linear, Conv1D]),
)
@settings(max_examples=60)
def test_linear_layers_over_any_further_dimensions(fan, outputs, shapes, rows, workspace, kind):
    layer = (nn.Linear(fan, outputs) if kind is nn.Linear else Conv1D(outputs, fan)).double()
    check(layer, [torch.randn(4, *shape, fan).double() for shape in shapes], rows, workspace)


def test_both_forms_are_taken_and_a_chunk_is_as_large_as_allowed():
    few, many = nn.Conv2d(8, 8, 3).double(), nn.Conv2d(1, 2, 3).double()  # positions against rows times columns
    for layer, size, workspace in ((few, 3, 5000), (many, 12, 60_000)):
        x = torch.randn(20, layer.in_channels, size, size).double()
        call = Call("layer.weight", layer, x, x._version, torch.randn_like(layer(x)))
        sizes = [len(part) for part in squares([call], 20, rows=True, workspace=workspace)]
        assert sum(sizes) == 20
        assert 1 < len(sizes) < 20
        check(layer, [x], True, workspace)
