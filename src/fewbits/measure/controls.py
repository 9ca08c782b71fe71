"""The controls that relevance is compared with, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError, did_you_mean
from fewbits.measure._scores import Scores
from fewbits.measure.inputs import InputScorer, WandaScorer
from fewbits.measure.scorer import Scorer, TrainingStep
from fewbits.measure.surgeon import SurgeonScorer


class TaylorScorer(Scorer):
    """``w dL/dw_q`` of the step: signed, like relevance; the assigner takes absolutes after its momentum."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: w.detach() * step.gradients[name] for name, w in step.weights.items()}


class FisherScorer(Scorer):
    """``(dL/dw_q)**2`` of the step's mean gradient."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: step.gradients[name].square() for name in step.weights}


class MagnitudeScorer(Scorer):
    """``|w|`` of the background weights."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: w.detach().abs() for name, w in step.weights.items()}


class RandomScorer(Scorer):
    """Uniform numbers, drawn anew at every step: the control that knows nothing."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def state(self) -> Tensor | None:
        return self._generator.get_state()

    def restore(self, state: Tensor | None) -> None:
        if state is not None:
            self._generator.set_state(state)

    def scores(self, step: TrainingStep) -> Scores:
        return {name: torch.rand(w.shape, generator=self._generator).to(w.device) for name, w in step.weights.items()}


PLAIN: dict[str, Callable[[], Scorer]] = {"taylor": TaylorScorer, "fisher": FisherScorer, "magnitude": MagnitudeScorer}
WATCHING: dict[str, Callable[[nn.Module], Scorer]] = {"inputs": InputScorer, "wanda": WandaScorer, "obs": SurgeonScorer}
CONTROLS = (*PLAIN, "random", *WATCHING)


def control(name: str, seed: int, model: nn.Module | None = None) -> Scorer:
    """A scorer that needs no relevance, by name.

    Args:
        seed: of ``random``. model: the network that computes, for those that watch it.

    Raises:
        RecipeError: no such name, or no network to watch.
    """
    if name in PLAIN:
        return PLAIN[name]()
    if name == "random":
        return RandomScorer(seed)
    if name not in WATCHING:
        raise RecipeError(f"no measure named {name!r}{did_you_mean(name, CONTROLS)}")
    if model is None:
        raise RecipeError(f"measure {name} watches a network: give control() one")
    return WATCHING[name](model)
