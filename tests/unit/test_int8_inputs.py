"""INT8 of networks that no tracer goes through: each layer's input on a grid, in the network's own forward."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import fewbits as fb
from attention_networks import Block, Gated, Heads, Writing
from fewbits.errors import DataError, UnsupportedError
from fewbits.int8 import RangedQuantizer, calibrate, grid_of, integer_form
from fewbits.int8.affine_grid import fake_quantize, range_parameters, to_levels, weight_scales
from fewbits.int8.form import affine_plan, grids, hold_affine
from fewbits.pipeline.restore import holds, restore
from fewbits.task import Task

RECIPE = {
    "train": None,
    "rounds": 1,
    "coding": "fast",
    "assign": {"method": "int8"},
    "activations": {"calibrate": 2},
}


def writing(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = Writing().eval()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model


def block(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Block(Heads(share=2), Gated()).eval()


def batches(*shape: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(4, *shape, generator=generator), torch.zeros(4)) for _ in range(3)]


def task() -> Task:
    return Task(loss=lambda outputs, targets: outputs.square().mean(), outputs=lambda outputs: outputs)


@pytest.mark.parametrize(("make", "shape"), [(writing, (2, 8, 8)), (block, (6, 5))], ids=["convolutions", "attention"])
def test_a_file_needs_nothing_but_the_class(make, shape: tuple[int, ...], tmp_path: Path) -> None:
    model, data = make(0), batches(*shape)
    small = fb.compress(model, data, task=task(), recipe=RECIPE)
    assert small.report.identical
    small.save(tmp_path / "net.few")
    net, plan = restore((tmp_path / "net.few").read_bytes(), make(1))
    again = fb.load(tmp_path / "net.few", like=make(2))
    assert holds(net, plan)
    x = data[0][0]
    with torch.no_grad():
        assert torch.equal(net(x), again(x))
        assert float((net(x) - model(x)).abs().max()) < 0.1 * float(model(x).abs().max())
        assert not torch.equal(net(x), model(x))
    layers = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in model.modules())
    assert len(plan.affine) == layers
    assert len(grids(net)) == layers


def test_normalisation_is_folded_as_it_is_seen_in_a_run() -> None:
    model, x = writing(0), batches(2, 8, 8)[0][0]
    form = integer_form(model, RangedQuantizer, inputs=x)
    plain = integer_form(model, RangedQuantizer)
    assert isinstance(form.norm, nn.Identity)
    assert isinstance(plain.norm, nn.BatchNorm2d)
    for net in (form, plain):
        for module in net.modules():
            if isinstance(module, RangedQuantizer):
                module.observing = True
        with torch.no_grad():
            assert torch.allclose(net(x), model(x), atol=1e-5)
    assert isinstance(model.norm, nn.BatchNorm2d)


class Tokens(nn.Module):
    """A normalisation over the second of three dimensions, behind a linear layer of as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.tolist()
        x += 1  # in place, too
        return self.head(self.norm(self.first(x)).mean(1))


def test_a_normalisation_over_another_dimension_is_not_folded() -> None:
    torch.manual_seed(0)
    model, x = Tokens().eval(), torch.randn(4, 6, 5)
    nn.init.normal_(model.norm.running_mean)
    before = x.clone()
    form = integer_form(model, RangedQuantizer, inputs=x)
    assert torch.equal(x, before)
    assert isinstance(form.norm, nn.BatchNorm1d)
    calibrate(form, [x.clone()])
    with torch.no_grad():
        assert torch.allclose(form(x.clone()), model(x.clone()), atol=0.05)


