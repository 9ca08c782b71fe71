"""Networks and smaller networks of the benchmarks of encrypted inference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.derived import against_orion
from benchmarks.kinds import private, private_smaller
from benchmarks.kinds.private_networks import Images, Square, fit, lenet, without_pooling
from benchmarks.unit import Place, Unit
from fewbits.errors import BudgetError, RecipeError

DATA = torch.rand(256, 1, 28, 28), torch.randint(10, (256,))


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("squares", [2, 3, 4])
def test_lenet_has_the_squares_that_are_asked_for_and_the_same_weights(squares: int) -> None:
    model = lenet([3, 4, 8, 8], squares)
    assert sum(isinstance(module, Square) for module in model) == squares
    assert count(model) == count(lenet([3, 4, 8, 8], 4))
    x, model = DATA[0][:2].double(), model.double()
    for weight in model.parameters():
        weight.data *= weight.dim() > 1  # without biases the network is homogeneous, of degree 2 ** squares
    once, twice = model(x), model(2 * x)
    torch.testing.assert_close(twice, 2.0 ** (2**squares) * once)


@pytest.mark.parametrize("squares", [2, 4])
def test_pooling_is_part_of_what_follows_it(squares: int) -> None:
    torch.manual_seed(0)
    model, x = lenet([3, 4, 8, 8], squares).double(), DATA[0][:3].double()
    found = without_pooling(model)
    assert not any(isinstance(module, nn.AvgPool2d) for module in found)
    torch.testing.assert_close(found.double()(x), model(x))


def test_diagonals_fall_to_the_sparsity_and_stay_zero() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 128), Square(), nn.Linear(128, 4))
    asked = {"prune": ["1.weight"], "sparsity": 0.75, "lasso": 1e-3, "lines": False}
    falling = private_smaller.FallingDiagonals(model, (1, 16, 16), 8192, asked)
    fit(model, (torch.rand(1280, 1, 16, 16), torch.randint(4, (1280,))), 3, held=falling)
    numbers = falling.groups["1.weight"]
    left = {int(n) for n in numbers[model[1].weight != 0]}
    assert len(numbers.unique()) >= 8
    assert len(left) == round(0.25 * len(numbers.unique()))
    assert bool((model[3].weight != 0).all())


def test_maps_go_until_the_predicted_time_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def priced(model: nn.Module, samples: torch.Tensor, error: float) -> private_smaller.Predicted:
        seen.append(model[3].weight.numel())
        return private_smaller.Predicted(8192, seen[-1])

    monkeypatch.setattr(private_smaller, "predicted_of", priced)
    torch.manual_seed(0)
    dense, data = lenet([6, 16, 8, 8], 3), Images(DATA, DATA, "validation")
    asked = {"narrowed_epochs": 0, "distill": 0.5}
    small = private_smaller.narrowed(dense, data, 1000.0, asked)
    assert seen[-1] == small[3].weight.numel() <= 1000 < min(seen[:-1])
    assert [m.out_features for m in small if isinstance(m, nn.Linear)] == [8, 8, 10]
    assert small(DATA[0][:2]).shape == (2, 10)
    with pytest.raises(BudgetError, match="no network of fewer maps is predicted to take 1 milliseconds"):
        private_smaller.narrowed(dense, data, 1.0, asked)


def test_times_are_over_those_of_orion_in_the_same_run() -> None:
    rows = [(model, seed, name) for model in "ab" for seed in (0, 1) for name in ("ours", "dense, Orion 1.0.2")]
    frame = pd.DataFrame(rows, columns=["model", "seed", "program"])
    frame["milliseconds"] = [10, 50, 10, 70, 20, 30, 5, 30]
    assert list(against_orion(frame)["against_orion"]) == [5, 1, 7, 1, 1.5, 1, 6, 1]
    assert against_orion(frame[frame["program"] == "ours"])["against_orion"].isna().all()


def test_orion_is_asked_for_before_anything_is_trained(tmp_path: Path) -> None:
    asked = {"programs": [{"name": "dense, Orion", "squares": 2, "profile": "Orion's own", "by": "orion"}]}
    unit = Unit("private-peers", "private_peers", "private", 0, None, asked, {})
    with pytest.raises(RecipeError, match="--more orion=PYTHON"):
        private.measure(unit, Place(tmp_path, data=tmp_path / "nothing lies here"))
