"""Radix selection and pruners against sorting everything, on small random networks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import Tensor

from fewbits.assign import Assigner, erk, feather, global_magnitude, lamp, n_of_m, selection, uniform
from fewbits.assign.selection import Shards, chosen, smallest
from fewbits.plan import Masked

# Many equal magnitudes, both zeros, subnormals and the largest float: what a selection by bits could get wrong.
ODD = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e-45, -1e-40, 3.4028234663852886e38, 0.25, 0.25000003])
NUMBER = ODD | st.floats(-2, 2, width=32)
TENSOR = st.lists(NUMBER, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float32))
TENSORS = st.lists(TENSOR, min_size=1, max_size=5)


def order_of(tensors: list[Tensor], already_pruned: list[Tensor | None] | None = None) -> list[tuple[int, int]]:
    """``(tensor, index)`` of every element, in the order in which they are chosen: Python's sort, by definition."""

    def rank(place: tuple[int, int]) -> tuple[bool, float, int, int]:
        t, i = place
        bar = already_pruned[t] if already_pruned is not None else None
        return (bar is None or not bool(bar[i]), abs(float(tensors[t][i])), t, i)

    return sorted(((t, i) for t, x in enumerate(tensors) for i in range(len(x))), key=rank)


def by_hand(
    tensors: list[Tensor],
    count: int,
    limits: list[int] | None = None,
    already_pruned: list[Tensor | None] | None = None,
) -> list[Tensor]:
    """Go through the elements in order; an element whose tensor has reached its limit is left out."""
    found = [torch.zeros(len(x), dtype=torch.bool) for x in tensors]
    left = count
    for t, i in order_of(tensors, already_pruned):
        if left and (limits is None or int(found[t].sum()) < limits[t]):
            found[t][i] = True
            left -= 1
    assert left == 0
    return found


@given(TENSORS, st.data())
def test_selection_is_that_of_a_sort(tensors: list[Tensor], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(map(len, tensors))))
    cuts = smallest(tensors, count)
    for tensor, cut, expected in zip(tensors, cuts, by_hand(tensors, count), strict=True):
        assert torch.equal(chosen(tensor, cut), expected)


@given(TENSORS, st.data())
def test_limits_per_tensor_and_what_is_chosen_already(tensors: list[Tensor], data: st.DataObject) -> None:
    def some(x: Tensor) -> st.SearchStrategy[Tensor | None]:
        flags = st.lists(st.booleans(), min_size=len(x), max_size=len(x))
        return st.none() | flags.map(lambda v: torch.tensor(v, dtype=torch.bool))

    bars = [data.draw(some(x)) for x in tensors]
    out = [0 if bar is None else int(bar.sum()) for bar in bars]
    limits = [data.draw(st.integers(n, len(x))) for n, x in zip(out, tensors, strict=True)]
    count = data.draw(st.integers(sum(out), sum(limits)))
    cuts = smallest(tensors, count, limits=limits, already_pruned=bars)
    expected = by_hand(tensors, count, limits, bars)
    for tensor, cut, bar, wanted in zip(tensors, cuts, bars, expected, strict=True):
        assert torch.equal(chosen(tensor, cut, bar), wanted)


@given(TENSORS, st.data())
@settings(max_examples=30)
def test_small_chunks_and_double_precision_choose_the_same(tensors: list[Tensor], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(map(len, tensors))))
    expected = by_hand(tensors, count)
    doubles = [x.double() for x in tensors]
    before, selection.CHUNK = selection.CHUNK, 3
    try:
        for kind in (tensors, doubles):
            for tensor, cut, wanted in zip(kind, smallest(kind, count), expected, strict=True):
                assert torch.equal(chosen(tensor, cut), wanted)
    finally:
        selection.CHUNK = before


@given(TENSORS, st.data())
@settings(max_examples=25)
def test_shards_choose_what_one_process_chooses(tensors: list[Tensor], data: st.DataObject) -> None:
    """Each of three threads has its stretch of every tensor, and they exchange histograms only."""
    count = data.draw(st.integers(0, sum(map(len, tensors))))
    limits = [max(1, len(x) - 1) if len(x) else 0 for x in tensors]
    count = min(count, sum(limits))
    processes = 3
    pieces = [[x.tensor_split(processes)[r] for x in tensors] for r in range(processes)]
    barrier, shared = threading.Barrier(processes), [torch.empty(0)] * processes
    results: list[list[Tensor]] = [[] for _ in range(processes)]

    def process(rank: int) -> None:
        def gather(x: Tensor) -> Tensor:
            shared[rank] = x
            barrier.wait(10)
            every = torch.stack(list(shared))
            barrier.wait(10)
            return every

        cuts = smallest(pieces[rank], count, limits=limits, shards=Shards(gather, rank))
        results[rank] = [chosen(x, cut) for x, cut in zip(pieces[rank], cuts, strict=True)]

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for t, expected in enumerate(by_hand(tensors, count, limits)):
        assert torch.equal(torch.cat([results[rank][t] for rank in range(processes)]), expected)


# -- pruners --------------------------------------------------------------------------------------------

