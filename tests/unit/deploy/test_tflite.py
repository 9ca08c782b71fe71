"""int8 ``.tflite`` files: the levels of the plan, bit-equal to the reference kernels, near to torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewbits as fb
from fewbits.deploy.tflite import to_tflite
from fewbits.errors import MissingExtraError, UnsupportedError
from fewbits.int8 import RangedQuantizer, affine_plan, calibrate, integer_form
from fewbits.int8.clusters import clustered_plan, ranges_of
from fewbits.int8.form import hold_affine
from fewbits.ops import fit
from fewbits.ops.swap import swap
from fewbits.pipeline.restore import network_of
from fewbits.plan import Clustered, Dense, Plan
from tflite_emulation import Emulated

needed = pytest.mark.long  # the extra is there when all tests run


@pytest.fixture
def litert() -> Any:
    return pytest.importorskip("ai_edge_litert.interpreter", reason="the extra tflite")


class Made(nn.Module):
    """Layers, and a forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.given = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.given(self, x)


def conv(before: int, after: int, kernel: int = 3, **more: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel, bias=False, **more), nn.BatchNorm2d(after))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(
        conv(3, 8, padding=1), nn.ReLU(), conv(8, 8, stride=2, padding=1), nn.ReLU6(),
        conv(8, 6, 3, dilation=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(6 * 2 * 2, 5),
    ),
    "depthwise": lambda: nn.Sequential(
        conv(3, 8, 1), nn.ReLU6(), conv(8, 16, padding="same", groups=8), nn.ReLU6(),
        conv(16, 16, stride=2, padding=1, groups=16), nn.Hardtanh(0, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(), nn.Linear(16, 5),
    ),
    "residual": lambda: Made(
        lambda net, x: net.head(torch.relu(net.b(y := torch.relu(net.a(x))) + y).mean((2, 3))),
        a=conv(3, 8, padding=1), b=conv(8, 8, padding=1), head=nn.Linear(8, 5),
    ),
    "shortcut": lambda: Made(
        lambda net, x: net.head((net.b(F.relu(net.a(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))).flatten(1)),
        a=conv(3, 8, padding=1), b=conv(8, 8, stride=2, padding=1), head=nn.Linear(128, 5),
    ),
    "pools": lambda: nn.Sequential(
        nn.MaxPool2d(3, 1, 1), conv(3, 8), nn.ReLU(), nn.MaxPool2d(2, 2, 1), conv(8, 8), nn.AvgPool2d(2, 1, 1),
        conv(8, 8, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ),
    "branches": lambda: Made(
        lambda net, x: net.head(F.avg_pool2d(torch.cat([F.relu(net.a(x)), net.b(x), x], 1), 4).flatten(1)),
        a=conv(3, 4, padding=1), b=conv(3, 4, padding=1), head=nn.Linear(44, 5),
    ),
    "images out": lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), conv(3, 4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 5)),
    "folded linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.BatchNorm1d(20), nn.Linear(20, 5)),
    "turned": lambda: Made(
        lambda net, x: net.head(F.relu(net.a(x).reshape(x.size(0), 2, 16, 16)[:, :, 2:, 1::2]).mean((2, 3))),
        a=conv(3, 8, padding=1), head=nn.Linear(2, 5),
    ),
    "two outputs": lambda: Made(
        lambda net, x: (net.a(x), net.b(x).flatten(1)), a=conv(3, 2), b=conv(3, 2),
    ),
}  # fmt: skip


def integers(model: nn.Module, x: Tensor, step: float = 0.06) -> tuple[nn.Module, Plan]:
    """A network of 4-bit clusters in integer form, and its plan."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)
                module.weight.copy_(torch.randn_like(module.weight).sign() * (1 + torch.rand_like(module.weight)))
                module.bias.normal_(0, 0.3)
    entries: dict[str, Any] = {}
    for name, tensor in model.eval().state_dict().items():
        if name.endswith("weight") and tensor.dim() > 1:
            entries[name] = Clustered((tensor / step).round().clamp(-7, 7).to(torch.int16), 4, step=step)
            tensor.copy_(entries[name].values())
        elif not name.endswith("num_batches_tracked"):
            entries[name] = Dense(tensor.clone())
    plan = clustered_plan(model, Plan(entries), ranges_of(model, [x]))
    return network_of(plan, model), plan


@needed
@pytest.mark.parametrize("name", NETWORKS)
def test_files_compute_what_torch_and_the_reference_kernels_do(name: str, litert: Any, tmp_path: Any) -> None:
    from fewbits.deploy.tflite._package import interpreter, run

    torch.manual_seed(0)
    x = torch.randn(24, 3, 8, 8)
    net, plan = integers(NETWORKS[name](), x)
    found = to_tflite(net, x, tmp_path / "net.tflite", plan=plan)
    data = (tmp_path / "net.tflite").read_bytes()
    assert found.bytes == len(data)
    assert found.near >= 0.98
    assert bool(found.notes) == (name == "turned")  # a rectifier on its own
    detail = interpreter(data).get_input_details()[0]
    levels = np.random.default_rng(0).integers(-128, 128, (6, *detail["shape"][1:])).astype(np.int8)
    for mine, other in zip(Emulated(data)(levels), run(data, [levels], reference=True), strict=True):
        assert np.array_equal(mine, other)
        assert len(np.unique(mine)) > 5


@needed
def test_weights_are_the_levels_and_lie_aligned(litert: Any, tmp_path: Any) -> None:
    from ai_edge_litert import schema_py_generated as s

    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    net, plan = integers(NETWORKS["depthwise"](), x)
    to_tflite(net, x, tmp_path / "net.tflite", plan=plan)
    data = (tmp_path / "net.tflite").read_bytes()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    names = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    for path, order in (("0.0", (0, 2, 3, 1)), ("2.0", (1, 2, 3, 0)), ("9", (0, 1))):
        entry = plan.affine[f"{path}.weight"]
        stored = np.asarray(model.buffers[names[f"{path}.weight"].buffer].data, np.uint8).view(np.int8)
        wanted = entry.levels.numpy().transpose(order)
        assert np.array_equal(stored.reshape(wanted.shape), wanted)
        assert np.abs(stored).max() <= 7
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 16:
            assert data.index(np.asarray(buffer.data, np.uint8).tobytes()) % 16 == 0


@needed
def test_ordinary_int8_takes_ranges_from_the_inputs(
    litert: Any, trained: nn.Module, handwriting: Any, tmp_path: Any
) -> None:
    x, _ = next(iter(handwriting.loader("train", 64)))
    net = integer_form(trained, RangedQuantizer)
    calibrate(net, [x])
    hold_affine(net)
    plan = affine_plan(net)
    found = to_tflite(network_of(plan, trained), x, tmp_path / "net.tflite", plan=plan)
    assert found.notes[-1:] == ("1 value without a grid got the range of the inputs given",)
    assert found.same_class > 0.96
    assert found.operations["CONV_2D"] == sum(isinstance(m, nn.Conv2d) for m in trained.modules())


def made(forward: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Made(forward, a=nn.Conv2d(4, 4, 3))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "function": (made(lambda net, x: net.a(torch.sigmoid(x))), r"sigmoid at %sigmoid is not known here"),
    "module": (lambda: nn.Sequential(conv(4, 4), nn.SiLU(), conv(4, 4)), r"SiLU \(1\) at %_1 is not known here"),
    "groups": (lambda: nn.Sequential(conv(4, 4, groups=2)), r"Conv2d \(0\.0\) at .* has 2 groups of several"),
    "ceiling": (lambda: nn.Sequential(conv(4, 4), nn.MaxPool2d(2, ceil_mode=True)), "rounds its size up"),
    "broadcast": (made(lambda net, x: net.a(x) + x.mean((2, 3), True)), "adds values of the shapes"),
    "constant": (made(lambda net, x: net.a(x) + 1), "add at %add adds a number"),
    "indices": (made(lambda net, x: net.a(x)[:, 1]), "takes something else than slices"),
    "reflection": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "pads with reflect"),
}


@needed
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_one_sentence(name: str, litert: Any, tmp_path: Any) -> None:
    make, message = REFUSED[name]
    torch.manual_seed(0)
    x = torch.randn(4, 4, 8, 8)
    net, plan = integers(make(), x)
    with pytest.raises(UnsupportedError, match=message) as caught:
        to_tflite(net, x, tmp_path / "net.tflite", plan=plan)
    assert str(caught.value).startswith("no int8 .tflite of this network: ")
    assert not list(tmp_path.iterdir())


@needed
def test_inputs_of_whole_numbers_are_refused_by_name(litert: Any, tmp_path: Any) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (4, 4, 8, 8), dtype=torch.uint8)
    net, plan = integers(Made(lambda net, image: net.a(image / 255), a=nn.Conv2d(4, 4, 3)), x)
    with pytest.raises(UnsupportedError, match=r"its input %.* is no tensor of floats"):
        to_tflite(net, x, tmp_path / "net.tflite", plan=plan)


def test_floats_are_refused_and_so_is_a_missing_extra(
    trained: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    x = torch.randn(4, 1, 8, 8)
    with pytest.raises(UnsupportedError, match="compress it with activations: int8"):
        to_tflite(trained, x, tmp_path / "net.tflite", plan=Plan({}))
    net, plan = integers(copy.deepcopy(trained), x)
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewbits\[tflite\]'"):
        to_tflite(net, x, tmp_path / "net.tflite", plan=plan)


@needed
def test_export_by_the_suffix(litert: Any, trained: nn.Module, handwriting: Any, tmp_path: Any) -> None:
    loader = handwriting.loader("train", 64)
    small = fb.compress(trained, loader, recipe={"assign": {"method": "ecq"}, "activations": "int8", "train": None})
    x, _ = next(iter(handwriting.loader("test", 32)))
    size = fb.export(small, tmp_path / "net.tflite", like=trained, inputs=x)
    assert size == (tmp_path / "net.tflite").stat().st_size


def test_a_swapped_network_is_refused_by_the_name_of_its_operation() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    x = torch.randn(4, 1, 6, 6)
    swap(net, {"gelu": fit("gelu", pieces=8)})
    held = integer_form(net, RangedQuantizer)
    calibrate(held, [x])
    hold_affine(held)
    plan = affine_plan(held)
    with pytest.raises(UnsupportedError, match="it computes gelu by lines, for which there are no int8 operators"):
        to_tflite(network_of(plan, net), x, "no/such/folder.tflite", plan=plan)
