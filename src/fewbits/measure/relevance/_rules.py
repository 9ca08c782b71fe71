"""Rules of layer-wise relevance propagation (LRP).

A weighted layer computes ``z_j = sum_i p_ij + b_j`` from contributions ``p_ij = a_i w_ij``. Every rule here
hands the relevance ``R_j`` of an output back as ``p_ij * s``, with one factor for the positive contributions
and one for the negative ones::

    R_i = sum_j  (p_ij)+ s+_j + (p_ij)- s-_j

so a rule is the function ``factors(R, z, z+, z-) -> (s+, s-)``, where ``z+ = sum_i (p_ij)+ + (b_j)+``. Sources:
Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 and 2019 (z+, gamma), Lapuschkin et al. 2019
(flat); ECQx, arXiv 2109.04236, eqs. 2-7, for the use on weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewbits.errors import RecipeError


def stabilise(z: Tensor, eps: float) -> Tensor:
    """``z + eps * sign(z)``, so that dividing by it is finite; a zero has the sign of its sign bit."""
    return torch.copysign(torch.tensor(eps, dtype=z.dtype), z).add_(z)


def divide(relevance: Tensor, z: Tensor) -> Tensor:
    """``relevance / z`` in the memory of ``z``, and 0 where that is 0: an empty sum has nobody to hand relevance to."""
    empty = z == 0
    return torch.div(relevance, z, out=z).masked_fill_(empty, 0.0)


@dataclass(frozen=True)
class Rule:
    """Base of the rules. ``needs_positive`` and ``needs_negative`` say whether ``factors`` looks at z+ and z-."""

    needs_positive: ClassVar[bool] = False
    needs_negative: ClassVar[bool] = False

    def factors(
        self, relevance: Tensor, z: Tensor, z_positive: Tensor, z_negative: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Factors ``(s+, s-)`` for positive and negative contributions; ``None`` means zero.

        Args:
            relevance: relevance of the layer's outputs, shape of ``z``.
            z: outputs of the layer, bias included.
            z_positive, z_negative: sums of the contributions of one sign, a bias of that sign included; their
                memory may be used for the result. Each is ``z`` itself, which must stay as it is, for a rule that
                does not need it.

        The factors are proportional to ``relevance``, element by element.
        """
        raise TypeError(f"{type(self).__name__} does not define factors")  # abstract

    def stranded(self, z_positive: Tensor, z_negative: Tensor) -> Tensor | None:
        """Mask of the outputs without a contribution that this rule would hand relevance to; ``None``: never."""
        return None