WEIGHTS = st.integers(0, 10_000).map(
    lambda seed: {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(seed + k)) * scale
        for k, (name, shape, scale) in enumerate(
            [("a", (6, 2, 3, 3), 0.3), ("b", (5, 7), 1.0), ("c", (4, 9), 0.02), ("d", (3,), 0.5)]
        )
    }
)
TOTAL = 108 + 35 + 36 + 3
SPARSITY = st.floats(0, 1)


def masks(assigner: Assigner, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    assert all(isinstance(entry, Masked) for entry in plan.values())
    return {name: entry.kept for name, entry in plan.compressed.items()}


@given(WEIGHTS, SPARSITY)
def test_one_threshold(weights: dict[str, Tensor], sparsity: float) -> None:
    found = masks(global_magnitude(sparsity), weights)
    expected = by_hand([w.flatten() for w in weights.values()], round(sparsity * TOTAL))
    for mask, pruned in zip(found.values(), expected, strict=True):
        assert torch.equal(mask.flatten(), ~pruned)


@given(WEIGHTS, SPARSITY, st.integers(0, 20))
def test_the_floor_is_exact_and_the_rest_has_one_threshold(weights: dict[str, Tensor], s: float, min_kept: int) -> None:
    most = sum(max(0, w.numel() - min_kept) for w in weights.values())
    sparsity = min(s, most / TOTAL)
    found = masks(global_magnitude(sparsity, min_kept), weights)
    assert sum(int((~m).sum()) for m in found.values()) == round(sparsity * TOTAL)
    fallen, free = [], []
    for name, mask in found.items():
        w, kept = weights[name].abs().flatten(), mask.flatten()
        assert int(kept.sum()) >= min(min_kept, w.numel())
        if kept.any() and not kept.all():
            assert w[~kept].max() <= w[kept].min()
        fallen.append(w[~kept])
        if int(kept.sum()) > min(min_kept, w.numel()):
            free.append(w[kept])
    below, above = torch.cat(fallen), torch.cat(free) if free else torch.empty(0)
    if len(below) and len(above):
        assert below.max() <= above.min(), "a weight that no min_kept protects is smaller than one that fell"


@given(WEIGHTS, SPARSITY)
def test_lamp_is_its_formula(weights: dict[str, Tensor], sparsity: float) -> None:
    scores = []
    for w in weights.values():
        squares = w.double().flatten().square()
        scores.append(torch.stack([x / squares[squares >= x].sum() for x in squares]))
    count = round(sparsity * TOTAL)
    found = torch.cat([m.flatten() for m in masks(lamp(sparsity), weights).values()])
    every = torch.cat(scores)
    assert int((~found).sum()) == count
    if 0 < count < TOTAL:
        assert every[~found].max() <= every[found].min() * (1 + 1e-12)
    if count <= TOTAL - len(weights):
        assert all(mask.any() for mask in masks(lamp(sparsity), weights).values())


@given(WEIGHTS, SPARSITY, st.sampled_from([uniform, erk]))
def test_layer_budgets(weights: dict[str, Tensor], sparsity: float, method: Callable[..., Assigner]) -> None:
    found = masks(method(sparsity), weights)
    kept = {name: int(mask.sum()) for name, mask in found.items()}
    total = TOTAL - round(sparsity * TOTAL)
    assert sum(kept.values()) == total
    raw = {n: sum(w.shape) / w.numel() if method is erk else 1.0 for n, w in weights.items()}
    # Water filling by bisection on the common factor: another way to the same densities.
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if sum(min(1.0, middle * raw[n]) * w.numel() for n, w in weights.items()) < total:
            low = middle
        else:
            high = middle
    for name, w in weights.items():
        assert abs(kept[name] - min(1.0, high * raw[name]) * w.numel()) <= 1 + 1e-6
        mask, magnitude = found[name].flatten(), w.abs().flatten()
        if mask.any() and not mask.all():
            assert magnitude[~mask].max() <= magnitude[mask].min()


@given(WEIGHTS, st.sampled_from(["2:4", "1:4", "4:8", "1:1", "3:5"]))
def test_every_group_has_its_pattern(weights: dict[str, Tensor], pattern: str) -> None:
    n, m = map(int, pattern.split(":"))
    for name, mask in masks(n_of_m(pattern), weights).items():
        w = weights[name]
        rows = w.movedim(1, -1).flatten(0, -2) if w.dim() > 1 else w.view(1, -1)
        kept = mask.movedim(1, -1).flatten(0, -2) if w.dim() > 1 else mask.view(1, -1)
        for row, flags in zip(rows, kept, strict=True):
            for group, flag in zip(row.split(m), flags.split(m), strict=True):
                assert int(flag.sum()) == min(n, len(group))
                best = group.abs().sort(descending=True).values[: min(n, len(group))]
                assert torch.equal(group[flag].abs().sort(descending=True).values, best)


@given(WEIGHTS, st.floats(0.05, 0.95))
def test_feather_takes_its_threshold_off_the_survivors(weights: dict[str, Tensor], sparsity: float) -> None:
    assigner = feather(sparsity)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    every = torch.cat([w.flatten() for w in weights.values()]).abs().sort().values
    t = float(every[round(sparsity * TOTAL) - 1])
    for name, entry in plan.items():
        w = weights[name].double()
        expected = torch.where(w.abs() > t, w.sign() * (w.abs() ** 3 - t**3).clamp_min(0) ** (1 / 3), 0.0)
        assert torch.allclose(entry.values().double(), expected, atol=2e-3 * t)
