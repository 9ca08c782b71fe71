"""What a pruned network is worth to a search: how far it is from an accuracy and a sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from fewbits.errors import RecipeError


@dataclass(frozen=True)
class Targets:
    """PuRL's two targets (Gupta et al., arXiv 2007.04756).

    Attributes:
        accuracy: T_A, percent on the proxy samples. sparsity: T_P, share of zeros, in 0..1.
    """

    accuracy: float
    sparsity: float

    def __post_init__(self) -> None:
        if not 0 < self.accuracy <= 100:
            raise RecipeError(f"the accuracy to keep must lie in 0..100 percent and be above 0, got {self.accuracy}")
        if not 0 < self.sparsity < 1:
            raise RecipeError(f"the sparsity to reach must lie between 0 and 1, got {self.sparsity}")

    def score(self, accuracy: float, sparsity: float) -> float:
        """``-(max(1 - A / T_A, 0) + max(1 - P / T_P, 0))``: 0 where both targets are met, negative elsewhere."""
        return -max(1 - accuracy / self.accuracy, 0.0) + self.sparse(sparsity)

    def sparse(self, sparsity: float) -> float:
        """The part of the score that is known without running the network."""
        return -max(1 - sparsity / self.sparsity, 0.0)
