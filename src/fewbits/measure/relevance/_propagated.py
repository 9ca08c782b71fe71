"""What one backward pass of relevance found."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class Propagated:
    """Relevance found in one backward pass.

    Attributes:
        weights: ``{"path.weight": relevance}`` of each weight's shape, summed with its sign over samples and
            over all places where the weight is applied (ECQx, eq. 7); zero for a layer that no class score
            depends on. Other parameters of two or more dimensions that multiply data, or are looked up, have theirs by
            their own names; a weight that several layers share has the sum, under each name.
        inputs: relevance of the input tensor, if asked for, or of the first of several; of indices, that of their
            embeddings, summed over features.
        sources: that of every input, in the order in which the network is given them.
        biases: relevance that biases, shifts and other constants received on the way, by operation, if asked for.
        lost: relevance of outputs with no contribution that the rule hands relevance to, by layer, if asked for.
        outputs: relevance of each weighted layer's outputs (its normalisation's when folded), if asked for.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    inputs: Tensor | None = None
    sources: list[Tensor] = field(default_factory=list)
    biases: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)
