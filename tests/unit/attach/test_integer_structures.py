"""The integer form of networks whose values are tuples, whole numbers, constants, or named as a module's own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits import codec
from fewbits.errors import UnsupportedError
from fewbits.int8 import folded
from fewbits.int8.form import affine_plan, calibrate, hold_affine, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.pipeline.restore import restore


class Between(nn.Module):
    """Two layers with something in between."""

    def __init__(self, between: Callable[..., Tensor], after: int = 6, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.layer = nn.Linear(5, 6), nn.Linear(after, 3), layer
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self, self.first(x)))


STRUCTURES = {
    "parts that are joined at once": {"between": lambda m, x: torch.cat(x.chunk(2, 1), 1)},
    "parts of another kind": {"between": lambda m, x: torch.cat(torch.tensor_split(x, [1], dim=1)[::-1], 1)},
    "some of many parts": {"between": lambda m, x: torch.stack(x.unbind(1)[:2], 1), "after": 2},
    "a part": {"between": lambda m, x: x.split([2, 4], 1)[1], "after": 4},
    "parts one by one": {"between": lambda m, x: torch.cat([2 * part for part in x.chunk(2, 1)], 1)},
    "largest values": {"between": lambda m, x: x.view(-1, 2, 3).max(1)[0], "after": 3},
    "values by their name": {"between": lambda m, x: x.view(-1, 2, 3).median(1).values, "after": 3},
    "sorted ones": {"between": lambda m, x: torch.cat([torch.sort(x)[0], x], 1), "after": 12},
    "indices that are left": {
        "between": lambda m, x: F.max_pool1d(x.unsqueeze(1), 2, return_indices=True)[0].flatten(1),
        "after": 3,
    },
    "indices of a layer": {
        "between": lambda m, x: m.layer(x.unsqueeze(1))[0].flatten(1),
        "after": 3,
        "layer": nn.MaxPool1d(2, return_indices=True),
    },
    "a recurrent layer": {
        "between": lambda m, x: m.layer(x.unsqueeze(1))[0][:, -1],
        "after": 4,
        "layer": nn.GRU(6, 4, batch_first=True),
    },
    "a value that is called as a method of modules": {"between": lambda m, x: (x * 2).to(x.dtype)},
    "another one": {"between": lambda m, x: (x * 2).float() + x},
    "a constant": {"between": lambda m, x: x.index_select(1, torch.tensor([0, 2])), "after": 2},
    "two constants": {
        "between": lambda m, x: x[:, torch.tensor([0, 2])] + x.index_select(1, torch.tensor([1, 3])),
        "after": 2,
    },
}


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Between(**STRUCTURES[name]).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_folded_calibrated_and_read_again(name: str) -> None:
    model, inputs = network(name), torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    wanted = model(inputs)
    assert torch.allclose(folded(model)[0](inputs), wanted, atol=1e-6)
    net = integer_form(copy.deepcopy(model), RangedQuantizer)
    calibrate(net, [inputs])
    hold_affine(net)
    found, plan = restore(codec.encode(affine_plan(net)), network(name, seed=1))
    outputs = found(inputs)
    assert torch.equal(found(inputs), outputs)
    assert bool((outputs - wanted).abs().max() < 0.05 * wanted.abs().max())  # 8 bits
    again, _ = restore(codec.encode(plan), model)  # a network whose structure was read before
    assert torch.equal(again(inputs), outputs)


def test_names_that_meet_without_dots_are_two_quantizers() -> None:
    class Meeting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a_b = nn.Linear(4, 4)
            self.a = nn.ModuleDict({"b": nn.Linear(4, 4)})
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.a["b"](self.a_b(x)))

    names = [name for name, _ in integer_form(Meeting()).quantizers.named_children()]
    assert names == ["x", "a_b", "a_b_"]


def test_a_form_that_does_not_compute_is_refused_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Ten numbers in four parts are four; five in four parts are three, and who reads the graph cannot know."""
    model = Between(lambda m, x: torch.cat([2 * part for part in x[:, :5].chunk(4, 1)], 1), after=5)
    assert model(torch.randn(2, 5)).shape == (2, 3)
    with pytest.raises(UnsupportedError, match="does not compute once") as caught:
        calibrate(integer_form(model, RangedQuantizer), [torch.randn(2, 5)])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_cannot_be_read_names_the_line() -> None:
    def between(m: nn.Module, x: Tensor) -> Tensor:
        return 2 * x if x.sum() > 0 else x

    with pytest.raises(UnsupportedError, match=r"at line \d+ of test_integer_structures.py, in between: symbolically"):
        folded(Between(between))