@dataclass(frozen=True)
class Epsilon(Rule):
    """``R_i = sum_j p_ij / (z_j + eps sign z_j) R_j``."""

    eps: float = 1e-6

    def factors(self, relevance: Tensor, z: Tensor, z_positive: Tensor, z_negative: Tensor) -> tuple[Tensor, Tensor]:
        s = stabilise(z, self.eps)
        s = torch.div(relevance, s, out=s)
        return s, s


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """``R_i = sum_j (alpha p+/z+ - beta p-/z-) R_j`` with ``alpha - beta = 1`` (ECQx, eq. 4).

    An output with contributions of one sign only hands its whole relevance to them (factor 1): otherwise
    alpha times its relevance would be handed on, and the total would not be conserved.
    """

    alpha: float = 2.0
    beta: float = 1.0
    needs_positive: ClassVar[bool] = True
    needs_negative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise RecipeError(f"alpha - beta must be 1 and beta >= 0, got {self.alpha} and {self.beta}")

    def factors(
        self, relevance: Tensor, z: Tensor, z_positive: Tensor, z_negative: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        no_positive, no_negative = z_positive == 0, z_negative == 0
        plus, minus = divide(relevance, z_positive), divide(relevance, z_negative)
        return torch.where(no_negative, plus, self.alpha * plus), torch.where(no_positive, minus, -self.beta * minus)

    def stranded(self, z_positive: Tensor, z_negative: Tensor) -> Tensor:
        return (z_positive == 0) & (z_negative == 0)


@dataclass(frozen=True)
class ZPlus(Rule):
    """``R_i = sum_j p+/z+ R_j``: alpha 1, beta 0. Only positive contributions receive relevance.

    The relevance of an output without any positive contribution is lost; behind a ReLU there is none.
    """

    needs_positive: ClassVar[bool] = True

    def factors(
        self, relevance: Tensor, z: Tensor, z_positive: Tensor, z_negative: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        return divide(relevance, z_positive), None

    def stranded(self, z_positive: Tensor, z_negative: Tensor) -> Tensor:
        return z_positive == 0


@dataclass(frozen=True)
class Gamma(Rule):
    """``R_i = sum_j (p + gamma p+) / (z + gamma z+) R_j``: between epsilon (0) and z+ (infinity).

    Where ``z`` is negative, as before an addition, the negative contributions are the favoured ones instead:
    ``z + gamma z+`` could be zero there.
    """

    gamma: float = 0.25
    eps: float = 1e-6
    needs_positive: ClassVar[bool] = True

    def factors(self, relevance: Tensor, z: Tensor, z_positive: Tensor, z_negative: Tensor) -> tuple[Tensor, Tensor]:
        positive = z >= 0
        favoured = torch.where(positive, z_positive, z - z_positive)
        s = relevance / stabilise(z + self.gamma * favoured, self.eps)
        more = (1 + self.gamma) * s
        return torch.where(positive, more, s), torch.where(positive, s, more)


@dataclass(frozen=True)
class Flat(Rule):
    """Relevance is spread evenly over the inputs of each output; for first layers, which see pixels.

    A convolution's own padding gets none; zeros that an operation before the layer put there get their share.
    """


@dataclass(frozen=True)
class Rules:
    """Which rule each type of layer follows.

    Attributes:
        dense, conv: rule of linear and of convolutional layers.
        first: rule of the first weighted layer toward the input; ``None`` for the one of its type. It changes
            the relevance of inputs only.
        weight: rule by which a layer's weights receive their relevance; ``None`` for the layer's own.
        norm: batch normalisation: ``"fold"`` treats a layer and the normalisation behind it as one layer (a
            normalisation that follows no layer passes relevance on); ``"pass"`` always passes it on; a rule
            treats it as a layer of its own with one contribution and a bias, as the paper does.
        eps: stabiliser of sums and averages.
        precision: what convolutions multiply in: ``"float32"`` (that of the network, in fact) or ``"bfloat16"``,
            faster where the hardware has it, and exact to about 1 % of each weight's relevance.
        attention: ``"half"`` (AttnLRP) gives each of two factors that carry data half of a product's relevance, and
            goes through softmax by its derivative, which does not conserve it; ``"detach"`` (CP-LRP) takes softmax
            and sigmoid as constants, which does, but gives whole tensors (queries, keys, gates) none.
    """

    dense: Rule = Epsilon()
    conv: Rule = ZPlus()
    first: Rule | None = None
    weight: Rule | None = Epsilon()
    norm: Rule | str = "fold"
    eps: float = 1e-6
    precision: str = "float32"
    attention: str = "half"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise RecipeError(f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")
        if self.attention not in ("half", "detach"):
            raise RecipeError(f"attention must be 'half' or 'detach', got {self.attention!r}")
        if isinstance(self.norm, str) and self.norm not in ("fold", "pass"):
            raise RecipeError(f"norm must be 'fold', 'pass' or a rule, got {self.norm!r}")
        if isinstance(self.weight, Flat) or isinstance(self.norm, Flat):
            raise RecipeError("the flat rule spreads relevance over inputs; it is no rule for weights or norms")

    @property
    def dtype(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bfloat16" else None


COMPOSITES: dict[str, Rules] = {
    # ECQx section 4.1: epsilon for dense layers, alpha 2 beta 1 for convolutions and batch normalisation.
    "paper": Rules(conv=AlphaBeta(2, 1), norm=AlphaBeta(2, 1)),
    # The released code's default: z+ for convolutions, normalisation passed, flat first layer.
    "released": Rules(conv=ZPlus(), norm="pass", first=Flat()),
    # Ours: normalisation folded, so that no sum near zero is ever divided by (behind a ReLU).
    "plus": Rules(conv=ZPlus(), norm="fold"),
    "alpha-beta": Rules(conv=AlphaBeta(2, 1), norm="fold"),
    "gamma": Rules(conv=Gamma(0.25), norm="fold"),
    "epsilon": Rules(conv=Epsilon(), norm="fold"),
}
