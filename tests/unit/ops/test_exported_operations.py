"""All approximations in one exported graph: ordinary ONNX operators, and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits.ops import Approximated, fit

pytest.importorskip("onnx", reason="needs pip install 'fewbits[onnx]'")
runtime = pytest.importorskip("onnxruntime", reason="needs pip install 'fewbits[onnx]'")

from fewbits.deploy.onnx._graph import graph_of  # noqa: E402

SHORT = [
    (fit("gelu", error=1e-2), {}),
    (fit("tanh", bits=8), {}),
    (fit("softmax", bits=8), {}),
    (fit("rms_norm", degree=2), {"shape": (24,)}),
]
LONG = [
    *((fit(name, **size), {}) for name in ("sigmoid", "silu", "erf") for size in ({"pieces": 9}, {"degree": 5})),
    (fit("gelu", kind="table", pieces=100), {}),
    (fit("gelu_tanh", bits=9), {}),
    (fit("exp", degree=3), {}),
    (fit("log", degree=3), {}),
    (fit("rsqrt", pieces=6), {}),
    (fit("reciprocal", pieces=6), {}),
    (fit("softmax", degree=2), {}),
    (fit("softmax", kind="relu"), {}),
    (fit("gelu", kind="squared-relu"), {}),
    (fit("layer_norm", bits=8), {"shape": (24,)}),
    (fit("layer_norm", error=1e-3), {"shape": (24,)}),
    (fit("rms_norm", bits=10), {"shape": (24,)}),
]


class Side(nn.Module):
    """Several of them beside each other."""

    def __init__(self, parts: list) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Approximated(found, **options) for found, options in parts)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x.abs() + 0.1 if "log" in repr(part) else x) for part in self.parts)


@pytest.mark.long
@pytest.mark.parametrize("parts", [SHORT, LONG], ids=["some", "all"])
def test_onnx_runtime_gives_the_same_numbers(parts: list) -> None:
    network = Side(parts).eval()
    x = 3 * torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    x[0, :4] = torch.tensor([0.0, 8.0, -8.0, 30.0])
    graph = graph_of(network, x, outputs=len(parts))
    assert {node.domain for node in graph.graph.node} == {""}
    outputs = runtime.InferenceSession(graph.SerializeToString()).run(None, {"input": x.numpy()})
    for (found, _), there, here in zip(parts, outputs, network(x), strict=True):
        if found.kind == "integer":
            assert np.array_equal(there, here.numpy()), found
        else:
            np.testing.assert_allclose(there, here.numpy(), rtol=1e-6, atol=1e-6, err_msg=str(found))
