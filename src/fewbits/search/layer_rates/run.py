"""One search, by any of the searchers, with the same budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from fewbits.errors import RecipeError, did_you_mean
from fewbits.recipe.notation import min_kept_of
from fewbits.search.layer_rates._evaluator import Evaluator, Measure, Spent
from fewbits.search.layer_rates._objective import Targets
from fewbits.search.layer_rates._outcome import Outcome
from fewbits.search.layer_rates._proxy import Batches, Proxy
from fewbits.search.layer_rates._searchers import SIMPLE
from fewbits.search.layer_rates._space import RateSpace
from fewbits.weights import select

AGENTS = ("purl", "qlp")

METHODS = (*AGENTS, *SIMPLE)
"""Names of the searchers: two with an agent (extra ``rl``), and the simple ones."""

Progress = Callable[[int, int, str], None]
"""``progress(evaluations done, budget, one line of text)``."""


def check(method: str, *, sparsity: float, max_drop: float, evaluations: int, min_kept: int | str, reward: str) -> None:
    """Refuse what :func:`search` could not do on any network; for callers that train one first.

    Raises:
        MissingExtraError, RecipeError: as of :func:`search`.
    """
    _known(method)
    if method in AGENTS:
        import fewbits.search.layer_rates.agent  # noqa: F401 - an extra
        from fewbits.search.layer_rates._environment import REWARDS

        if reward not in REWARDS:
            hint = did_you_mean(reward, REWARDS)
            raise RecipeError(f"no reward is called {reward!r}{hint} (known: {', '.join(REWARDS)})")
    if not 0 <= max_drop < 100:
        raise RecipeError(f"max_drop is points of accuracy, at least 0 and below 100, got {max_drop}")
    Targets(100.0 - max_drop, sparsity)
    if evaluations < 1:
        raise RecipeError(f"a search needs at least one evaluation, got {evaluations}")
    min_kept_of(min_kept, 1)


def search(
    model: nn.Module,
    proxy: Batches,
    calibration: Batches,
    *,
    method: str = "global-magnitude",
    sparsity: float = 0.8,
    max_drop: float = 1.0,
    evaluations: int = 400,
    min_kept: int | str = 0,
    reward: str = "potential",
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    precision: str = "float32",
    seed: int = 0,
    journal: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """How much to prune in each layer. The model is not changed; Ctrl-C ends the search with the best so far.

    Args:
        model: a dense, trained classifier.
        proxy: batches of (inputs, classes) on which accuracy is taken: training samples, see
            :func:`~fewbits.search.layer_rates.carve`. Never samples that a result is reported on.
        calibration: other training samples, for the statistics of batch normalisation; classes are not looked at.
        method: one of :data:`METHODS`. sparsity: target T_P, share of zeros over the selected weights, 0..1.
        max_drop: points below the dense network's accuracy on the proxy samples: the target T_A.
        evaluations: budget, see :class:`~fewbits.search.layer_rates.Evaluator` for what counts. The search ends
            earlier where both targets are met.
        min_kept: so many weights of each layer stay, or so many percent of all (``"0.02%"``).
        reward: of the agents: ``raw``, ``potential``, ``sparsity`` or ``terminal``.
        include, exclude: patterns of weight names, as in a recipe's ``select``.
        precision: of the evaluations, ``float32`` or ``bfloat16``.
        journal: file of answers; a search that is started again with it and the same arguments repeats no evaluation
            and ends as it would have without the interruption.
        progress: called after every evaluation.

    Raises:
        MissingExtraError: an agent without the extra ``rl``. RecipeError: an unknown method or reward, or an impossible
            number. SelectionError, NonFiniteError: from the weights. DataError: no samples, or another journal.
    """
    check(
        method, sparsity=sparsity, max_drop=max_drop, evaluations=evaluations, min_kept=min_kept, reward=reward
    )  # fmt: skip
    space = RateSpace(select(model, include, exclude), min_kept)
    measure = Proxy(model, space, proxy, calibration, precision=precision, journal=journal)
    targets = Targets(measure(space.dense) - max_drop, sparsity)
    return explore(
        space, measure, targets, method, evaluations, reward=reward, seed=seed, progress=progress, stop_when_met=True
    )


def explore(
    space: RateSpace,
    measure: Measure,
    targets: Targets,
    method: str,
    evaluations: int,
    *,
    reward: str = "potential",
    seed: int = 0,
    stop_when_met: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """A search over given choices with a given measure of accuracy; arguments and errors as for :func:`search`."""
    _known(method)

    def told(evaluator: Evaluator) -> None:
        if progress is not None:
            best = evaluator.best
            text = f"best {best.accuracy:.2f} % at {100 * best.sparsity:.1f} % zeros, score {best.score:.4f}"
            progress(evaluator.used, evaluator.budget, text)

    steps = episodes = 0
    finished = True
    evaluator = Evaluator(space, measure, targets, evaluations, stop_when_met=stop_when_met, on_evaluation=told)
    try:
        if method in AGENTS:
            from fewbits.search.layer_rates._environment import ManyVisits, OnePass
            from fewbits.search.layer_rates.agent import Settings, learn

            settings = Settings()
            env = (OnePass if method == "purl" else ManyVisits)(evaluator, reward, settings.scale)
            steps = learn(env, settings, seed)
            episodes = env.episodes
        else:
            SIMPLE[method](evaluator, seed)
    except Spent:
        pass
    except KeyboardInterrupt:
        finished = False
    best = evaluator.best
    return Outcome(
        method=method,
        rates=space.rates(best.kept),
        sparsity=best.sparsity,
        accuracy=best.accuracy,
        dense_accuracy=evaluator.dense.accuracy,
        score=best.score,
        evaluations=evaluator.used,
        budget=evaluations,
        seed=seed,
        history=tuple((n, e.score, e.accuracy, e.sparsity) for n, e in evaluator.history),
        steps=steps,
        episodes=episodes,
        finished=finished,
    )


def _known(method: str) -> None:
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise RecipeError(f"no searcher is called {method!r}{hint} (known: {', '.join(METHODS)})")
