"""Rules that perturb background weights see what it does to the loss, though the network computes with levels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from fewbits.assign import Assigner, ecq, global_magnitude
from fewbits.attach import attach, background, held, perturbable
from fewbits.plan import Affine, Clustered, Masked, Plan
from fewbits.recipe.training import Finetuning
from fewbits.train import fit, plain
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.train.rules import Batch, Rule
from fewbits.weights import select

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 5


def attached(straight_through: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5))
    weights = select(model)
    plan = {
        "0.weight": Clustered(torch.randint(-3, 4, (6, 5)).short(), 3, step=0.2),
        "2.weight": Masked(weights["2.weight"].detach(), torch.rand(6, 6) > 0.5, 0.0, straight_through),
        "4.weight": Affine(torch.randint(-9, 9, (5, 6)).to(torch.int8), torch.rand(5) * 0.1 + 0.01),
    }
    attach(model, Plan(plan))
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    F.cross_entropy(model(X), Y).backward()
    found = {name: weight.grad.clone() for name, weight in background(model).items()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("straight_through", [0.0, 0.5, 1.0])
def test_differences_of_losses_are_the_straight_through_gradient(straight_through: float) -> None:
    model, generator = attached(straight_through), torch.Generator().manual_seed(2)
    expected, weights = gradients(model), background(model)
    before = {name: w.detach().clone() for name, w in weights.items()}
    with perturbable(model), torch.no_grad():
        for name, weight in weights.items():
            for _ in range(4):
                direction = torch.randn(weight.shape, generator=generator)
                losses = []
                for shift in (1e-2, -1e-2):
                    weight.copy_(before[name] + shift * direction)
                    losses.append(float(F.cross_entropy(model(X), Y)))
                weight.copy_(before[name])
                slope = (losses[0] - losses[1]) / 2e-2
                assert slope == pytest.approx(float((expected[name] * direction).sum()), rel=5e-3, abs=5e-4), name


def test_nothing_changes_until_a_weight_moves_nor_afterwards() -> None:
    model = attached()
    outputs, slopes = model(X), gradients(model)
    with perturbable(model):
        assert torch.equal(model(X), outputs)
        assert all(torch.equal(g, slopes[name]) for name, g in gradients(model).items())
        with torch.no_grad():
            for weight in background(model).values():
                weight.add_(0.1)
        moved = model(X)
        assert not torch.equal(moved, outputs)
        with perturbable(model):  # where weights were counts from the outer block
            assert torch.equal(model(X), moved)
        assert torch.equal(model(X), moved)
    with torch.no_grad():
        for name, weight in background(model).items():
            if name != "2.weight":
                weight.add_(1.0)
            else:
                weight.sub_(0.1)
    assert torch.allclose(model(X), outputs, atol=1e-6), "outside, only levels count"
    with pytest.raises(ValueError, match="inside"), perturbable(model):
        raise ValueError("inside")
    assert all(holder.origin is None for holder in held(model).values())


def test_derivatives_are_counted_once() -> None:
    model = attached()
    names = {id(p): n for n, p in model.named_parameters()}
    weights = {names[id(w)]: w.detach() for w in background(model).values()}
    directions = {name: torch.randn(3, *w.shape) for name, w in weights.items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (X,)), Y)

    def along() -> Tensor:
        return vmap(lambda d: jvp(loss, (weights,), (d,))[1])(directions)

    expected = along()
    with perturbable(model):
        torch.testing.assert_close(along(), expected)
        several = vmap(lambda d: loss({n: weights[n] + 0.1 * d[n] for n in d}))(directions)
    assert len(set(several.tolist())) == 3


def spsa(seed: int, block: Callable[[nn.Module], AbstractContextManager[None]]) -> Rule:
    """Simultaneous perturbation (Spall 1992) of the background weights: no backward pass."""
    distance, probes = 1e-3, 4

    def update(network: nn.Module, batch: Batch, state: torch.Generator) -> tuple[Tensor, Tensor, torch.Generator]:
        weights = list(background(network).values())
        before = [w.detach().clone() for w in weights]
        with torch.no_grad(), block(network):
            outputs, loss = batch.forward()
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            for _ in range(probes):
                signs = [torch.randint(0, 2, w.shape, generator=state).mul_(2).sub_(1).float() for w in weights]
                losses = []
                for shift in (distance, -distance):
                    for weight, start, sign in zip(weights, before, signs, strict=True):
                        weight.copy_(start + shift * sign)
                    losses.append(batch.forward()[1])
                slope = (losses[0] - losses[1]) / (2 * distance)
                for weight, start, sign in zip(weights, before, signs, strict=True):
                    weight.copy_(start)
                    weight.grad.add_(slope * sign / probes)
        return outputs, loss, state

    return Rule(lambda network: torch.Generator().manual_seed(seed), update)


def train_by_spsa(model: nn.Module, assigner: Assigner, batches: list[Any], lr: float, block: Any) -> None:
    weights = select(model)
    plan, state = assigner.update(weights, None, assigner.init(weights))
    attach(model, plan)
    settings = Finetuning(epochs=1, lr=lr, optimizer="sgd", gradient_scale=False)
    optimizer = optimizer_of(finetuning_groups(model, settings), settings)
    qat = QATCallback(
        model, lambda lam, share: assigner, state, 0.0, scorer=None, every=1, settings=settings,
        accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
    )  # fmt: skip
    fit(model, batches, plain(), optimizer, settings, callback=qat, rule=spsa(0, block))


def test_a_zeroth_order_rule_trains_clusters(trained: nn.Module, handwriting: Any) -> None:
    """On one batch, in two bits. Where levels hide the perturbations, weights stay and only normalisation adapts."""
    x, y = batch = next(iter(handwriting.loader("train", 128)))
    losses = []
    for block in (perturbable, lambda network: nullcontext()):
        model = copy.deepcopy(trained)
        train_by_spsa(model, ecq(2, 0.0), [batch] * 40, 3e-4, block)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model.train()(x), y)))
        moved = [not torch.equal(w, select(trained)[name]) for name, w in background(model).items()]
        assert moved == [block is perturbable] * len(moved)
    assert losses[0] < 0.8 * losses[1]


@pytest.mark.parametrize("regrow", [True, False])
def test_pruned_weights_regrow_by_their_background_weights(trained: nn.Module, handwriting: Any, regrow: bool) -> None:
    assigner = global_magnitude(0.5, regrow=regrow, straight_through=float(regrow))
    weights = {name: w.detach().clone() for name, w in select(trained).items()}
    first, _ = assigner.update(weights, None, assigner.init(weights))
    batches = [batch for _, batch in zip(range(4), handwriting.loader("train", 64), strict=False)]
    train_by_spsa(trained, assigner, batches, 0.02, perturbable)
    back = 0
    for name, holder in held(trained).items():
        returned = holder.mask & ~first.compressed[name].kept
        now = background(trained)[name].detach()
        assert torch.equal(holder(now)[returned], now[returned]), "what came back has its background value"
        assert not returned.any() or (now - weights[name])[returned].abs().min() > 0
        back += int(returned.sum())
    assert (back > 0) == regrow
