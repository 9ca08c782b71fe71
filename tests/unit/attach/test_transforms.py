"""Transforms see through attached weights: forward mode, vmap, both, and compilers; gradients are what they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from fewbits.attach import AffineWeight, ClusteredWeight, MaskedWeight, attach, background
from fewbits.plan import Affine, Clustered, Masked, Plan, surviving
from fewbits.weights import select

G = torch.Generator().manual_seed(0)
LEVELS = torch.randint(-1, 2, (6, 5), generator=G)
WEIGHT = torch.randn(6, 5, generator=G)
MASK = torch.rand(6, 5, generator=G) > 0.5
BOOK = (-0.7, 0.0, 0.4)
HOLDERS: dict[str, Callable[[], nn.Module]] = {
    "grid": lambda: ClusteredWeight(Clustered(LEVELS.short(), 4, step=0.3), learn=True),
    "codebook": lambda: ClusteredWeight(Clustered(LEVELS.short(), 2, codebook=BOOK, lowest=-1), learn=True),
    "mask": lambda: MaskedWeight(Masked(WEIGHT, MASK, 0.0, 0.0)),
    "mask through": lambda: MaskedWeight(Masked(WEIGHT, MASK, 0.2, 0.5)),
    "affine": lambda: AffineWeight(Affine(LEVELS.to(torch.int8), torch.rand(6, generator=G) + 0.1)),
}


@pytest.fixture(params=HOLDERS)
def holder(request: pytest.FixtureRequest) -> nn.Module:
    return HOLDERS[request.param]()


def passed(holder: nn.Module, tangent: Tensor) -> Tensor:
    """What of a tangent or a gradient goes through."""
    if not isinstance(holder, MaskedWeight):
        return tangent
    return torch.where(MASK, tangent, tangent * holder.straight_through)


def test_a_perturbation_passes_straight_through(holder: nn.Module) -> None:
    tangent = torch.randn(6, 5)
    value, moved = jvp(holder, (WEIGHT,), (tangent,))
    assert torch.equal(value, holder(WEIGHT))
    assert torch.equal(value, holder.entry(WEIGHT).values())
    assert torch.equal(moved, passed(holder, tangent))


def test_forward_mode_is_the_transpose_of_backward_mode(holder: nn.Module) -> None:
    named = {name: p.detach() for name, p in holder.named_parameters()}

    def value(weight: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(holder, parameters, (weight,))

    tangent, others = torch.randn(6, 5), {name: torch.randn_like(p) for name, p in named.items()}
    upstream = torch.randn(6, 5)
    _, moved = jvp(value, (WEIGHT, named), (tangent, others))
    _, back = vjp(value, WEIGHT, named)
    to_weight, to_others = back(upstream)
    expected = (to_weight * tangent).sum() + sum((to_others[n] * others[n]).sum() for n in named)
    torch.testing.assert_close((upstream * moved).sum(), expected)


def test_vmap_over_weights_directions_and_gradients(holder: nn.Module) -> None:
    weights, tangents = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    values = vmap(holder)(weights)
    moved = vmap(lambda t: jvp(holder, (WEIGHT,), (t,))[1])(tangents)
    both = vmap(lambda w, t: jvp(holder, (w,), (t,))[1])(weights, tangents)
    slopes = vmap(grad(lambda w, u: (holder(w) * u).sum()))(weights, tangents)
    for i in range(3):
        torch.testing.assert_close(values[i], holder(weights[i]))
        assert torch.equal(moved[i], passed(holder, tangents[i]))
        assert torch.equal(both[i], passed(holder, tangents[i]))
        assert torch.equal(slopes[i], passed(holder, tangents[i]))


@pytest.mark.parametrize("kind", ["grid", "codebook"])
def test_vmap_over_gradients_of_tables(kind: str) -> None:
    holder, upstream = HOLDERS[kind](), torch.randn(3, 6, 5)

    def loss(table: Tensor, u: Tensor) -> Tensor:
        return (functional_call(holder, {"table": table}, (WEIGHT,)) * u).sum()

    slopes = vmap(grad(loss), in_dims=(None, 0))(holder.table.detach(), upstream)
    for slope, u in zip(slopes, upstream, strict=True):
        torch.testing.assert_close(slope, grad(loss)(holder.table.detach(), u))


def test_gradients_are_to_the_bit_what_they_were(holder: nn.Module) -> None:
    weight = WEIGHT.clone().requires_grad_()
    upstream = torch.randn(6, 5)
    value = holder(weight)
    value.backward(upstream)
    assert torch.equal(weight.grad, passed(holder, upstream))
    if isinstance(holder, MaskedWeight):
        assert torch.equal(value, surviving(WEIGHT, MASK, holder.shrink))
    if isinstance(holder, ClusteredWeight):
        expected = torch.zeros(3).index_add_(0, (LEVELS + 1).flatten(), upstream.flatten())
        if holder.uniform:
            expected = (upstream * LEVELS.short()).sum()
        assert torch.equal(holder.table.grad, expected)


def test_a_table_that_is_not_learnt_gets_no_gradient() -> None:
    holder = ClusteredWeight(Clustered(LEVELS.short(), 4, step=0.3))
    holder(WEIGHT.clone().requires_grad_()).sum().backward()
    assert holder.table.grad is None


def test_a_networks_loss_along_directions_is_its_gradient_times_them() -> None:
    """Forward gradients (Baydin et al. 2022) of a network that holds one weight of each kind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5))
    weights = select(model)
    plan = {
        "0.weight": Clustered(torch.randint(-3, 4, (6, 5)).short(), 3, step=0.2),
        "2.weight": Masked(weights["2.weight"].detach(), torch.rand(6, 6) > 0.5, 0.0, 1.0),
        "4.weight": Affine(torch.randint(-9, 9, (5, 6)).to(torch.int8), torch.rand(5) * 0.1 + 0.01),
    }
    attach(model, Plan(plan))
    x, y = torch.randn(8, 5), torch.randint(0, 5, (8,))
    names = {name: next(n for n, p in model.named_parameters() if p is w) for name, w in background(model).items()}
    held = {names[name]: w.detach() for name, w in background(model).items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x,)), y)

    F.cross_entropy(model(x), y).backward()
    gradients = {names[name]: w.grad for name, w in background(model).items()}
    directions = {name: torch.randn(4, *w.shape) for name, w in held.items()}
    slopes = vmap(lambda d: jvp(loss, (held,), (d,))[1])(directions)
    expected = sum((gradients[name] * directions[name]).flatten(1).sum(1) for name in held)
    torch.testing.assert_close(slopes, expected)
    assert all(gradients[name].any() for name in held)


def test_a_compiler_still_finds_one_graph(holder: nn.Module) -> None:
    weight = WEIGHT.clone().requires_grad_()
    upstream = torch.randn(6, 5)
    compiled = torch.compile(holder, backend="aot_eager", fullgraph=True)
    value = compiled(weight)
    value.backward(upstream)
    assert torch.equal(value, holder(WEIGHT))
    assert torch.equal(weight.grad, passed(holder, upstream))
