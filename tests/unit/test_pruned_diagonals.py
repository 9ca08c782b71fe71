"""A recipe prunes the diagonals of encrypted products, and the file's network has fewer of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits import recipe as recipes
from fewbits.errors import DataError, RecipeError, SelectionError, UnsupportedError
from fewbits.pipeline import check
from fewbits.private import compile_network, diagonals_of
from fewbits.private.counts import total
from fewbits.train.group_lasso import GroupLasso

PRUNE = {"method": "diagonals", "sparsity": 0.75, "schedule": "cubic", "end": 0.5, "lasso": 1e-3}
RECIPE = {"prune": PRUNE, "assign": {"method": "none"}, "train": {"epochs": 6, "lr": 1e-3}, "rounds": 2}


class Square(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 32), nn.BatchNorm1d(32), Square(), nn.Linear(32, 4)).eval()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.rand(8, 256, generator=g), torch.randint(4, (8,), generator=g)) for _ in range(4)]


@pytest.mark.parametrize("assign", [{"method": "none"}, {"method": "ecq", "bits": 4, "lam": 0.01}])
def test_a_recipe_makes_a_file_that_takes_fewer_products_and_rotations(assign: dict, tmp_path: Path) -> None:
    dense, samples = network(), batches()[0][0]
    small = fb.compress(dense, batches(), recipe=RECIPE | {"assign": assign}, progress=None)
    small.save(tmp_path / "net.few")
    pruned = fb.load(tmp_path / "net.few", like=network())
    before = compile_network(dense, samples, profile="fast", degree=8192, error=1e3)
    after = compile_network(pruned, samples, profile="fast", like=before.profile)
    diagonals = diagonals_of(dense, (256,), degree=8192, profile="fast")
    for name, numbers in diagonals.groups.items():
        kept = small.plan[name].kept
        number = numbers[kept].unique()
        assert len(number) <= round(0.25 * int(numbers.max() + 1)) or len(number) == 1
        whole = torch.isin(numbers, number)
        assert not kept[~whole].any()
    assert total(after.counts, "multiply") < 0.4 * total(before.counts, "multiply")
    assert total(after.counts, "rotate") < total(before.counts, "rotate")


def test_a_layer_without_diagonals_of_its_own_stays_whole() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Square(), nn.Flatten(), nn.Linear(72, 128), Square(), nn.Linear(128, 3))
    data = [(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))]
    prune = {"method": "diagonals", "sparsity": 0.5, "packing": {"profile": "precise", "degree": 4096}}
    plan = fb.compress(model, data, recipe=RECIPE | {"prune": prune, "train": None}, progress=None).plan
    assert plan["0.weight"].kept.all()
    assert not plan["3.weight"].kept.all()
    with pytest.raises(SelectionError, match=r"no selected weight has diagonals; .*3\.weight.* would"):
        fb.compress(model, data, recipe=RECIPE | {"prune": prune, "train": None, "select": {"include": ["0.*"]}})


def test_a_normalisation_and_a_scaled_polynomial_leave_diagonals_as_they_are() -> None:
    class Halved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * x * x + 0.25 * x

    plain, other = network(), network()
    other[2] = Halved()
    other[1].running_var.uniform_(0.5, 2.0)
    wanted = diagonals_of(plain, (256,), degree=8192, profile="fast")
    found = diagonals_of(other, (256,), degree=8192, profile="fast")
    assert set(found.groups) == {"0.weight", "3.weight"} == set(wanted.groups)
    for name, numbers in found.groups.items():
        assert torch.equal(numbers, wanted.groups[name])


def test_what_a_recipe_cannot_mean_is_refused() -> None:
    for change, message in [
        ({"over": "parameters"}, "a share of each layer's diagonals"),
        ({"schedule": "one-shot"}, "before diagonals fall: add schedule cubic"),
        ({"method": "lamp"}, "lasso goes with diagonals, not with lamp"),
        ({"sparsity": None}, "takes sparsity"),
    ]:
        with pytest.raises(RecipeError, match=message):
            check(recipes.make(RECIPE | {"prune": PRUNE | change}))
    with pytest.raises(RecipeError, match="train has no epochs"):
        check(recipes.make(RECIPE | {"train": None}))
    with pytest.raises(RecipeError, match=r"prune\.packing\.degree"):
        recipes.make(RECIPE | {"prune": PRUNE | {"packing": {"degree": 1000}}})


def test_networks_and_data_that_have_no_diagonals_are_refused() -> None:
    once = RECIPE | {"prune": PRUNE | {"lasso": 0.0}, "train": None}
    with pytest.raises(UnsupportedError, match=r"1 \(ReLU\) cannot be computed on encrypted numbers"):
        fb.compress(nn.Sequential(nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 4)), batches(), recipe=once)
    with pytest.raises(DataError, match="give some batches"):
        fb.compress(network(), recipe=once)


def test_the_lasso_is_the_gradient_of_its_sum() -> None:
    torch.manual_seed(0)
    weight, numbers = nn.Parameter(torch.randn(5, 7)), torch.randint(4, (5, 7))
    loss = sum(
        (int((numbers == n).sum()) ** 0.5) * weight[numbers == n].norm() for n in range(4)
    )  # as it is written in the paper
    (wanted,) = torch.autograd.grad(0.3 * loss, weight)
    weight.grad = torch.ones_like(weight)
    lasso = GroupLasso({"a": numbers, "gone": numbers}, 0.3, until=0.5)
    lasso.add({"a": weight})
    torch.testing.assert_close(weight.grad - 1, wanted)
    assert (lasso.acts(0.49), lasso.acts(0.5)) == (True, False)
    zero = nn.Parameter(torch.zeros(5, 7))
    lasso.add({"a": zero})
    assert not zero.grad.any()  # what has fallen is not drawn, and nothing divides by zero


def test_circulant_blocks_cost_what_any_blocks_do() -> None:
    dense, samples = network(), batches()[0][0]
    circulant = network()
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(256), indexing="ij")
    blocks = rows // 8 * 32 + columns // 8  # of 8 by 8
    circulant[0].weight.data = torch.randn(128, 8)[blocks, (columns - rows) % 8]
    found = [compile_network(net, samples, profile="fast", degree=8192, error=1e3).counts for net in (dense, circulant)]
    assert found[0] == found[1]
