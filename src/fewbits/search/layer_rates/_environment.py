"""Pruning as a Markov decision process, behind Gymnasium's interface.

Sources: PuRL (Gupta et al., arXiv 2007.04756), QLP (IEEE TCSVT 2022), AMC's reward (He et al., ECCV 2018), shaping by
potentials (Ng, Harada and Russell, ICML 1999). PuRL has published no code; what
its paper's abstract does not say is ours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import MissingExtraError, RecipeError, did_you_mean
from fewbits.search.layer_rates._evaluator import Evaluator
from fewbits.search.layer_rates._space import Kept

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise MissingExtraError("gymnasium", "rl", "searching with an agent") from error

Reward = Literal["raw", "potential", "sparsity", "terminal"]

REWARDS: tuple[str, ...] = get_args(Reward)

ALPHAS = tuple(round(0.1 * i, 1) for i in range(23))
"""Thresholds of :class:`OnePass`, in standard deviations of a layer's dense weights: 0.0, 0.1, ..., 2.2."""

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""What one visit of :class:`ManyVisits` takes, as a share of the weights that the layer still has."""


class PruningEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One episode prunes a network, from the dense weights on, layer by layer.

    Rewards, with R the score of :class:`~fewbits.search.layer_rates.Targets`, s the state before and s' after a step:

    - ``raw``: R(s') after every step, the paper's dense form. The sum depends on when a layer is pruned, not
      only on how much, so another policy may be optimal than for ``terminal``. One evaluation per step.
    - ``potential``: R(s') - R(s). The sum is R(end) - R(dense): up to a constant the terminal reward, so
      the same policies are optimal. One evaluation per step.
    - ``sparsity``: the same with the part of R that is known without the network as the potential; the last step adds
      what is missing to R(end). The sum is R(end) less a constant. One evaluation per episode. (Ours.)
    - ``terminal``: R(end) after the last step, else 0: AMC's. One evaluation per episode.

    All are multiplied by ``scale`` (the paper's beta). ``info`` of a step has ``kept``, ``sparsity`` (0..1) and,
    where the step was evaluated, ``accuracy`` (percent) and ``score``.

    Args:
        evaluator: counts what is asked of the network. reward: one of the four. scale: > 0.

    Raises:
        MissingExtraError: at import, without gymnasium. RecipeError: an unknown reward; from ``step``, an episode
            that is over. :class:`~fewbits.search.layer_rates.Spent`: from ``step``, when the budget is.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, evaluator: Evaluator, reward: str = "potential", scale: float = 1.0) -> None:
        if reward not in REWARDS:
            raise RecipeError(
                f"no reward is called {reward!r}{did_you_mean(reward, REWARDS)} (known: {', '.join(REWARDS)})"
            )
        self.evaluator, self.space, self.reward, self.scale = evaluator, evaluator.space, reward, scale
        self.episodes = 0
        self._start()

    def _start(self) -> None:
        self.kept: Kept = self.space.dense
        self.accuracy = self.evaluator.dense.accuracy
        self.steps = 0
        self.last = 0.0
        self.over = False
        self._value = self._potential(self.evaluator.dense.score, 0.0)

    @property
    def measures(self) -> bool:
        """Whether every step is evaluated, and not the last alone."""
        return self.reward in ("raw", "potential")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Back to the dense network; ``seed`` and ``options`` change nothing, for nothing here is random."""
        super().reset(seed=seed)
        self._start()
        return self._observation(), {"kept": self.kept, "sparsity": 0.0}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Prune a layer; never truncated."""
        if self.over:
            raise RecipeError("the episode is over; call reset before the next step")
        if not self.action_space.contains(action):
            raise RecipeError(f"no action {action!r}; the actions are those of {self.action_space}")
        self.kept = self._pruned(int(action))
        self.last = int(action) / (self.action_space.n - 1)  # type: ignore[attr-defined]  # Discrete
        self.steps += 1
        self.over = self._ended()
        info: dict[str, Any] = {"kept": self.kept, "sparsity": self.space.sparsity(self.kept)}
        score = 0.0
        if self.measures or self.over:
            found = self.evaluator(self.kept)
            self.accuracy, score = found.accuracy, found.score
            info |= {"accuracy": found.accuracy, "score": found.score}
        self.episodes += self.over
        reward = self.scale * self._paid(score, info["sparsity"])
        return self._observation(), reward, self.over, False, info

    def _paid(self, score: float, sparsity: float) -> float:
        if self.reward == "raw":
            return score
        before = self._value
        # A potential is zero in the terminal state, where the score itself is paid (Ng et al.).
        self._value = score if self.over else self._potential(score, sparsity)
        return self._value - before

    def _potential(self, score: float, sparsity: float) -> float:
        match self.reward:
            case "potential":
                return score
            case "sparsity":
                return self.evaluator.targets.sparse(sparsity)
        return 0.0

    @abstractmethod
    def _pruned(self, action: int) -> Kept:
        """What is kept after an action."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether that was the last step."""

    @abstractmethod
    def _observation(self) -> NDArray[np.float32]:
        """What the agent sees."""

    def _with(self, layer: int, kept: int) -> Kept:
        return (*self.kept[:layer], kept, *self.kept[layer + 1 :])


