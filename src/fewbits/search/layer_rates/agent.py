"""The agent: stable-baselines3's DQN, for as many evaluations as a search has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.errors import MissingExtraError
from fewbits.search.layer_rates._environment import PruningEnv
from fewbits.search.layer_rates._evaluator import Spent

try:
    from stable_baselines3 import DQN
    from stable_baselines3.common.logger import Logger
except ImportError as error:
    raise MissingExtraError("stable-baselines3", "rl", "searching with an agent") from error

_NEVER = 1 << 30  # episodes from one line of the library's log to the next


@dataclass(frozen=True)
class Settings:
    """Of the agent; the same for every reward.

    Attributes:
        hidden: units of the two layers of the network that values actions.
        lr: of Adam. gamma: discount; 1, for episodes are short and only their sum counts.
        replay: transitions that are remembered. batch: of them per update.
        tau: share by which the target network follows after every step. (stable-baselines3 has no double Q-learning.)
        explore: share of the evaluations after which epsilon has fallen from 1 to ``epsilon``.
        scale: of the rewards.
        patience: the search ends after the steps of so many budgets, spent or not: a small network runs out of
            choices that are new.
    """

    hidden: int = 64
    lr: float = 1e-3
    gamma: float = 1.0
    replay: int = 5000
    batch: int = 64
    tau: float = 0.01
    explore: float = 0.6
    epsilon: float = 0.05
    scale: float = 5.0
    patience: int = 3


def learn(env: PruningEnv, settings: Settings, seed: int) -> int:
    """Let an agent learn until the budget of the environment's evaluator is spent; steps taken.

    The network is what costs, so updates go by evaluations: as many per evaluation for every reward. Where
    each step is evaluated that means as many updates per step as there are layers, else one. Exploration
    falls with the evaluations, too. The best choice is the evaluator's, whenever learning ends or is interrupted.
    Global random states are left as they were.
    """
    evaluator, layers = env.evaluator, len(env.space)
    per_evaluation = 1 if env.measures else layers
    with _seeded():
        agent = DQN(
            "MlpPolicy",
            env,
            learning_rate=settings.lr,
            buffer_size=settings.replay,
            learning_starts=layers,
            batch_size=settings.batch,
            tau=settings.tau,
            gamma=settings.gamma,
            train_freq=1,
            gradient_steps=layers if env.measures else 1,
            target_update_interval=1,
            policy_kwargs={"net_arch": [settings.hidden, settings.hidden]},
            seed=seed,
            device="cpu",
        )

        def epsilon(_: float) -> float:
            way = min(1.0, evaluator.used / max(1.0, settings.explore * evaluator.budget))
            return 1.0 + way * (settings.epsilon - 1.0)

        agent.exploration_schedule = epsilon
        agent.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder for each agent
        with suppress(Spent):
            agent.learn(settings.patience * evaluator.budget * per_evaluation, log_interval=_NEVER)
        return int(agent.num_timesteps)


@contextmanager
def _seeded() -> Iterator[None]:
    """The agent's library seeds the global generators; whoever called finds them as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