class OneSize(nn.Module):
    """Takes batches of four alone, as it compares their samples with features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.tolist()
        h = self.first(x)
        return self.head(h * h.mean(1))


def test_a_network_that_takes_batches_of_one_size_is_read_on_them() -> None:
    torch.manual_seed(0)
    model, data = OneSize().eval(), batches(5)
    small = fb.compress(model, data, task=task(), recipe={"assign": {"method": "int8"}, "train": None}, progress=None)
    assert small.report.identical


def test_it_computes_what_integers_do() -> None:
    """Against a forward pass written by hand, quantizer by quantizer."""
    model, data = writing(0), batches(2, 8, 8)
    form = integer_form(model, RangedQuantizer, inputs=data[0][0])
    calibrate(form, (x for x, _ in data))
    hold_affine(form)
    factor = model.norm.weight / torch.sqrt(model.norm.running_var + model.norm.eps)
    first = model.conv.weight * factor.view(-1, 1, 1, 1)
    bias = model.norm.bias - model.norm.running_mean * factor
    held = [first, model.second.weight, model.head.weight]
    held = [to_levels(w, weight_scales(w)) * weight_scales(w).view([-1] + [1] * (w.dim() - 1)) for w in held]

    def float_values(x: torch.Tensor) -> list[torch.Tensor]:
        y = torch.relu(torch.nn.functional.conv2d(x, first, bias))
        z = torch.relu(model.second(y)).mean((2, 3))
        return [x, y, z]

    values = [float_values(x) for x, _ in data]
    ranges = [
        range_parameters(
            torch.stack([v[i].min() for v in values]).mean(), torch.stack([v[i].max() for v in values]).mean()
        )
        for i in range(3)
    ]
    x = data[1][0]
    y = torch.relu(torch.nn.functional.conv2d(fake_quantize(x, *ranges[0]), held[0], bias))
    z = torch.relu(torch.nn.functional.conv2d(fake_quantize(y, *ranges[1]), held[1], model.second.bias)).mean((2, 3))
    wanted = torch.nn.functional.linear(fake_quantize(z, *ranges[2]), held[2], model.head.bias)
    with torch.no_grad():
        assert torch.allclose(form(x), wanted, atol=1e-4)


def test_copies_have_quantizers_of_their_own_and_ranges_are_trained() -> None:
    model, data = block(0), batches(6, 5)
    form = integer_form(model, RangedQuantizer)
    calibrate(form, (x for x, _ in data))
    other = copy.deepcopy(form)
    for module in other.quantizers.modules():
        if isinstance(module, RangedQuantizer):
            module.learn()
    x = data[0][0]
    before = form(x)
    other.train()(x).square().mean().backward()
    found = [m.high.grad for m in other.quantizers.modules() if isinstance(m, RangedQuantizer)]
    assert all(gradient is not None for gradient in found)
    with torch.no_grad():
        for parameter in other.quantizers.parameters():
            parameter.mul_(0.1)
    assert torch.equal(form(x), before)
    assert not torch.equal(other.eval()(x), before)


def test_attention_of_torch_computes_with_a_weight_of_a_layer_that_it_does_not_call() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.tolist()
            return self.head(self.attention(x, x, x)[0].mean(1))

    form = integer_form(Attending(), RangedQuantizer)
    assert grids(form) == {"head": "quantizers.head_input"}
    calibrate(form, [torch.randn(2, 5, 8)])
    assert "attention.out_proj.weight" in affine_plan_of(form)


def affine_plan_of(form: nn.Module) -> set[str]:
    hold_affine(form)
    return set(affine_plan(form).affine)


def test_clusters_with_integer_activations_and_training_go_through() -> None:
    recipe = {
        "train": {"epochs": 1, "lr": 1e-3},
        "rounds": 1,
        "assign": {"method": "ecq", "bits": 4, "lam": 0.01},
        "activations": {"calibrate": 1},
    }
    small = fb.compress(writing(0), batches(2, 8, 8), task=task(), recipe=recipe)
    assert small.report.identical
    trained = fb.compress(block(0), batches(6, 5), task=task(), recipe=RECIPE | {"train": {"epochs": 1, "lr": 1e-3}})
    assert trained.report.identical


@pytest.mark.long
def test_onnx_has_the_integers_and_tflite_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from fewbits.deploy.onnx import to_onnx
    from fewbits.deploy.tflite import to_tflite

    data = batches(2, 8, 8)
    net, plan = restore(fb.compress(writing(0), data, task=task(), recipe=RECIPE).data, writing(1))
    found = to_onnx(net, data[0][0], tmp_path / "net.onnx", plan=plan)
    assert found.agreement.difference < 1e-2
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 3
    kinds = [t.data_type for t in graph.initializer if t.name.endswith("weight.levels")]
    assert kinds == [onnx.TensorProto.INT8] * 3
    with pytest.raises(UnsupportedError, match="Writing has integers in its layers and floats between"):
        to_tflite(net, data[0][0], tmp_path / "net.tflite", plan=plan)


def test_a_batch_that_the_network_does_not_take_is_named() -> None:
    with pytest.raises(DataError, match=r"batch 1 of the calibration data: Writing does not take inputs of \[4, 3, 8"):
        fb.compress(writing(0), batches(3, 8, 8), task=task(), recipe=RECIPE)


def test_what_a_tracer_reads_keeps_the_traced_form() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    form = integer_form(model, inputs=torch.zeros(1, 2, 8, 8))
    assert isinstance(form, torch.fx.GraphModule)
    assert grids(form) == grid_of(form)