class OnePass(PruningEnv):
    """PuRL's: each layer once, in the order of the network; one step is one layer.

    Actions: ``Discrete(23)``; action i keeps the weights with ``|w| >= alphas[i] * std``, std being that of the layer's
    dense weights, and at least the layer's floor.

    Observations: ``Box(0, 1, (8,), float32)``, of the layer that comes next:

    0. its index / number of layers
    1. its number of weights / that of the largest layer
    2. its density (1 until it is pruned)
    3. accuracy on the proxy samples / the dense network's, at most 1. With the rewards ``sparsity`` and ``terminal``
       it is unknown until the end and stays 1
    4. sparsity so far, over all layers
    5. share of all weights that lie in layers still to come, this one included
    6. standard deviation of its dense weights / the largest of any layer
    7. last action / 22, the number of the last one (0 at the start)

    After the last layer 0 is 1, and 1, 2, 5 and 6 are 0.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        reward: str = "potential",
        scale: float = 1.0,
        *,
        alphas: Sequence[float] = ALPHAS,
    ) -> None:
        if len(alphas) < 2 or min(alphas) < 0:
            raise RecipeError(f"an agent needs at least two thresholds, none negative, got {list(alphas)}")
        self.alphas = tuple(alphas)
        self.action_space = spaces.Discrete(len(alphas))
        self.observation_space = spaces.Box(0.0, 1.0, (8,), np.float32)
        super().__init__(evaluator, reward, scale)

    def _pruned(self, action: int) -> Kept:
        layer = self.steps
        return self._with(layer, self.space.above(layer, self.alphas[action]))

    def _ended(self) -> bool:
        return self.steps == len(self.space)

    def _observation(self) -> NDArray[np.float32]:
        space, i = self.space, self.steps
        there = i < len(space)
        dense = self.evaluator.dense.accuracy
        seen = [
            i / len(space),
            space.sizes[i] / max(space.sizes) if there else 0.0,
            self.kept[i] / space.sizes[i] if there else 0.0,
            min(1.0, self.accuracy / dense) if dense else 0.0,
            space.sparsity(self.kept),
            sum(space.sizes[i:]) / space.total,
            space.stds[i] / (max(space.stds) or 1.0) if there else 0.0,
            self.last,
        ]
        return np.array(seen, np.float32)


class ManyVisits(PruningEnv):
    """QLP's: every layer many times, a little at each visit.

    Actions: ``Discrete(6)``; action i takes a share ``SHARES[i]`` of the weights that the layer still has, the
    smallest ones, down to its floor.

    Observations: ``Box(0, 1, (2,), float32)``: index of the layer that comes next / number of layers, and its density.

    An episode ends after ``visits`` passes over all layers, or as soon as the target sparsity is reached.
    """

    def __init__(self, evaluator: Evaluator, reward: str = "potential", scale: float = 1.0, *, visits: int = 8) -> None:
        if visits < 1:
            raise RecipeError(f"a layer must be visited at least once, got {visits}")
        self.visits = visits
        self.action_space = spaces.Discrete(len(SHARES))
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        super().__init__(evaluator, reward, scale)

    def _pruned(self, action: int) -> Kept:
        layer = self.steps % len(self.space)
        left = self.kept[layer] - round(SHARES[action] * self.kept[layer])
        return self._with(layer, max(self.space.floors[layer], left))

    def _ended(self) -> bool:
        full = self.steps == self.visits * len(self.space)
        return full or self.space.sparsity(self.kept) >= self.evaluator.targets.sparsity

    def _observation(self) -> NDArray[np.float32]:
        layer = self.steps % len(self.space)
        return np.array([layer / len(self.space), self.kept[layer] / self.space.sizes[layer]], np.float32)
