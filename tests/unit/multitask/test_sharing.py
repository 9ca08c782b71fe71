"""Who shares what, how alike tasks are, and what a segment is worth to whom."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import DataError
from fewbits.multitask import (
    CKA,
    Tasks,
    attribution,
    branched_paths,
    cka,
    random_paths,
    relevance_by_task,
    sharing,
    sharing_predicts,
    similarity,
    train_tasks,
)
from fewbits.recipe.training import Training
from fewbits.task import Classification
from tests.task_networks import NAMES, batches, loaders, net, paths


def test_the_sharing_matrix_is_counted() -> None:
    made = random_paths([f"t{i}" for i in range(5)], 3, 6, 2, seed=4)
    found = sharing(made)
    for i, a in enumerate(made.values()):
        for j, b in enumerate(made.values()):
            for layer in range(3):
                same = sum(bool(a[layer, m]) and bool(b[layer, m]) for m in range(6))
                assert int(found.by_layer[layer, i, j]) == same
    assert torch.equal(found.matrix, found.by_layer.sum(0))
    places = [*found.unused, *found.shared, *(place for own in found.private.values() for place in own)]
    assert sorted(places) == [(layer, module) for layer in range(3) for module in range(6)]
    for place in found.unused:
        assert not any(bool(path[place]) for path in made.values())


def features(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_cka_is_kornbliths_formula() -> None:
    x, y = features(12, 5, 0), features(12, 3, 1) + 4
    a, b = x - x.mean(0), y - y.mean(0)
    by_features = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert cka(x, y, unbiased=False) == pytest.approx(float(by_features))


def test_the_unbiased_estimate_is_the_mean_over_sets_of_four() -> None:
    """HSIC is the expectation, over four different samples, of k(1,2) (m(1,2) + m(3,4) - 2 m(1,3))."""
    x, y = features(7, 4, 0), features(7, 2, 1)
    k, m = x @ x.T, y @ y.T
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(7), 4)]
    found = CKA()
    found.add(x, y)
    assert float(found.sums[0]) == pytest.approx(float(torch.stack(terms).mean()))


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 20), st.integers(1, 6), st.booleans())
def test_cka_knows_neither_rotation_nor_scale_nor_place(n: int, d: int, unbiased: bool) -> None:
    x, y = features(n, d, n), features(n, 3, d)
    turn = torch.linalg.qr(features(d, d, 5)).Q
    assert cka(x, y, unbiased=unbiased) == pytest.approx(
        cka(3 * x @ turn + 7, y, unbiased=unbiased), rel=1e-6, abs=1e-9, nan_ok=True
    )
    assert cka(x, x @ turn, unbiased=unbiased) == pytest.approx(1.0, nan_ok=True)


def test_independent_features_are_alike_for_the_biased_estimate_only() -> None:
    biased, unbiased = CKA(unbiased=False), CKA()
    for seed in range(30):
        x, y = features(16, 64, seed), features(16, 64, 1000 + seed)
        biased.add(x, y)
        unbiased.add(x, y)
    assert biased.value() > 0.7
    assert abs(unbiased.value()) < 0.05
    with pytest.raises(DataError, match="4 at least"):
        unbiased.add(x[:3], y[:3])


def test_tasks_on_one_path_are_alike_and_others_are_not() -> None:
    made = net(branched_paths(NAMES, 2, shared=[0]))
    was = made.train()
    found = similarity(made, [batch.inputs.args[0] for batch in batches(batches=2)])
    assert was.training
    assert found.shape == (2, 3, 3)
    torch.testing.assert_close(found[0], torch.ones(3, 3))
    assert (found[1][~torch.eye(3, dtype=torch.bool)] < 0.95).all()
    with pytest.raises(DataError, match="no samples"):
        similarity(made, [])


def test_dropping_a_segment_costs_what_a_network_without_it_loses() -> None:
    made = net(merge="sum", norm="task")
    train_tasks(made, loaders(batches=4), Training(epochs=3, lr=2e-2), seed=0)
    aim, data = Tasks({name: Classification() for name in NAMES}), batches(batches=2, seed=1)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    found = attribution(made, aim, data)
    assert {place: sorted(losses) for place, losses in found.items()} == {
        place: sorted(names) for place, names in paths().users().items()
    }
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    place = next(iter(found))
    norm = made.segment(*place)[1]  # type: ignore[index]
    for own in norm.each.values():
        torch.nn.init.zeros_(own.weight)
        torch.nn.init.zeros_(own.bias)
    after = aim.by_task(made, data)
    made.load_state_dict(before)
    full = aim.by_task(made, data)
    for name, loss in found[place].items():
        assert loss == pytest.approx(full[name] - after[name])
    assert max(max(losses.values()) for losses in found.values()) > 5


def test_relevance_of_a_tasks_segments_sums_to_one_in_each_layer() -> None:
    made = net(merge="mean", norm="task")
    data = loaders(batches=2)
    found = relevance_by_task(made, data)
    assert {place: sorted(shares) for place, shares in found.items()} == {
        place: sorted(names) for place, names in paths().users().items()
    }
    for name in NAMES:
        for layer in range(2):
            total = sum(shares[name] for place, shares in found.items() if place[0] == layer and name in shares)
            assert total == pytest.approx(1.0)


def test_the_permutation_test_counts_all_orders_of_few_tasks() -> None:
    draw = torch.Generator().manual_seed(0)
    shared = torch.randint(0, 5, (5, 5), generator=draw).float()
    shared = shared + shared.T
    alike = shared + torch.randn(5, 5, generator=draw)
    alike = alike + alike.T
    found = sharing_predicts(shared, alike)
    upper = np.triu_indices(5, 1)
    values = [
        np.corrcoef(shared.numpy()[upper], alike.numpy()[np.ix_(o, o)][upper])[0, 1] for o in permutations(range(5))
    ]
    assert found.correlation == pytest.approx(values[0])
    assert found.permutations == 120
    assert found.p == pytest.approx(np.mean(np.array(values) >= values[0] - 1e-9))


@pytest.mark.long
def test_the_permutation_test_keeps_its_level_and_finds_what_is_there() -> None:
    levels = []
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        shared = sharing(random_paths([f"t{i}" for i in range(8)], 4, 6, 2, seed=seed)).matrix.double()
        noise = torch.randn(8, 8, generator=draw, dtype=torch.float64)
        levels.append(sharing_predicts(shared, noise + noise.T, permutations=199).p)
        if seed < 5:
            assert sharing_predicts(shared, shared + 0.3 * (noise + noise.T), permutations=199).p < 0.05
    assert np.mean(np.array(levels) <= 0.1) < 0.25
    assert 0.35 < np.mean(levels) < 0.65
    with pytest.raises(DataError, match="four or more"):
        sharing_predicts(torch.rand(3, 3), torch.rand(3, 3))
    with pytest.raises(DataError, match="nothing can be said"):
        sharing_predicts(torch.ones(4, 4), torch.rand(4, 4))
