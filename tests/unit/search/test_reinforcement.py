"""Searches over layers: rewards by brute force, counting, floors, and what each searcher promises."""

from __future__ import annotations

import itertools
import math
import random
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from small_spaces import evaluator, smooth, weights

from fewbits.assign import global_magnitude, layerwise
from fewbits.errors import MissingExtraError, RecipeError
from fewbits.search.layer_rates import METHODS, Evaluator, RateSpace, Spent, Targets
from fewbits.search.layer_rates._environment import ALPHAS, REWARDS, SHARES, ManyVisits, OnePass
from fewbits.search.layer_rates._searchers import SIMPLE, scan
from fewbits.search.layer_rates.run import explore

THREE = (0.0, 1.0, 2.0)
PLANS = list(itertools.product(range(3), repeat=2))


def table(accuracies: list[float], sparsity: float) -> Evaluator:
    """Two layers and three thresholds each: every one of the nine networks has the accuracy that is given."""
    space = RateSpace(weights())
    levels = [[space.above(layer, alpha) for alpha in THREE] for layer in range(2)]
    known = {
        (levels[0][a], levels[1][b]): accuracy for (a, b), accuracy in zip(PLANS, accuracies, strict=True)
    }  # fmt: skip
    return Evaluator(space, known.__getitem__, Targets(95.0, sparsity), 100)


def total(env: OnePass | ManyVisits, actions: tuple[int, ...]) -> float:
    env.reset()
    paid = [env.step(np.int64(action)) for action in actions]
    assert [over for _, _, over, _, _ in paid] == [False] * (len(actions) - 1) + [True]
    return sum(reward for _, reward, _, _, _ in paid)


def policy(asked: Evaluator, reward: str) -> tuple[set[int], dict[int, set[int]]]:
    """Best first actions, and best second actions after each first one, by enumeration of the sums of rewards."""
    sums = {plan: total(OnePass(asked, reward, alphas=THREE), plan) for plan in PLANS}
    second = {a: best({b: sums[a, b] for b in range(3)}) for a in range(3)}
    return best({a: max(sums[a, b] for b in range(3)) for a in range(3)}), second


def best(values: dict[int, float]) -> set[int]:
    top = max(values.values())
    return {action for action, value in values.items() if value > top - 1e-12}


@given(st.lists(st.floats(10, 100), min_size=9, max_size=9), st.floats(0.05, 0.95), st.floats(0.1, 10))
@settings(max_examples=60)
def test_potentials_telescope_to_the_terminal_reward_and_keep_its_policy(
    accuracies: list[float], sparsity: float, scale: float
) -> None:
    asked = table(accuracies, sparsity)
    for plan in PLANS:
        kept = tuple(asked.space.above(layer, THREE[a]) for layer, a in enumerate(plan))
        end = asked(kept).score
        paid = {reward: total(OnePass(asked, reward, scale, alphas=THREE), plan) for reward in REWARDS}
        assert paid["terminal"] == pytest.approx(scale * end)
        assert paid["potential"] == pytest.approx(scale * (end - asked.dense.score))
        assert paid["sparsity"] == pytest.approx(scale * (end + 1)), "the dense network's sparsity is all missing"
        first = (kept[0], asked.space.sizes[1])
        assert paid["raw"] == pytest.approx(scale * (asked(first).score + end))
    assert policy(asked, "potential") == policy(asked, "terminal") == policy(asked, "sparsity")


def test_the_raw_dense_form_wants_another_policy() -> None:
    """Either layer alone costs no accuracy, both together do. What the first one gives is paid for twice in the raw
    form, which therefore prunes it hard; the network at the end is better if only the second is pruned."""
    asked = table([95, 95, 95, 95, 70, 60, 95, 60, 50], 0.9)
    assert policy(asked, "terminal")[0] == policy(asked, "potential")[0] != policy(asked, "raw")[0]
    assert max(policy(asked, "raw")[0]) > max(policy(asked, "terminal")[0]), "over-prunes the first layer"


