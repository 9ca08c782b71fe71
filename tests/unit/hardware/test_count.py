"""Parameters and multiplications, against hand counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits import zoo
from fewbits.assign import global_magnitude
from fewbits.errors import MismatchError, UnsupportedError
from fewbits.hardware import count
from fewbits.plan import Dense, Plan
from fewbits.weights import select


class Twice(nn.Module):
    """One layer used twice, on inputs of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(2 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.pool(self.conv(x))).flatten(1))


def test_a_layer_used_twice_multiplies_twice_and_is_stored_once() -> None:
    found = count(Twice(), (2, 8, 8))
    conv, head = found.layers
    assert (conv.name, conv.weights, conv.uses, conv.macs) == ("conv.weight", 36, 64 + 16, 36 * 80)
    assert (head.weights, head.uses) == (96, 1)
    assert found.parameters == 36 + 2 + 96 + 3
    assert found.macs == 36 * 80 + 96


def test_zeros_of_the_model_or_of_a_plan() -> None:
    model = Twice()
    with torch.no_grad():
        model.conv.weight[0] = 0
    assert count(model, (2, 8, 8)).nonzero_macs == 18 * 80 + 96
    weights = select(model)
    assigner = global_magnitude(0.75)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    found = count(model, (2, 8, 8), plan)
    assert found.zeros == 99
    assert found.nonzero_macs == sum(int(e.kept.sum()) * u for e, u in zip(plan.values(), (80, 1), strict=True))


def test_groups_strides_and_known_networks() -> None:
    assert count(nn.Sequential(nn.Conv1d(4, 8, 3, stride=2, groups=2)), (4, 9)).macs == 8 * 2 * 3 * 4
    assert count(zoo.build("lenet-300-100"), (784,)).macs == 266_200
    assert count(zoo.build("resnet-20"), (3, 32, 32)).macs == 40_551_040  # 40.55 M, as usually reported
    recurrent = count(zoo.build("fastgrnn", inputs=3, steps=7, hidden=5), (3, 7))
    assert {layer.name: layer.uses for layer in recurrent.layers} == {"w.weight": 7, "u.weight": 7, "head.weight": 1}


def test_the_model_is_left_as_it_was() -> None:
    model = zoo.build("digits-net", seed=0).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    count(model, (1, 8, 8))
    assert all(m.training for m in model.modules())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_looking_up_rows_and_normalising_count_as_nothing() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm([5, 4]), nn.Linear(4, 3))
    found = count(model, torch.zeros(1, 5, dtype=torch.int64))
    assert [layer.name for layer in found.layers] == ["2.weight"]
    assert found.macs == 5 * 12


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_multiplies_its_inputs(groups: int) -> None:
    """Blocks that do not overlap: each output comes from one place, and all channels of its group there."""
    layer = nn.ConvTranspose2d(2, 4, 2, stride=2, groups=groups)
    outputs = 4 * 10 * 6
    assert count(nn.Sequential(layer), (2, 5, 3)).macs == outputs * 2 // groups


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(
        UnsupportedError, match=r"^cannot count the multiplications of _trilinear in 0: write it as a product"
    ) as caught:
        count(Named(nn.Bilinear(2, 2, 2)), (2,))
    assert "\n" not in str(caught.value)
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(MismatchError, match=r"'0\.weight'.*did you mean '0\.weigth'"):
        count(model, (2,), Plan({"0.weigth": Dense(torch.ones(2, 2))}))
    with pytest.raises(MismatchError, match=r"\(3, 2\) in the plan"):
        count(model, (2,), Plan({"0.weight": Dense(torch.ones(3, 2))}))


class Named(nn.Module):
    """A layer of two inputs, given the same one twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.add_module("0", layer)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.get_submodule("0")(x, x)
        return found


class Applied(nn.Module):
    """Any function of the input and a weight of its own."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


# On three inputs of two numbers, [1, 3, 2]; of the six weights four are not zero.
@pytest.mark.parametrize(
    ("function", "uses", "kept"),
    [
        (lambda x, w: F.linear(x, w.T), 3, 4),
        (lambda x, w: x @ w, 3, 4),
        (lambda x, w: w.T @ x.mT, 3, 4),
        (lambda x, w: torch.einsum("bni,io->bno", x, w), 3, 4),
        (lambda x, w: torch.inner(x, w.T), 3, 4),
        (lambda x, w: torch.tensordot(x, w, dims=1), 3, 4),
        (lambda x, w: torch.baddbmm(x[..., :1], x, w[None]), 3, 4),
        (lambda x, w: torch.addbmm(x[0, :, :1], x, w[None]), 3, 4),
        (lambda x, w: torch.mv(w.T, x[0, 0]), 1, 4),
        (lambda x, w: torch.addmv(w[0], w.T, x[0, 0]), 1, 4),
        (lambda x, w: torch.addmm(w[0], x[0], w), 3, 4),
        (lambda x, w: F.conv1d(x.mT, w.T[..., None]), 3, 4),
        (lambda x, w: torch.bmm(x.expand(2, 3, 2), w.expand(2, 2, 3)), 6, 4),
    ],
)
def test_a_weight_of_ones_own_is_counted_however_it_is_multiplied(
    function: Callable[[Tensor, Tensor], Tensor], uses: int, kept: int
) -> None:
    (found,) = count(Applied(function), (3, 2)).layers
    if "*" not in found.name:  # a convolution whose kernel is a view
        assert found.name == "weight"
        assert found.nonzero == kept
    assert (found.weights, found.uses, found.macs) == (6, uses, 6 * uses)


def test_rows_of_a_weight_are_told_apart() -> None:
    model = Applied(lambda x, w: x[..., :1] @ w[:1] + x[0, :1, 1:] @ w[1:])
    found = [(f.name, f.weights, f.nonzero, f.uses) for f in count(model, (3, 2)).layers]
    assert found == [("weight[0:1]", 3, 1, 3), ("weight[1:2]", 3, 3, 1)]
    plan = Plan({"weight": Dense(torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]))})
    assert [f.nonzero for f in count(model, (3, 2), plan).layers] == [0, 1]


def test_a_parameter_that_two_layers_share_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    found = count(model, (3,))
    assert (found.weights, found.macs) == (9, 18)
    assert found.parameters == 9 + 6


def test_networks_that_do_not_take_zeros_are_refused_in_a_sentence() -> None:
    assert count(nn.Sequential(nn.ReLU(), nn.Flatten()), (2, 2)).macs == 0
    with pytest.raises(UnsupportedError, match=r"sample of shape \(3,\)"):
        count(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)), (3,))
    with pytest.raises(UnsupportedError, match=r"\(4,\)"):
        count(nn.Sequential(nn.Linear(3, 2)), (4,))
