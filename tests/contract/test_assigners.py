"""What every assigner promises, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewbits.assign import (
    Assigner,
    ChainState,
    EntropyState,
    chain,
    ecq,
    ecqx,
    erk,
    feather,
    global_magnitude,
    grouped,
    lamp,
    layerwise,
    n_of_m,
    only,
    random_pruning,
    scored,
    ternary,
    uniform,
    wanda,
)
from fewbits.errors import DataError, NonFiniteError, RecipeError, SelectionError
from fewbits.plan import Clustered, Masked, Plan
from states import assert_same

ASSIGNERS: dict[str, Callable[..., Assigner]] = {
    "ecq": lambda lam=0.05: ecq(4, lam),
    "ecq 2 bit": lambda lam=0.05: ecq(2, lam),
    "ecq 8 bit": lambda lam=0.05: ecq(8, lam),
    "ecq 16 bit": lambda lam=0.05: ecq(16, lam),
    "ecq max": lambda lam=0.05: ecq(4, lam, scale="max"),
    "ecq rate": lambda lam=0.05: ecq(4, lam, step_rule="rate"),
    "ecqx rate": lambda lam=0.05: ecqx(3, lam, zero_floor=0.5, step_rule="rate"),
    "ecq zero floor": lambda lam=0.05: ecq(4, lam, zero_floor=0.5),
    "ecqx": lambda lam=0.05: ecqx(4, lam),
    "ecqx tight": lambda lam=0.05: ecqx(3, lam, p=0.02),
    "ecqx released": lambda lam=0.05: ecqx(4, lam, p=0.1, p_rule="released", scale="max", zero_floor=0.5),
    "ternary": ternary,
    "only": lambda lam=0.05: only("a", ecqx(4, lam), otherwise=ternary(lam)),
}
PRUNERS: dict[str, Callable[..., Assigner]] = {
    "global magnitude": lambda: global_magnitude(0.7),
    "global magnitude floor": lambda: global_magnitude(0.6, 1),
    "global magnitude regrow": lambda: global_magnitude(0.7, regrow=True, straight_through=1.0),
    "lamp": lambda: lamp(0.7),
    "erk": lambda: erk(0.7),
    "uniform": lambda: uniform(0.7),
    "feather": lambda: feather(0.7),
    "random": lambda: random_pruning(0.7),
    "layerwise": lambda: layerwise({"*": 0.7}),
    "2:4": lambda: n_of_m("2:4"),
    "groups": lambda: grouped(0.7, lambda name, weight: torch.arange(weight.numel()).reshape(weight.shape) % 7),
    "groups regrow": lambda: grouped(0.7, lambda name, weight: torch.zeros_like(weight).long(), regrow=True),
}
SCORED: dict[str, Callable[..., Assigner]] = {
    "scored": lambda: scored(0.7),
    "scored regrow": lambda: scored(0.7, regrow=True, straight_through=1.0),
    "wanda": lambda: wanda(0.7),
    "wanda regrow": lambda: wanda(0.7, regrow=True, straight_through=1.0),
}
CHAINS: dict[str, Callable[..., Assigner]] = {
    "chain ecq": lambda lam=0.05: chain(global_magnitude(0.5), ecq(4, lam)),
    "chain ecqx": lambda lam=0.05: chain(lamp(0.5), ecqx(4, lam)),
    "chain ternary": lambda lam=0.05: chain(uniform(0.5), ternary(lam)),
}
FLOORS: dict[str, Callable[..., Assigner]] = {
    "ecq floor": lambda lam=0.05: ecq(4, lam, step_rule="rate", min_kept=0.5),
    "ecqx floor": lambda lam=0.05: ecqx(3, lam, zero_floor=0.5, min_kept=0.5),
}
SCORED_CHAINS: dict[str, Callable[..., Assigner]] = {
    "chain scored ecqx": lambda lam=0.05: chain(scored(0.5), ecqx(4, lam)),
}
NEEDS_SCORES = SCORED | SCORED_CHAINS
EVERY = ASSIGNERS | PRUNERS | CHAINS | FLOORS | NEEDS_SCORES
WITH_SCORES = [name for name in EVERY if "ecqx" in name or name in NEEDS_SCORES]


@pytest.fixture(params=EVERY)
def make(request: pytest.FixtureRequest) -> Callable[..., Assigner]:
    return EVERY[request.param]


@pytest.fixture(params=ASSIGNERS)
def make_plain(request: pytest.FixtureRequest) -> Callable[..., Assigner]:
    """Those that put every weight where it is cheapest, whatever the others do."""
    return ASSIGNERS[request.param]


@pytest.fixture(params=ASSIGNERS | CHAINS)
def make_clusters(request: pytest.FixtureRequest) -> Callable[..., Assigner]:
    return EVERY[request.param]


@pytest.fixture(params=WITH_SCORES)
def make_with_scores(request: pytest.FixtureRequest) -> Callable[..., Assigner]:
    return EVERY[request.param]


def layers(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    weights = {
        "a": torch.randn(24, 17, generator=g) * 0.1,
        "b": torch.randn(8, 4, 3, 3, generator=g).pow(3) * 0.01,
        "c": torch.randn(5, 9, generator=g) + 0.4,
    }
    scores = {n: w * torch.randn(w.shape, generator=g) for n, w in weights.items()}
    return weights, scores


def run(assigner: Assigner, weights: dict[str, Tensor], scores: dict[str, Tensor] | None) -> Plan:
    plan, _ = assigner.update(weights, scores, assigner.init(weights))
    return plan


def test_one_masked_entry_per_weight_in_order_and_shape() -> None:
    weights, scores = layers()
    for make in (PRUNERS | SCORED).values():
        plan = run(make(), weights, scores)
        assert list(plan) == list(weights)
        for name, entry in plan.items():
            assert isinstance(entry, Masked)
            assert entry.shape == tuple(weights[name].shape)
            assert not entry.values()[~entry.mask].any()
            if not entry.shrink:
                assert torch.equal(entry.values()[entry.mask], weights[name][entry.mask])


def test_one_clustered_entry_per_weight_in_order_and_shape(make_clusters: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    plan = run(make_clusters(), weights, scores)
    assert list(plan) == list(weights)
    for name, entry in plan.items():
        assert isinstance(entry, Clustered)
        assert entry.shape == tuple(weights[name].shape)
        top = 2 ** (entry.bits - 1) - 1
        assert -top <= entry.levels.min() <= entry.levels.max() <= top
        assert entry.values().isfinite().all()


def test_same_input_same_plan_and_arguments_untouched(make: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    before = {n: w.clone() for n, w in weights.items()}, {n: s.clone() for n, s in scores.items()}
    assigner = make()
    state = assigner.init(weights)
    first, after = assigner.update(weights, scores, state)
    second, again = assigner.update(weights, scores, state)
    assert first.equals(second)
    assert after.layers.keys() == again.layers.keys() == weights.keys()
    for name in weights:
        assert torch.equal(weights[name], before[0][name])
        assert torch.equal(scores[name], before[1][name])
        assert_same(after[name], again[name])


def test_state_keeps_nothing_that_the_caller_can_change(make_with_scores: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    assigner = make_with_scores()
    expected, state = assigner.update(weights, scores, assigner.init(weights))
    for score in scores.values():
        score.zero_()
    plan, _ = assigner.update(weights, None, state)
    assert plan.equals(expected)


def test_weights_in_another_order_get_the_same_levels(make: Callable[..., Assigner]) -> None:
    if make in (EVERY["2:4"], EVERY["groups"], EVERY["random"], EVERY["wanda"], EVERY["wanda regrow"]):
        pytest.skip("depends on the places of the weights")
    weights, scores = layers()
    plan = run(make(), weights, scores)
    order = {n: torch.randperm(w.numel(), generator=torch.Generator().manual_seed(1)) for n, w in weights.items()}

    def shuffled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t.flatten()[order[n]].view(t.shape) for n, t in tensors.items()}

    moved = run(make(), shuffled(weights), shuffled(scores))
    for name, entry in plan.items():
        assert torch.equal(moved.compressed[name].kept.flatten(), plan.compressed[name].kept.flatten()[order[name]])
        # A cube root may differ in its last bit between places of a vector unit.
        assert torch.allclose(moved[name].values().flatten(), entry.values().flatten()[order[name]], rtol=1e-6, atol=0)


def test_no_lambda_is_nearest_neighbour(make_plain: Callable[..., Assigner]) -> None:
    weights, _ = layers()
    for name, entry in run(make_plain(0.0), weights, None).clustered.items():
        top = 1 if entry.codebook else 2 ** (entry.bits - 1) - 1
        if top > 127:
            continue  # half-way rounding of float32 values is finer than the comparison below
        table = (
            torch.tensor(entry.codebook, dtype=torch.float64)
            if entry.codebook
            else torch.arange(-top, top + 1, dtype=torch.float64) * entry.step
        )
        distance = (weights[name].double().unsqueeze(-1) - table).abs()
        taken = distance.gather(-1, entry.levels.long().unsqueeze(-1) + top).squeeze(-1)
        assert torch.equal(taken, distance.min(-1).values)


def test_zero_stays_zero(make_clusters: Callable[..., Assigner]) -> None:
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(2, 2, 3, 3), "c": torch.zeros(1, 1)}
    scores = {n: torch.ones_like(w) for n, w in weights.items()}
    for entry in run(make_clusters(), weights, scores).clustered.values():
        assert not entry.levels.any()
    weights["a"] = torch.tensor([[0.0, -0.3, 0.5, 0.0]])
    scores["a"] = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert run(make_clusters(0.0), weights, scores).clustered["a"].levels[0, [0, 3]].tolist() == [0, 0]


@pytest.mark.parametrize(
    "weight",
    [
        torch.empty(0, 4),
        torch.tensor([[0.7]]),
        torch.tensor(-0.7),
        torch.full((3, 3), 0.25),
        torch.full((3, 3), -0.25),
        torch.tensor([[1e-44, -1e-45]]),
        torch.tensor([[3e38, -3e38, 0.0]]),
        torch.cat([torch.full((5000,), 1e-3), torch.tensor([1e20])]).view(1, -1),
        torch.rand(6, 6) + 1,
        -torch.rand(6, 6) - 1,
    ],
    ids=["empty", "one", "scalar", "equal", "equal-", "subnormal", "huge", "outlier", "positive", "negative"],
)
def test_odd_tensors(make: Callable[..., Assigner], weight: Tensor) -> None:
    weights = {"a": weight, "b": torch.randn(4, 4), "c": weight.clone()}
    some = {n: torch.arange(w.numel()).view(w.shape) * 1.0 for n, w in weights.items()}
    for scores in (some,) if make in NEEDS_SCORES.values() else (None, some):
        plan = run(make(), weights, scores)
        assert plan["a"].shape == tuple(weight.shape)
        assert plan["a"].values().isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_name_the_layer(make: Callable[..., Assigner], bad: float) -> None:
    weights, scores = layers()
    assigner = make()
    state = assigner.init(weights)
    weights["b"] = weights["b"].clone()
    weights["b"][0, 0, 0, 0] = bad
    with pytest.raises(NonFiniteError, match="'b'"):
        assigner.init(weights)
    with pytest.raises(NonFiniteError, match="'b'"):
        assigner.update(weights, scores, state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_scores_name_the_layer(make_with_scores: Callable[..., Assigner], bad: float) -> None:
    weights, scores = layers()
    scores["a"][3, 3] = bad
    with pytest.raises(NonFiniteError, match="'a'"):
        run(make_with_scores(), weights, scores)


def test_wrong_or_missing_scores(make_with_scores: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    with pytest.raises(SelectionError, match=r"'a'.*\(17, 24\).*\(24, 17\)"):
        run(make_with_scores(), weights, {**scores, "a": scores["a"].T})
    with pytest.raises(SelectionError, match="no scores for weight 'a'; did you mean 'a2'"):
        run(make_with_scores(), weights, {"a2": scores["a"], "b": scores["b"], "c": scores["c"]})


@pytest.mark.parametrize("name", NEEDS_SCORES)
def test_no_scores_at_the_first_update_is_refused_and_later_the_last_ones_hold(name: str) -> None:
    weights, scores = layers()
    assigner = NEEDS_SCORES[name]()
    with pytest.raises(RecipeError, match="needs those of 'a' at its first update"):
        assigner.update(weights, None, assigner.init(weights))
    expected, state = assigner.update(weights, scores, assigner.init(weights))
    plan, state = assigner.update(weights, None, state)
    assert [torch.equal(plan.compressed[n].kept, expected.compressed[n].kept) for n in weights] == [True] * 3
    again, _ = assigner.update(weights, {n: -s for n, s in scores.items()}, state)
    assert [torch.equal(again.compressed[n].kept, expected.compressed[n].kept) for n in weights] == [True] * 3


def test_integer_weights_and_unknown_layers(make: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    assigner = make()
    with pytest.raises(SelectionError, match=r"'a'.*int64"):
        assigner.init({**weights, "a": torch.ones(2, 2, dtype=torch.int64)})
    state = assigner.init(weights)
    with pytest.raises(SelectionError, match="no layer 'bb'; did you mean 'b'"):
        assigner.update({"a": weights["a"], "bb": weights["b"]}, {"a": scores["a"], "bb": scores["b"]}, state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_float_types_equal_their_float32_copy(make: Callable[..., Assigner], dtype: torch.dtype) -> None:
    weights, scores = layers()
    odd = {n: w.to(dtype) for n, w in weights.items()}
    odd_scores = {n: s.to(dtype) for n, s in scores.items()}
    plan = run(make(), odd, odd_scores)
    widened = {n: w.float() for n, w in odd.items()}, {n: s.float() for n, s in odd_scores.items()}
    assert plan.equals(run(make(), *widened))


def test_layout_and_gradients_do_not_matter(make: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    plan = run(make(), weights, scores)
    odd = {n: w.T.contiguous().T.requires_grad_() if w.dim() == 2 else w for n, w in weights.items()}
    odd["b"] = weights["b"].to(memory_format=torch.channels_last)
    assert plan.equals(run(make(), odd, scores))


def test_no_layers(make: Callable[..., Assigner]) -> None:
    if make is ASSIGNERS["only"]:
        pytest.skip("a pattern must match something")
    assert len(run(make(), {}, {})) == 0


def test_long_state_chain(make: Callable[..., Assigner]) -> None:
    weights, scores = layers()
    assigner = make()
    state = assigner.init(weights)
    for k in range(4):
        plan, state = assigner.update(weights, scores if k % 2 == 0 else None, state)
    for name, entry in plan.compressed.items():
        record = state[name]
        assert record.sparsity == pytest.approx(float((~entry.kept).double().mean()))
        deciding = record.quantizer if isinstance(record, ChainState) else record
        if isinstance(deciding, EntropyState):
            assert deciding.sparsity_plain is not None
            assert deciding.lam > 0
        else:
            assert isinstance(entry, Masked)


def test_a_state_goes_on_from_a_checkpoint(make: Callable[..., Assigner], tmp_path: Path) -> None:
    """Packed, written, read by torch's restricted loader, and unpacked by the assigner's first state."""
    weights, scores = layers()
    assigner = make()
    first = assigner.init(weights)
    _, state = assigner.update(weights, scores, first)
    torch.save(state.packed(), tmp_path / "state.pt")
    again = first.unpacked(torch.load(tmp_path / "state.pt", weights_only=True))
    for name in weights:
        assert_same(again[name], state[name])
    expected, _ = assigner.update(weights, None, state)
    assert assigner.update(weights, None, again)[0].equals(expected)


def test_a_state_of_other_layers_or_another_family_is_refused() -> None:
    weights, _ = layers()
    grid, pruned = ecq().init(weights), lamp().init(weights)
    with pytest.raises(DataError, match="PrunedState"):
        pruned.unpacked(grid.packed())
    with pytest.raises(DataError, match=r"layers \['b', 'c'\]"):
        grid.unpacked({name: values for name, values in grid.packed().items() if name != "a"})
