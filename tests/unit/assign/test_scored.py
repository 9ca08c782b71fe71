"""Pruning by scores: which weights fall, exactly how many, and what a schedule and regrowth do."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from fewbits.assign import chain, ecqx, global_magnitude, only, scored, wanda
from fewbits.plan import Masked

sizes = st.tuples(st.integers(1, 5), st.integers(1, 7))


def tensors(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"a": (6, 11), "b": (4, 3, 3, 3), "c": (9,)}
    return {n: torch.randn(s, generator=g) for n, s in shapes.items()}, {
        n: torch.randn(s, generator=g) for n, s in shapes.items()
    }


def zeros_of(assigner, weights, scores) -> dict[str, torch.Tensor]:
    plan, _ = assigner.update(weights, scores, assigner.init(weights))
    return {name: ~entry.kept for name, entry in plan.compressed.items()}


@given(st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5, 0.77, 1.0]))
def test_the_smallest_scores_of_all_layers_fall(seed: int, sparsity: float) -> None:
    weights, scores = tensors(seed)
    zeros = zeros_of(scored(sparsity), weights, scores)
    joined = torch.cat([scores[n].abs().flatten() for n in weights])
    expected = torch.zeros_like(joined, dtype=torch.bool)
    expected[joined.argsort()[: round(sparsity * len(joined))]] = True
    assert torch.equal(torch.cat([zeros[n].flatten() for n in weights]), expected)


def test_magnitudes_as_scores_are_magnitude_pruning() -> None:
    weights, _ = tensors(3)
    found, expected = zeros_of(scored(0.6), weights, weights), zeros_of(global_magnitude(0.6), weights, None)
    assert all(torch.equal(found[n], expected[n]) for n in weights)


@given(sizes, st.integers(0, 99), st.floats(0, 1))
def test_wanda_prunes_each_output_by_weight_times_norm(size: tuple[int, int], seed: int, sparsity: float) -> None:
    g = torch.Generator().manual_seed(seed)
    weights = {"a": torch.randn(*size, generator=g), "b": torch.randn(3, 2, 2, generator=g)}
    norms = {n: torch.rand(w.shape[1:], generator=g).expand(w.shape) for n, w in weights.items()}
    zeros = zeros_of(wanda(sparsity), weights, norms)
    total = sum(w.numel() for w in weights.values())
    assert sum(int(z.sum()) for z in zeros.values()) == round(sparsity * total)
    for name, weight in weights.items():
        products = (weight.abs() * norms[name]).flatten(1)
        for row, gone in zip(products, zeros[name].flatten(1), strict=True):
            share = round(sparsity * total) / total * len(row)
            assert abs(int(gone.sum()) - share) < 1
            assert torch.equal(row.argsort()[: int(gone.sum())].sort().values, gone.nonzero().flatten())


def test_wanda_by_hand() -> None:
    weight = torch.tensor([[4.0, 1.0, -1.0, 1.0], [1.0, 2.0, 3.0, -8.0]])
    norms = torch.tensor([1.0, 8.0, 2.0, 3.0]).expand(2, 4)  # products 4 8 2 3 and 1 16 6 24
    zeros = zeros_of(wanda(0.5), {"a": weight}, {"a": norms})["a"]
    assert zeros.tolist() == [[False, False, True, True], [True, False, True, False]]


def test_products_beyond_float32_are_still_compared() -> None:
    weight = torch.tensor([[3e38, -2e38, 1e-30, 2e-30]])
    zeros = zeros_of(wanda(0.25), {"a": weight}, {"a": torch.tensor([[1e20, 1e20, 1e-30, 1e-30]])})["a"]
    assert zeros.tolist() == [[False, False, True, False]]


@pytest.mark.parametrize("method", [scored, wanda])
def test_what_fell_stays_unless_it_may_regrow(method) -> None:
    weights, scores = tensors(1)
    turned = {n: 1 / s for n, s in scores.items()}
    for regrow in (False, True):
        early, late = method(0.3, regrow=regrow), method(0.5, regrow=regrow)
        first, state = early.update(weights, scores, early.init(weights))
        second, _ = late.update(weights, turned, state)
        gone = [bool((second[n].kept & ~first[n].kept).any()) for n in weights]
        assert any(gone) == regrow
        assert sum(int((~e.kept).sum()) for e in second.values()) == round(0.5 * 183)
        assert all(isinstance(e, Masked) and e.straight_through == 0.0 for e in second.values())


def test_a_rarer_zero_count_never_brings_weights_back() -> None:
    weights, scores = tensors(2)
    first, state = wanda(0.6).update(weights, scores, wanda(0.6).init(weights))
    second, _ = wanda(0.2).update(weights, None, state)
    assert all(torch.equal(first[n].kept, second[n].kept) for n in weights)


def test_relevance_keeps_its_momentum_behind_a_pruner_that_reads_scores() -> None:
    """Both remember scores of the same weight: one must not be taken for the other."""
    weights, scores = tensors(4)
    both, alone = chain(scored(0.0), ecqx(4, 0.3, momentum=0.5)), ecqx(4, 0.3, momentum=0.5)
    states = [a.update(weights, scores, a.init(weights))[1] for a in (both, alone)]
    later = {n: s + 1 for n, s in scores.items()}
    (mixed, after), (expected, known) = (
        a.update(weights, later, s) for a, s in zip((both, alone), states, strict=True)
    )
    assert mixed.equals(expected)
    for name in weights:
        assert torch.equal(after[name].quantizer.scores, known[name].scores)
        assert torch.equal(after[name].pruner.scores, later[name])


def test_only_the_layers_asked_for_need_scores() -> None:
    weights, scores = tensors(5)
    assigner = only("a", wanda(0.5), otherwise=global_magnitude(0.5))
    assert zeros_of(assigner, weights, {"a": scores["a"]})["a"].sum() == 33
