"""Pruned weights on a network: values, gradients, updates, folding, checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fewbits.assign import feather, global_magnitude
from fewbits.attach import MaskedWeight, attach, background, fold, held, plan_of
from fewbits.channels.load import load_plan
from fewbits.codec import decode, encode
from fewbits.errors import MismatchError
from fewbits.plan import Masked, Plan, surviving
from fewbits.weights import select
from networks import Residual


def pruned(assigner=None) -> tuple[Residual, Plan]:
    torch.manual_seed(0)
    model = Residual().eval()
    assigner = assigner or global_magnitude(0.6)
    weights = select(model)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    attach(model, plan)
    return model, plan


@pytest.mark.parametrize("assigner", [global_magnitude(0.6), feather(0.6)])
def test_the_network_computes_with_the_plans_tensors_to_the_bit(assigner) -> None:
    model, plan = pruned(assigner)
    assert all(isinstance(holder, MaskedWeight) for holder in held(model).values())
    for name, entry in plan.items():
        assert torch.equal(model.get_submodule(name.removesuffix(".weight")).weight, entry.values())
    found = plan_of(model)
    assert Plan({name: found[name] for name in plan}).equals(plan)
    plain = Residual().eval()
    load_plan(plain, decode(encode(found), like=plain))
    x = torch.randn(3, 2, 6, 6)
    assert torch.equal(plain(x), model(x))
    fold(model)
    assert held(model) == {}
    assert torch.equal(plain(x), model(x))


@pytest.mark.parametrize("straight_through", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shrink", [0.0, 0.3])
def test_a_survivor_gets_its_gradient_and_a_pruned_weight_its_share(straight_through: float, shrink: float) -> None:
    weight = torch.tensor([0.1, -0.5, 0.8, -0.2], requires_grad=True)
    mask = torch.tensor([False, True, True, False])
    holder = MaskedWeight(Masked(weight.detach(), mask, shrink, straight_through))
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (holder(weight) * upstream).sum().backward()
    assert weight.grad.tolist() == [straight_through, 2.0, 3.0, 4.0 * straight_through]


def test_feathers_operator_has_no_jump_and_spares_large_weights() -> None:
    w = torch.tensor([0.5, 0.5 + 1e-6, 0.6, 5.0, -0.6, 0.4])
    out = surviving(w, w.abs() > 0.5, 0.5)
    assert out[0] == out[5] == 0
    assert 0 < out[1] < 0.02
    assert float(out[2]) == pytest.approx((0.6**3 - 0.5**3) ** (1 / 3))
    assert out[4] == -out[2]
    assert float(out[3]) == pytest.approx(5.0, rel=1e-3)
    tiny = torch.tensor([3e-20, -2e-20, 1e-20])  # whose cubes are zero in float32
    found = surviving(tiny, tiny.abs() > 1e-20, 1e-20)
    assert float(found[0]) == pytest.approx(26 ** (1 / 3) * 1e-20, rel=1e-5)
    assert found[2] == 0


def test_updates_do_not_reach_into_the_entry_and_shapes_are_checked() -> None:
    model, plan = pruned()
    holder, before = held(model)["conv1.weight"], plan["conv1.weight"].kept.clone()
    new = Masked(plan["conv1.weight"].data, ~before, 0.0, 1.0)
    holder.update(new)
    assert torch.equal(plan["conv1.weight"].kept, before)
    assert torch.equal(holder.mask, ~before)
    with pytest.raises(MismatchError, match="shape"):
        holder.update(plan["linear.weight"])


def test_a_state_dict_carries_mask_and_threshold() -> None:
    model, _ = pruned(feather(0.6))
    other, _ = pruned(feather(0.2))
    other.load_state_dict(model.state_dict())
    assert plan_of(other).equals(plan_of(model))
    twin = copy.deepcopy(model)
    assert plan_of(twin).equals(plan_of(model))


def test_half_precision_widens_and_too_large_numbers_stay() -> None:
    model, plan = pruned()
    entry = plan_of(model, floats=torch.float16)["conv2.weight"]
    assert isinstance(entry, Masked)
    assert entry.data.dtype == torch.float16
    assert entry.values().dtype == torch.float32
    assert torch.allclose(entry.values(), plan["conv2.weight"].values(), rtol=1e-3)
    with torch.no_grad():
        background(model)["conv2.weight"].mul_(1e6)
    assert plan_of(model, floats=torch.float16)["conv2.weight"].data.dtype == torch.float32


def test_what_stands_under_a_false_mask_does_not_matter() -> None:
    mask = torch.tensor([True, False])
    a, b = (Masked(torch.tensor([1.0, x]), mask) for x in (5.0, float("nan")))
    assert a.values().tolist() == b.values().tolist() == [1.0, 0.0]
    assert Plan({"w": a}).equals(Plan({"w": b}))
    assert encode(Plan({"w": a})) == encode(Plan({"w": b}))


def test_plans_differ_in_their_masks_even_where_values_agree() -> None:
    data: Tensor = torch.tensor([0.0, 1.0])
    assert not Plan({"w": Masked(data, data != 0)}).equals(Plan({"w": Masked(data, data == data)}))


def test_a_survivor_too_small_for_half_precision_survives() -> None:
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e-9, 0.5, 0.0]]))
    attach(model, {"weight": Masked(model.weight.detach().clone(), torch.tensor([[True, True, False]]))})
    assert plan_of(model)["weight"].kept.tolist() == [[True, True, False]]
    for significand in (None, 4):
        half = plan_of(model, floats=torch.float16, significand=significand)["weight"]
        assert half.kept.tolist() == [[True, True, False]]
        assert half.values().tolist()[0] == pytest.approx([1e-9, 0.5, 0.0], rel=2.0 ** -(significand or 11))
