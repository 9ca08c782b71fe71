"""Norms of layers' inputs, against sums by hand: linear, convolutions with groups, layers used twice or never."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewbits.attach import attach
from fewbits.errors import RecipeError, UnsupportedError
from fewbits.measure import TrainingStep, control
from fewbits.plan import Masked, Plan
from fewbits.weights import select


def norms(model: nn.Module, x: Tensor, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    scorer = control("inputs", 0, model)
    with scorer.watch():
        outputs = model(x)
    model(100 * x if x.is_floating_point() else x)  # nobody watches
    return scorer.scores(TrainingStep(outputs, None, select(model) if weights is None else weights, {}))


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (5,)])
def test_linear(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = norms(nn.Sequential(nn.Linear(5, 4)), x)["0.weight"]
    expected = torch.stack([x[..., i].square().sum().sqrt() for i in range(5)])
    torch.testing.assert_close(found, expected.expand(4, 5).contiguous())


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_see_the_inputs_of_their_group(groups: int, dims: int) -> None:
    make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    x = torch.randn(3, 6, *[5] * dims, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(make(6, 12, 3, groups=groups, bias=False))
    found = norms(model, x)["0.weight"]
    assert found.shape == model[0].weight.shape
    for out in range(12):
        for j in range(6 // groups):
            channel = out // (12 // groups) * (6 // groups) + j
            torch.testing.assert_close(found[out, j], x[:, channel].norm().expand(found[out, j].shape))
    only = torch.zeros_like(x)
    only[:, 4] = x[:, 4]
    moved = model(only).abs().sum([0, *range(2, 2 + dims)]) > 0
    seen = norms(model, only)["0.weight"].flatten(1).any(1)
    assert torch.equal(moved, seen)


def test_a_layer_used_twice_and_one_never_used() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.twice(self.twice(x))

    model, x = Net(), torch.randn(4, 3)
    only = {"twice.weight": model.twice.weight}
    expected = (x.square().sum(0) + model.twice(x).square().sum(0)).sqrt().detach()
    torch.testing.assert_close(norms(model, x, only)["twice.weight"], expected.expand(3, 3).contiguous())
    with pytest.raises(UnsupportedError, match=r"never\.weight: its layer was not called"):
        norms(model, x)


def test_the_same_with_a_plan_attached() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)
    weights, expected = select(model), norms(model, x)
    attach(model, Plan({"0.weight": Masked(weights["0.weight"].detach(), torch.ones(2, 3, dtype=torch.bool))}))
    assert torch.equal(norms(model, x, weights)["0.weight"], expected["0.weight"])


def test_wanda_is_the_weight_times_the_norm() -> None:
    model, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(7, 5)
    scorer = control("wanda", 0, model)
    with scorer.watch():
        outputs = model(x)
    found = scorer.scores(TrainingStep(outputs, None, select(model), {}))["0.weight"]
    torch.testing.assert_close(found, (model[0].weight.detach() * x.norm(dim=0)).abs())


@pytest.mark.parametrize("name", ["inputs", "wanda", "obs"])
def test_without_a_network_there_are_no_inputs(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} watches a network"):
        control(name, 0)


class Positions(nn.Embedding):
    """As BART has it: given something else than the indices that it looks up."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.arange(x.shape[1]) + 1)


class Adapted(nn.Linear):
    """A layer with a forward of its own, and layers inside."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.down, self.up = nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(input=x.relu(), weight=self.weight) + self.up(self.down(x))


def test_a_layer_with_a_forward_of_its_own_is_watched_inside() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.linear = Positions(6, 3), Adapted()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x + self.positions(x[:, :, 0]))

    model, x = Net(), torch.randn(4, 5, 3)
    found = norms(model, x)
    assert torch.equal(found["positions.weight"][:, 0], torch.tensor([0.0, 1, 1, 1, 1, 1]))
    inside = (x + model.positions(x[:, :, 0])).detach().reshape(-1, 3)
    torch.testing.assert_close(found["linear.weight"][0], inside.relu().norm(dim=0))
    torch.testing.assert_close(found["linear.down.weight"][0], inside.norm(dim=0))
    torch.testing.assert_close(found["linear.up.weight"][0], model.linear.down(inside).detach().norm(dim=0))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_input_given_by_its_name_and_a_weight_of_inputs_by_outputs() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.turned = nn.Linear(3, 2), Conv1D()

        def forward(self, x: Tensor) -> Tensor:
            return self.turned(x=self.layer(input=x))

    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    model, x = Named(), torch.randn(5, 3)
    found = norms(model, x)
    torch.testing.assert_close(found["layer.weight"], x.norm(dim=0).expand(2, 3).contiguous())
    seen = model.layer(x).detach().norm(dim=0)
    torch.testing.assert_close(found["turned.weight"], seen.view(2, 1).expand(2, 4).contiguous())


def test_an_embedding_sees_one_hot_inputs() -> None:
    ids = torch.tensor([[0, 2, 2], [2, 0, 1]])
    found = norms(nn.Sequential(nn.Embedding(4, 3)), ids)["0.weight"]
    hot = torch.nn.functional.one_hot(ids.flatten(), 4).float()
    torch.testing.assert_close(found, hot.norm(dim=0).view(4, 1).expand(4, 3).contiguous())


@pytest.mark.parametrize("turned", [False, True])
def test_a_shared_weight_has_the_norm_over_all_its_layers(turned: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = [("table", nn.Embedding(4, 3)), ("head", nn.Linear(3, 4, bias=False))]
            for name, part in reversed(parts) if turned else parts:
                self.add_module(name, part)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids))

    model, ids = Tied(), torch.tensor([[0, 2, 2], [2, 0, 1]])
    (found,) = norms(model, ids).values()
    hot = torch.nn.functional.one_hot(ids.flatten(), 4).float()
    squares = hot.square().sum(0).view(4, 1) + model.table(ids).detach().flatten(0, 1).square().sum(0).view(1, 3)
    torch.testing.assert_close(found, squares.sqrt())
