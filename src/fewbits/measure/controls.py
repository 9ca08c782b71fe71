"""The controls that relevance is compared with, by name."""

from __future__ import annotations

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


CONTROLS = ("taylor", "fisher", "magnitude", "random", "inputs", "wanda", "obs")


def control(name: str, seed: int, model: nn.Module | None = None) -> Scorer:
    """A scorer that needs no relevance, by name.

    Args:
        seed: of ``random``. model: the network that computes, for ``inputs``, ``wanda`` and ``obs``.

    Raises:
        RecipeError: no such name.
    """
    match name:
        case "taylor":
            return TaylorScorer()
        case "fisher":
            return FisherScorer()
        case "magnitude":
            return MagnitudeScorer()
        case "random":
            return RandomScorer(seed)
        case "inputs" | "wanda" | "obs":
            if model is None:
                raise RecipeError(f"measure {name} watches a network: give control() one")
            return {"inputs": InputScorer, "wanda": WandaScorer, "obs": SurgeonScorer}[name](model)
    raise RecipeError(f"no measure named {name!r}{did_you_mean(name, CONTROLS)}")
