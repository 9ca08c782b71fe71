"""What a search found: sparsity by layer, and how it got there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fewbits.assign import Assigner, layerwise


@dataclass(frozen=True)
class Outcome:
    """The best choice of a search.

    Attributes:
        method: the searcher's name. rates: sparsity by weight name, 0..1. sparsity: over all of these weights, 0..1.
        accuracy, dense_accuracy: percent on the proxy samples, of this choice and of the dense network.
        score: see :class:`fewbits.search.layer_rates.Targets`; 0 if both targets are met.
        evaluations: of the network that were used, of ``budget`` ones. steps, episodes: of an agent, else 0.
        history: (evaluations used, score, accuracy, sparsity) of every improvement.
        finished: false if the search was interrupted.
    """

    method: str
    rates: dict[str, float]
    sparsity: float
    accuracy: float
    dense_accuracy: float
    score: float
    evaluations: int
    budget: int
    seed: int
    history: tuple[tuple[int, float, float, float], ...]
    steps: int = 0
    episodes: int = 0
    finished: bool = True

    @property
    def met(self) -> bool:
        """Whether both targets are met on the proxy samples."""
        return self.score >= 0

    def recipe(self) -> dict[str, Any]:
        """The section of a recipe that prunes this way: ``{"prune": {"method": "layers", "rates": {...}}}``."""
        return {"prune": {"method": "layers", "rates": dict(self.rates)}}

    def assigner(self) -> Assigner:
        """The same as an assigner; its plan can be attached and trained like any other."""
        return layerwise(self.rates)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
