"""Relevance through one weighted operation: to its inputs and to its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from fewbits.measure.relevance._linear import LinearMap
from fewbits.measure.relevance._rules import Epsilon, Flat, Rule, divide, stabilise

NEGLIGIBLE = 1e-6  # a stabiliser up to this only keeps a division finite; where there is none, it is left out


@dataclass(frozen=True, eq=False)
class Carried:
    """Relevance on its way to a tensor of the network.

    Attributes:
        tensor: ``c`` with relevance ``R = value * c`` of each element, which goes backward through rectifiers, sums and
            selections as a gradient does; or, if there is a ``value``, ``R`` itself.
        value: what ``R`` is divided by where ``c`` is needed.
    """

    tensor: Tensor
    value: Tensor | None = None

    def per_value(self, eps: float) -> Tensor:
        """``c``; where the value is near zero, by ``eps`` further from it."""
        return self.tensor if self.value is None else self.tensor / stabilise(self.value, eps)

    def plus(self, other: Carried) -> Carried:
        """Both together; neither is to be used any more."""
        if self.value is None and other.value is not None:
            return other.plus(self)
        if self.value is None or other.value is not None:
            return Carried(self.tensor + other.tensor, self.value)
        return Carried(torch.addcmul(self.tensor, other.tensor, self.value), self.value)


class Step:
    """One weighted operation: its input, output, weights and the relevance that arrives at its output.

    Args:
        z: gives the output, bias included; asked only where a rule looks at it.
    """

    def __init__(
        self,
        linear: LinearMap,
        a: Tensor,
        weight: Tensor,
        at: Tensor,
        z: Callable[[], Tensor],
        carried: Carried,
        bias: Tensor | None,
        account: bool = False,
    ) -> None:
        self.linear, self.a, self.weight, self.at = linear, a, weight, at
        self._z, self.carried, self.bias = z, carried, bias
        self.account = account
        self.lost: dict[Rule, float] = {}  # relevance without a taker, per rule, if ``account``
        self._factors: dict[Rule, tuple[Tensor | None, Tensor | None]] = {}

    @cached_property
    def z(self) -> Tensor:
        """The output."""
        return self._z() if self.carried.value is None else self.carried.value

    @cached_property
    def relevance(self) -> Tensor:
        """Relevance of the output."""
        return self.carried.tensor * self.z if self.carried.value is None else self.carried.tensor

    @cached_property
    def signed(self) -> bool:
        """Whether the input has negative values; behind a ReLU half of the work falls away."""
        return self.a.numel() > 0 and float(self.a.amin()) < 0

    def factors(self, rule: Rule) -> tuple[Tensor | None, Tensor | None]:
        if self.carried.value is None and isinstance(rule, Epsilon) and rule.eps <= NEGLIGIBLE:
            return self.carried.tensor, self.carried.tensor  # R/z is what came
        if rule not in self._factors:
            positive = self._sum(positive=True) if rule.needs_positive else self.z
            negative = self._sum(positive=False) if rule.needs_negative else self.z
            if self.account:
                stranded = rule.stranded(positive, negative)
                self.lost[rule] = 0.0 if stranded is None else float(self.relevance[stranded].sum())
            if self.carried.value is None:  # factors are proportional to relevance: c * factors(z) are those of c * z
                plus, minus = rule.factors(self.z, self.z, positive, negative)
                for factor in {id(f): f for f in (plus, minus) if f is not None}.values():
                    factor.mul_(self.carried.tensor)
            else:
                plus, minus = rule.factors(self.carried.tensor, self.z, positive, negative)
            self._factors[rule] = plus, minus
        return self._factors[rule]

    def _sum(self, *, positive: bool) -> Tensor:
        """Contributions of one sign, a bias of that sign included, summed for each output.

        Both signs are computed: z less the other sum would pass rounding for contributions where there are none.
        """
        above, below = partial(torch.clamp, min=0), partial(torch.clamp, max=0)
        mine, other = (above, below) if positive else (below, above)
        weight, bias = mine(self.weight), None if self.bias is None else mine(self.bias)
        if not self.signed:
            return self.linear.apply(self.a, weight, bias)
        z = self.linear.apply(above(self.a), weight, bias)
        return z.add_(self.linear.apply(below(self.a), other(self.weight)))

    def apply(self, toward_input: Rule | None, weight_rule: Rule) -> tuple[Carried | None, Tensor]:
        """Relevance of the layer's input (``None`` if no rule is given) and of its weights."""
        if toward_input is not None and toward_input == weight_rule:
            plus, minus = self.factors(weight_rule)
            if plus is minus and plus is not None:  # one factor for all contributions: one transposed pass
                to_inputs, to_weights = self.linear.back(plus, self.a, self.weight)
                assert to_inputs is not None
                assert to_weights is not None
                return Carried(to_inputs), to_weights.mul_(self.at)
        handed = None if toward_input is None else self._to_inputs(toward_input)
        return handed, self._to_weights(weight_rule)

    def _to_inputs(self, rule: Rule) -> Carried:
        if isinstance(rule, Flat):
            ones = torch.ones_like(self.weight)
            count = self.linear.apply(torch.ones_like(self.a[:1]), ones)  # 0 where only padding is seen
            return Carried(self._input_sum(divide(self.relevance, count.expand_as(self.z).clone()), ones), self.a)
        plus, minus = self.factors(rule)
        if plus is minus:
            return Carried(self._input_sum(plus, self.weight))
        supporting, opposing = self.weight.clamp(min=0), self.weight.clamp(max=0)
        handed = self._input_sum(plus, supporting, minus, opposing)
        if not self.signed:
            return Carried(handed)
        return Carried(torch.where(self.a > 0, handed, self._input_sum(plus, opposing, minus, supporting)))

    def _to_weights(self, rule: Rule) -> Tensor:
        plus, minus = self.factors(rule)
        if plus is minus:
            return self._weight_sum(plus, self.a).mul_(self.at)
        if not self.signed:
            positive, negative = self._weight_sum(plus, self.a), self._weight_sum(minus, self.a)
        else:
            supporting, opposing = self.a.clamp(min=0), self.a.clamp(max=0)
            positive = self._weight_sum(plus, supporting, minus, opposing)
            negative = self._weight_sum(plus, opposing, minus, supporting)
        return positive.mul_(self.at.clamp(min=0)).addcmul_(self.at.clamp(max=0), negative)

    def _input_sum(
        self, s: Tensor | None, weight: Tensor, more: Tensor | None = None, other: Tensor | None = None
    ) -> Tensor:
        """``(dz/da)^T s`` under ``weight``, plus that of ``more`` under ``other``; no factor means zero."""
        total = None if s is None else self.linear.back(s, self.a, weight, weights=False)[0]
        if more is not None and other is not None:
            further = self.linear.back(more, self.a, other, weights=False)[0]
            total = further if total is None or further is None else total.add_(further)
        return torch.zeros_like(self.a) if total is None else total

    def _weight_sum(
        self, s: Tensor | None, a: Tensor, more: Tensor | None = None, other: Tensor | None = None
    ) -> Tensor:
        """``(dz/dweight)^T s`` at input ``a``, plus that of ``more`` at ``other``; no factor means zero."""
        total = None if s is None else self.linear.back(s, a, self.weight, inputs=False)[1]
        if more is not None and other is not None:
            further = self.linear.back(more, other, self.weight, inputs=False)[1]
            total = further if total is None or further is None else total.add_(further)
        return torch.zeros_like(self.weight) if total is None else total
