"""A plan on a network: what the network computes, what is trained, and how the plan comes off again."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from fewbits.assign import ecq
from fewbits.attach import attach, background, evaluating, fold, held, plan_of
from fewbits.channels.load import load_plan
from fewbits.errors import MismatchError, SelectionError, UnsupportedError
from fewbits.plan import Clustered, Dense, Plan
from fewbits.weights import select
from networks import Residual, plan_for

X = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
CODEBOOK = (-0.3, 0.0, 0.2)


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def plan(plain) -> Plan:
    """A uniform grid for two layers and a codebook for one."""
    levels = plain.linear.weight.detach().sign().mul(plain.linear.weight.detach().abs() > 0.05).to(torch.int16)
    book = Clustered(levels, 2, codebook=CODEBOOK, lowest=-1)
    return plan_for(plain).updated({"linear.weight": book})


def attached(model: nn.Module, plan: Plan, **options) -> nn.Module:
    model = copy.deepcopy(model)
    attach(model, plan, **options)
    return model


def test_attached_folded_and_loaded_networks_compute_bit_for_bit_the_same(plain, plan):
    model = attached(plain, plan)
    outputs = model(X)
    assert not torch.equal(outputs, plain(X))
    saved = plan_of(model)
    fresh = Residual().eval()
    load_plan(fresh, saved)
    fold(model)
    assert torch.equal(model(X), outputs)
    assert torch.equal(fresh(X), outputs)
    for name, entry in plan.items():
        assert torch.equal(model.get_parameter(name), entry.values())
        assert torch.equal(fresh.get_parameter(name), entry.values())


def test_a_plan_survives_the_way_through_a_network(plain, plan):
    saved = plan_of(attached(plain, plan))
    assert set(saved) == {n for n in plain.state_dict() if not n.endswith("num_batches_tracked")}
    for name, entry in plan.items():
        mine = saved[name]
        assert torch.equal(mine.levels, entry.levels)
        assert (mine.bits, mine.lowest) == (entry.bits, entry.lowest)
        assert torch.equal(mine.values(), entry.values())
    assert plan_of(attached(plain, saved)).equals(saved)


def test_folding_leaves_plain_modules_with_plain_names(plain, plan):
    model = attached(plain, plan)
    assert not torch.equal(model.conv1.weight, plain.conv1.weight)
    fold(model)
    assert type(model.conv1) is nn.Conv2d
    assert not any(parametrize.is_parametrized(m) for m in model.modules())
    assert set(model.state_dict()) == set(plain.state_dict())
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in plain.named_parameters()}
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    untouched = Residual()
    untouched.load_state_dict(model.state_dict())
    assert torch.equal(untouched.eval()(X), model(X))
    fold(model)  # nothing to do
    attach(model, plan)
    assert set(held(model)) == set(plan)


def test_names_of_held_and_background_weights(plain, plan):
    model = attached(plain, plan)
    assert list(held(model)) == list(background(model)) == ["conv1.weight", "conv2.weight", "linear.weight"]
    for name, weight in background(model).items():
        assert torch.equal(weight, plain.get_parameter(name))
        assert isinstance(weight, nn.Parameter)
    assert held(plain) == background(plain) == {}


def test_a_bare_layer():
    layer = nn.Linear(3, 2)
    saved = plan_for(layer)
    attach(layer, saved)
    assert list(held(layer)) == ["weight"]
    x = torch.randn(4, 3)
    outputs = layer(x)
    fresh = nn.Linear(3, 2)
    load_plan(fresh, plan_of(layer))
    fold(layer)
    assert type(layer) is nn.Linear
    assert torch.equal(layer(x), outputs)
    assert torch.equal(fresh(x), outputs)


def test_the_background_receives_the_gradient_of_the_quantized_weight(plain, plan):
    model = attached(plain, plan)
    folded = copy.deepcopy(model)
    fold(folded)
    y = torch.tensor([0, 1, 2, 3, 0])
    for net in (model, folded):
        F.cross_entropy(net(X), y).backward()
    for name, weight in background(model).items():
        assert weight.grad.any()
        assert torch.equal(weight.grad, folded.get_parameter(name).grad)
    assert all(h.table.grad is None for h in held(model).values())


def test_gradients_of_steps_and_codebooks_by_finite_differences(plain, plan):
    model = attached(plain, plan, learn=True).double()
    x, y = X.double(), torch.tensor([0, 1, 2, 3, 0])

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    loss().backward()
    for name, holder in held(model).items():
        table = holder.table
        assert table.requires_grad
        for index in range(table.numel()):
            flat = table.data.view(-1)
            values = []
            for shift in (1e-6, -1e-6):
                flat[index] += shift
                with torch.no_grad():
                    values.append(float(loss()))
                flat[index] -= shift
            slope = (values[0] - values[1]) / 2e-6
            assert float(table.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_trained_grids_are_part_of_the_plan(plain, plan):
    model = attached(plain, plan, learn=True)
    with torch.no_grad():
        for holder in held(model).values():
            holder.table.mul_(1.5)
    saved = plan_of(model)
    assert saved["conv1.weight"].step == pytest.approx(1.5 * plan["conv1.weight"].step)
    assert saved["linear.weight"].codebook == pytest.approx([1.5 * v for v in CODEBOOK])
    outputs = model(X)
    fold(model)
    assert torch.equal(model(X), outputs)


def test_an_update_changes_the_network_and_not_the_plan_that_was_attached(plain, plan):
    before = {name: entry.levels.clone() for name, entry in plan.items()}
    model = attached(plain, plan)
    old = plan_of(model)
    new = Clustered(-plan["conv1.weight"].levels, 4, step=0.25)
    held(model)["conv1.weight"].update(new)
    assert plan_of(model)["conv1.weight"].bits == 4
    assert torch.equal(model.conv1.weight, new.values())
    assert all(torch.equal(plan[name].levels, before[name]) for name in plan)
    assert torch.equal(old["conv1.weight"].levels, before["conv1.weight"])
    book = Clustered(-plan["linear.weight"].levels, 2, codebook=(-0.5, 0.0, 0.5), lowest=-1)
    held(model)["linear.weight"].update(book)
    assert torch.equal(model.linear.weight, book.values())
    assert held(model)["linear.weight"].entry().codebook == book.codebook
    new.levels.zero_()
    assert model.conv1.weight.any()


def test_an_update_of_another_shape_or_grid_is_refused(plain, plan):
    model = attached(plain, plan)
    kept = model.conv1.weight.clone()
    with pytest.raises(MismatchError, match="cannot replace"):
        held(model)["conv1.weight"].update(Clustered(plan["conv2.weight"].levels, 3, step=1.0))
    with pytest.raises(MismatchError, match="3 grid values cannot replace"):
        held(model)["conv1.weight"].update(
            Clustered(plan["conv1.weight"].levels.clamp(-1, 1), 2, codebook=CODEBOOK, lowest=-1)
        )
    with pytest.raises(MismatchError, match="1 grid values cannot replace"):
        held(model)["linear.weight"].update(Clustered(plan["linear.weight"].levels, 2, step=1.0))
    assert torch.equal(model.conv1.weight, kept)


def test_folding_a_copy_leaves_the_original_attached(plain, plan):
    model = attached(plain, plan)
    outputs = model(X)
    twin = copy.deepcopy(model)
    fold(twin)
    assert set(held(model)) == set(plan)
    assert torch.equal(model(X), outputs)
    assert torch.equal(twin(X), outputs)
    with torch.no_grad():
        held(model)["conv1.weight"].levels.zero_()
    assert not torch.equal(model(X), outputs)
    assert torch.equal(twin(X), outputs)
    other = copy.deepcopy(model)
    fold(model)  # and the other way round
    assert set(held(other)) == set(plan)
    assert torch.equal(other(X), model(X))


def test_tracing_and_exporting_an_attached_network(plain, plan):
    model = attached(plain, plan)
    outputs = model(X)
    assert torch.equal(fx.symbolic_trace(model)(X), outputs)
    with torch.no_grad():
        exported = torch.export.export(model, (X,))
    torch.testing.assert_close(exported.module()(X), outputs)


def test_state_dict_of_an_attached_network_resumes_it(plain, plan):
    model, other = attached(plain, plan, learn=True), attached(Residual().eval(), plan_of(attached(plain, plan)))
    held(model)["conv1.weight"].update(Clustered(-plan["conv1.weight"].levels, 3, step=0.3))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))


@pytest.mark.parametrize("learn", [True, False])
def test_whether_grids_are_trained(plain, plan, learn):
    model = attached(plain, plan, learn=learn)
    assert all(h.table.requires_grad is learn for h in held(model).values())
    assert all(w.requires_grad for w in background(model).values())


def test_half_precision_where_it_fits(plain):
    with torch.no_grad():
        plain.linear.bias[0] = 100_032.0  # 11 bits, and beyond half precision
    saved = plan_of(plain, floats=torch.float16)
    assert saved["linear.bias"].data.dtype == torch.float32
    assert saved["conv2.bias"].data.dtype == torch.float16
    fresh = Residual().eval()
    load_plan(fresh, saved)
    assert fresh.linear.bias[0] == 100_032.0
    assert fresh.conv2.bias.dtype == torch.float32
    assert torch.equal(fresh.conv2.bias, plain.conv2.bias.half().float())
    assert plan_of(plain)["conv2.bias"].data.dtype == torch.float32


def test_a_plan_is_a_copy(plain):
    saved = plan_of(plain)
    fresh = Residual()
    load_plan(fresh, saved)
    for net in (plain, fresh):
        with torch.no_grad():
            net.linear.bias.fill_(7.0)
    assert not (saved["linear.bias"].values() == 7.0).any()


def test_a_layer_under_two_names():
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())

    torch.manual_seed(0)
    model, x = Twins(), torch.randn(2, 3)
    attach(model, plan_for(model))
    assert list(held(model)) == ["a.weight"]
    outputs, saved = model(x), plan_of(model)
    assert set(saved) | set(saved.aliases) == set(Twins().state_dict())
    assert saved.aliases == {"b.weight": "a.weight", "b.bias": "a.bias"}
    fresh = Twins()
    load_plan(fresh, saved)
    assert torch.equal(fresh(x), outputs)
    assert torch.equal(fresh.a.weight, fresh.b.weight)
    fold(model)
    assert torch.equal(model(x), outputs)


def test_names_and_shapes_that_do_not_fit_change_nothing(plain, plan):
    wrong_name = plan.updated({"conv9.weight": plan["conv2.weight"]})
    with pytest.raises(MismatchError, match=r"no tensor 'conv9\.weight'; did you mean 'conv\d\.weight'"):
        attach(plain, wrong_name)
    wrong_shape = plan.updated({"linear.weight": Clustered(torch.zeros(2, 2, dtype=torch.int16), 3, step=1.0)})
    with pytest.raises(MismatchError, match=r"linear\.weight: .*\(2, 2\), the network \(4, 54\)"):
        attach(plain, wrong_shape)
    assert held(plain) == {}


def test_a_second_plan_is_refused(plain, plan):
    attach(plain, {"linear.weight": plan["linear.weight"]})
    with pytest.raises(SelectionError, match=r"linear\.weight already carries a plan"):
        attach(plain, plan)
    assert list(held(plain)) == ["linear.weight"]


def test_only_clustered_entries_are_attached(plain, plan):
    attach(plain, plan.updated({"conv2.bias": Dense(torch.zeros(6)), "nowhere": Dense(torch.zeros(1))}))
    assert set(held(plain)) == set(plan)
    assert plain.conv2.bias.any()


def test_plans_that_do_not_fit_a_network(plain):
    saved = plan_of(plain)
    kept = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    with pytest.raises(MismatchError, match="the plan has 'conv9', which the network lacks"):
        load_plan(plain, saved.updated({"conv9": Dense(torch.zeros(1))}))
    with pytest.raises(MismatchError, match=r"linear\.bias: the plan has shape \(1,\), the network \(4,\)"):
        load_plan(plain, saved.updated({"linear.bias": Dense(torch.zeros(1))}))
    entries = {name: entry for name, entry in saved.items() if not name.startswith("bn2")}
    with pytest.raises(MismatchError, match=r"lacks 'bn2\.weight' \(and 3 more\)"):
        load_plan(plain, Plan(entries))
    torch.testing.assert_close(plain.state_dict(), kept, rtol=0, atol=0)


def test_evaluating_restores_each_layers_mode_and_computes_weights_once(plain, plan):
    model = attached(plain, plan).train()
    model.bn1.eval()
    modes = [m.training for m in model.modules()]
    with evaluating(model) as net:
        assert net is model
        assert not any(m.training for m in model.modules())
        assert model.conv1.weight is model.conv1.weight
        assert not model(X).requires_grad
    assert [m.training for m in model.modules()] == modes
    assert model.conv1.weight is not model.conv1.weight
    with pytest.raises(RuntimeError, match="on purpose"), evaluating(model):
        raise RuntimeError("on purpose")
    assert [m.training for m in model.modules()] == modes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_only_networks_of_float32_are_compressed(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 2)).to(dtype)
    plan, _ = (assigner := ecq(4, 0.0)).update(select(model), None, assigner.init(select(model)))
    with pytest.raises(UnsupportedError, match=r"0\.weight has the type torch\..*model\.float\(\)"):
        attach(model, plan)