@pytest.mark.parametrize("reward", REWARDS)
def test_potentials_telescope_over_many_visits(reward: str) -> None:
    asked = evaluator(sparsity=0.95)
    env = ManyVisits(asked, reward, 2.0, visits=3)
    actions = (1, 5, 0, 2, 3, 4)
    paid = total(env, actions)
    left = [40, 60]
    scores = []
    for step, action in enumerate(actions):
        left[step % 2] -= round(SHARES[action] * left[step % 2])
        scores.append(asked((left[0], left[1])).score)
    wanted = {"raw": sum(scores), "terminal": scores[-1], "potential": scores[-1] - asked.dense.score}
    assert paid == pytest.approx(2 * wanted.get(reward, scores[-1] + 1))


def test_the_score_is_the_papers_formula() -> None:
    targets = Targets(90.0, 0.8)
    assert targets.score(45.0, 0.2) == pytest.approx(-(0.5 + 0.75))
    assert targets.score(95.0, 0.9) == 0.0
    assert targets.score(95.0, 0.4) == pytest.approx(-0.5) == targets.sparse(0.4)
    for wrong in ((0.0, 0.5), (101.0, 0.5), (90.0, 0.0), (90.0, 1.0), (math.nan, 0.5)):
        with pytest.raises(RecipeError):
            Targets(*wrong)


@pytest.mark.parametrize("kind", [OnePass, ManyVisits])
@pytest.mark.parametrize("reward", REWARDS)
def test_gymnasium_accepts_the_environment(kind: type[OnePass | ManyVisits], reward: str) -> None:
    check_env(kind(evaluator(100_000), reward), skip_render_check=True)


def test_an_episode_of_one_pass_sees_what_is_documented() -> None:
    asked = evaluator(costs=(30.0, 5.0, 10.0))
    space = asked.space
    env = OnePass(asked)
    seen, info = env.reset(seed=1)
    largest = max(space.stds)
    assert seen == pytest.approx([0, 40 / 60, 1, 1, 0, 1, space.stds[0] / largest, 0])
    assert info["kept"] == space.dense
    seen, _, over, truncated, info = env.step(np.int64(11))
    assert (over, truncated) == (False, False)
    kept = int(
        (weights()["layer0"].double().abs() >= ALPHAS[11] * weights()["layer0"].double().std(correction=0)).sum()
    )
    assert info["kept"] == (kept, 60, 30)
    sparse = (40 - kept) / 130
    assert info["sparsity"] == pytest.approx(sparse)
    wanted = [1 / 3, 1, 1, info["accuracy"] / 100, sparse, 90 / 130, space.stds[1] / largest, 0.5]
    assert seen == pytest.approx(wanted)
    env.step(np.int64(0))
    seen, _, over, _, info = env.step(np.int64(22))
    assert over
    assert seen == pytest.approx([1, 0, 0, info["accuracy"] / 100, info["sparsity"], 0, 0, 1])
    with pytest.raises(RecipeError, match="call reset"):
        env.step(np.int64(0))
    assert env.reset()[1]["kept"] == space.dense, "every episode starts from the dense network"
    with pytest.raises(RecipeError, match="no action"):
        env.step(np.int64(23))


