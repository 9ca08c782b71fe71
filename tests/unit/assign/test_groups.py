"""Groups of weights fall together, and those of a packing are its diagonals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fewbits.assign import grouped
from fewbits.errors import RecipeError, SelectionError
from fewbits.plan import Plan


def test_the_weakest_groups_fall_whole() -> None:
    weight = torch.tensor([[1.0, 5.0, 0.1], [1.0, 0.0, 0.2]])
    numbers = torch.tensor([[0, 1, 2], [0, 1, 2]])
    plan, _ = _updated(grouped(1 / 3, {"a": numbers}), {"a": weight})
    assert plan["a"].kept.tolist() == [[True, True, False]] * 2
    plan, _ = _updated(grouped(2 / 3, {"a": numbers}), {"a": weight})
    assert plan["a"].kept.tolist() == [[False, True, False]] * 2


def test_some_groups_stay_and_what_fell_stays_away() -> None:
    weight, numbers = torch.randn(4, 6), torch.arange(6).expand(4, 6)
    plan, _ = _updated(grouped(1.0, {"a": numbers}, least=2), {"a": weight})
    assert len(numbers[plan["a"].kept].unique()) == 2
    assigner = grouped(0.5, {"a": numbers})
    first, state = assigner.update({"a": weight}, None, assigner.init({"a": weight}))
    stronger = torch.where(first["a"].kept, weight, 100.0)
    second, _ = assigner.update({"a": stronger}, None, state)
    assert not (second["a"].kept & ~first["a"].kept).any()


def test_groups_that_do_not_fit_are_refused() -> None:
    weight = torch.randn(4, 6)
    with pytest.raises(SelectionError, match="a has no groups; there are those of b"):
        grouped(0.5, {"b": torch.zeros(4, 6).long()}).init({"a": weight})
    with pytest.raises(SelectionError, match=r"a has shape \(4, 6\), its groups \(6, 4\)"):
        grouped(0.5, {"a": torch.zeros(6, 4).long()}).init({"a": weight})
    with pytest.raises(RecipeError, match="at least 0 groups"):
        grouped(0.5, {}, least=-1)


def test_a_pruned_diagonal_is_a_product_less() -> None:
    from fewbits.private import compile_network, diagonal_groups
    from fewbits.private.counts import total

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 32), _Square(), nn.Linear(32, 4))
    samples = torch.randn(8, 256)
    dense = compile_network(model, samples, profile="fast", degree=8192, error=1.0)
    groups = diagonal_groups(model, (256,), degree=8192, profile="fast")
    weights = {name: dict(model.named_parameters())[name] for name in ("0.weight",)}
    plan, _ = _updated(grouped(0.5, groups), weights)
    diagonals = len(groups["0.weight"].unique())
    model[0].weight.data *= plan["0.weight"].kept
    pruned = compile_network(model, samples, profile="fast", like=dense.profile)
    assert diagonals > 1
    assert total(pruned.counts, "multiply") == total(dense.counts, "multiply") - round(0.5 * diagonals)
    assert pruned.profile.parameters == dense.profile.parameters
    scattered = nn.Sequential(nn.Linear(256, 32), _Square(), nn.Linear(32, 4))
    scattered[0].weight.data *= torch.rand(32, 256) < 0.5
    zeros = compile_network(scattered, samples, profile="fast", like=dense.profile)
    assert total(zeros.counts, "multiply") == total(dense.counts, "multiply"), "scattered zeros save nothing"


def test_a_plan_costs_what_its_program_is_predicted_to_take() -> None:
    from fewbits.private import diagonal_groups, encrypted_latency

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 32), _Square(), nn.Linear(32, 4))
    cost = encrypted_latency(error=1.0, degree=8192)(model, (256,))
    groups = diagonal_groups(model, (256,), degree=8192, profile="fast")
    weights = {"0.weight": model[0].weight.detach()}
    plans = [grouped(share, groups) for share in (0.0, 0.7)]
    found = [cost(assigner.update(weights, None, assigner.init(weights))[0]) for assigner in plans]
    assert 0 < found[1] < found[0] < float("inf")
    refused = encrypted_latency()(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4,))
    assert refused(Plan({})) == float("inf")


class _Square(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def _updated(assigner, weights):  # type: ignore[no-untyped-def]
    plan, state = assigner.update(weights, None, assigner.init(weights))
    return plan.compressed, state


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_survivors_lie_on_as_few_lines_as_can_hold_them(rows: int, columns: int, sparsity: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    groups = rows * columns
    lines = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(groups, 2)
    weight, numbers = torch.rand(2, groups, generator=g) + 0.1, torch.arange(groups).expand(2, groups)
    plan, _ = _updated(grouped(sparsity, {"a": numbers}, lines={"a": lines}, least=1), {"a": weight})
    kept = plan["a"].kept[0].nonzero().flatten()
    assert len(kept) == groups - min(round(sparsity * groups), groups - 1)
    used = len(lines[kept, 0].unique()) + len(lines[kept, 1].unique())
    fewest = min(a + b for a in range(1, rows + 1) for b in range(1, columns + 1) if a * b >= len(kept))
    assert used <= fewest
    assert {0} <= set(lines[kept, 0].tolist()) | set(lines[kept, 1].tolist()) or len(kept) < 2


def test_groups_without_lines_are_refused() -> None:
    with pytest.raises(SelectionError, match=r"lines of shape \(2, 2\) are not two for each of 3 groups"):
        _updated(
            grouped(0.5, {"a": torch.arange(3).expand(2, 3)}, lines={"a": torch.zeros(2, 2).long()}),
            {"a": torch.randn(2, 3)},
        )