def test_many_visits_end_at_the_target_or_after_the_last_pass() -> None:
    env = ManyVisits(evaluator(sparsity=0.4), visits=2)
    seen, _ = env.reset()
    assert seen.tolist() == [0, 1]
    seen, _, over, _, _ = env.step(np.int64(5))
    assert seen.tolist() == [0.5, 1]
    assert not over
    seen, _, over, _, info = env.step(np.int64(5))
    assert over
    assert info["kept"] == (20, 30)
    assert seen.tolist() == [0, 0.5]
    env.reset()
    assert [env.step(np.int64(0))[2] for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(("reward", "cost"), [("raw", 4), ("potential", 4), ("sparsity", 1), ("terminal", 1)])
def test_what_an_episode_costs(reward: str, cost: int) -> None:
    asked = evaluator(costs=(30.0, 5.0, 10.0, 2.0))
    env = OnePass(asked, reward)
    total(env, (3, 5, 7, 9))
    assert asked.used == cost
    total(env, (3, 5, 7, 9))
    assert asked.used == cost, "the same choices cost nothing again"
    total(env, (0, 0, 0, 0))
    assert asked.used == cost, "nor does the dense network"


def test_evaluations_are_counted_once_and_end() -> None:
    asked = evaluator(2)
    calls = []
    inner = asked.measure
    asked.measure = lambda kept: calls.append(kept) or inner(kept)  # type: ignore[func-returns-value]
    asked((20, 30)), asked((20, 30)), asked((20, 31)), asked((40, 60))
    assert calls == [(20, 30), (20, 31)]
    assert (asked.used, asked.left) == (2, 0)
    with pytest.raises(Spent):
        asked((20, 32))
    assert asked((20, 30)).kept == (20, 30), "what is known may still be asked"
    assert [n for n, _ in asked.history] == sorted({n for n, _ in asked.history})
    assert asked.best.score == max(asked(k).score for k in [(20, 30), (20, 31), (40, 60)])
    with pytest.raises(RecipeError, match="at least one"):
        evaluator(0)
    with pytest.raises(RecipeError, match="'layer1' can keep 1 to 60"):
        asked((1, 61))


def test_a_search_ends_when_both_targets_are_met() -> None:
    asked = evaluator(10, costs=(0.0, 0.0), sparsity=0.5, stop_when_met=True)
    asked((10, 10))
    with pytest.raises(Spent):
        asked((10, 11))


@pytest.mark.parametrize("min_kept", [0, 7, 45, "10%"])
@pytest.mark.parametrize("method", METHODS)
def test_every_searcher_obeys_floors_and_its_budget(method: str, min_kept: int | str) -> None:
    space = RateSpace(weights(), min_kept)
    sigma = {0: 1, 7: 7, 45: 45, "10%": 10}[min_kept]
    asked = []
    inner = smooth(space, (30.0, 5.0))

    def measure(kept: tuple[int, ...]) -> float:
        asked.append(kept)
        return inner(kept)

    found = explore(space, measure, Targets(99.0, 0.99), method, 25)
    assert found.evaluations == len(asked) - 1 <= 25, "one more for the dense network"
    assert len(set(asked)) == len(asked)
    for kept in asked:
        assert kept[0] >= min(40, sigma)
        assert kept[1] >= min(60, sigma)
    assert found.score == max(Targets(99.0, 0.99).score(inner(k), space.sparsity(k)) for k in asked)
    assert found.history[-1][1] == found.score


@pytest.mark.parametrize("method", ["purl", "qlp", "random"])
def test_the_same_seed_gives_the_same_search_and_touches_no_global_state(method: str) -> None:
    def once(seed: int) -> tuple[object, list[object]]:
        asked = []
        space = RateSpace(weights((40, 60, 30)))
        inner = smooth(space, (30.0, 5.0, 9.0))
        found = explore(
            space, lambda kept: asked.append(kept) or inner(kept), Targets(99.0, 0.99), method, 30, seed=seed
        )  # fmt: skip
        return found, asked

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = once(1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    assert once(1) == first
    assert once(2)[1] != first[1]


def test_an_agent_finds_a_good_one_of_few_choices() -> None:
    """Two layers, one dear and one cheap: the agent sees a fifth of the choices and ends among the best of them."""
    asked = evaluator(10_000)
    space = asked.space
    every = [asked((space.above(0, a), space.above(1, b))).score for a in ALPHAS for b in ALPHAS]
    found = explore(space, smooth(space, (30.0, 5.0)), Targets(99.0, 0.9), "purl", 100)
    assert found.evaluations <= 100
    assert found.score >= sorted(every)[-26], "the best twentieth of 529"


def test_an_agent_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library's logger would make a folder among the temporary ones, or where its own variable says."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "log"))
    explore(RateSpace(weights()), lambda kept: 50.0, Targets(99.0, 0.9), "purl", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_new_choices_comes_to_an_end() -> None:
    space = RateSpace({"a": torch.tensor([1.0, 2.0])})
    for method in METHODS:
        found = explore(space, lambda kept: 100.0 * kept[0] / 2, Targets(99.0, 0.9), method, 20)
        assert found.evaluations <= 1


def test_scans_zoom_in() -> None:
    space = RateSpace({"a": torch.linspace(1, 2, 10_000)})
    asked = Evaluator(space, lambda kept: 100 - abs(kept[0] - 4321) / 100, Targets(100.0, 0.0001), 60)
    scan(asked, lambda x: (max(1, round(x * 10_000)),), 0.0, 1.0, 60)
    assert abs(asked.best.kept[0] - 4321) <= 2
    assert asked.used < 60


def test_choices_are_the_masks_of_the_assigners() -> None:
    w = {"a": torch.tensor([[3.0, -1.0, 1.0, 2.0, -1.0]]), "b": weights()["layer1"].view(6, 10)}
    space = RateSpace(w)
    plan, _ = global_magnitude(0.55).update(w, None, global_magnitude(0.55).init(w))
    kept = tuple(int(entry.kept.sum()) for entry in plan.compressed.values())
    mine = layerwise(space.rates(kept))
    again, _ = mine.update(w, None, mine.init(w))
    for i, name in enumerate(w):
        assert torch.equal(space.mask(i, kept[i]), plan[name].kept)
        assert torch.equal(again[name].kept, plan[name].kept)


@given(st.integers(0, 22), st.integers(0, 80))
def test_thresholds_count_what_is_above_them(action: int, min_kept: int) -> None:
    space = RateSpace(weights(), min_kept)
    for i, weight in enumerate(weights().values()):
        wide = weight.double()
        above = int((wide.abs() >= ALPHAS[action] * wide.std(correction=0)).sum())
        assert space.above(i, ALPHAS[action]) == max(above, min(min_kept, len(weight)), 1)


def test_what_cannot_be_searched() -> None:
    with pytest.raises(RecipeError, match="did you mean 'random'"):
        explore(RateSpace(weights()), lambda kept: 50.0, Targets(40.0, 0.5), "randon", 5)
    with pytest.raises(RecipeError, match="did you mean 'terminal'"):
        explore(RateSpace(weights()), lambda kept: 50.0, Targets(40.0, 0.5), "purl", 5, reward="terminl")
    with pytest.raises(RecipeError, match="needs layers"):
        RateSpace({})
    with pytest.raises(RecipeError, match="two thresholds"):
        OnePass(evaluator(), alphas=(0.5,))
    with pytest.raises(RecipeError, match="visited at least once"):
        ManyVisits(evaluator(), visits=0)


@pytest.mark.parametrize(("absent", "method"), [("gymnasium", "purl"), ("stable_baselines3", "qlp")])
def test_a_missing_extra_is_a_sentence(absent: str, method: str) -> None:
    ours = [name for name in sys.modules if name.startswith("fewbits.search.layer_rates.")]
    gone = {name: sys.modules[name] for name in ours if name.rsplit(".")[-1] in ("agent", "_environment")}
    with mock.patch.dict(sys.modules, {absent: None}):
        for name in gone:
            del sys.modules[name]
        with pytest.raises(MissingExtraError, match=r"pip install 'fewbits\[rl\]'"):
            explore(RateSpace(weights()), lambda kept: 50.0, Targets(40.0, 0.5), method, 5)
        assert explore(RateSpace(weights()), lambda kept: 50.0, Targets(40.0, 0.5), "lamp", 5).evaluations
    sys.modules.update(gone)


def test_interrupted_searches_keep_the_best_so_far() -> None:
    for method in METHODS:
        space = RateSpace(weights())
        inner = smooth(space, (30.0, 5.0))
        calls = iter(range(100))

        def measure(kept: tuple[int, ...], calls=calls, inner=inner) -> float:
            if next(calls) == 6:
                raise KeyboardInterrupt
            return inner(kept)

        found = explore(space, measure, Targets(99.0, 0.99), method, 50)
        assert not found.finished
        assert found.evaluations == 5
        assert found.score > Targets(99.0, 0.99).score(100.0, 0.0)


def test_the_simple_searchers_are_all_named() -> None:
    assert set(METHODS) == {"purl", "qlp", *SIMPLE}
