"""The backward pass of relevance through a recorded forward pass."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.errors import NonFiniteError
from fewbits.measure.relevance.layer import LinearMap
from fewbits.measure.relevance.lens import Kind, Lens
from fewbits.measure.relevance.record import Recording, run_node
from fewbits.measure.relevance.rules import Epsilon, Flat, Rule, Rules, divide, stabilise
from fewbits.weights import layers

_ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(eq=False)
class Propagated:
    """Relevance found in one backward pass.

    Attributes:
        weights: ``{"path.weight": relevance}`` of each weight's shape, summed with its sign over samples and
            over all places where the weight is applied (ECQx, eq. 7); zero for a layer that no class score
            depends on.
        inputs: relevance of the input tensor, if asked for.
        biases: relevance that biases and normalisation shifts received on the way, per node, if asked for.
        outputs: relevance of each weighted layer's outputs (its normalisation's when folded), if asked for.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    inputs: Tensor | None = None
    biases: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)


def propagate(
    recording: Recording,
    start: Tensor,
    rules: Rules,
    *,
    at: Mapping[str, Tensor] | None = None,
    inputs: bool = False,
    account: bool = False,
) -> Propagated:
    """Send relevance from the class scores back to every weight (and to the input).

    Args:
        recording: values of a forward pass.
        start: relevance of the network's outputs, ``[samples, classes]``.
        rules: rule per layer type.
        at: weights on which the relevance of weights is taken, in place of the ones the network computed
            with: ``R_w = at * dz/dw * R/z``. With the float background weights a weight that sits in the zero
            cluster still has a relevance and can come back (ECQx reads eq. 7 on the quantized weights, where
            it is zero for ever).
        inputs: whether to return the relevance of the input.
        account: whether to keep the sums that conservation is checked with.

    Raises:
        NonFiniteError: relevance overflowed; the message names the layer.
    """
    return _Pass(recording, rules, at or {}, inputs, account).run(start)


class _Pass:
    def __init__(
        self, recording: Recording, rules: Rules, at: Mapping[str, Tensor], inputs: bool, account: bool
    ) -> None:
        self.values = recording
        self.lens: Lens = recording.lens
        self.model: nn.Module = recording.model
        self.rules = rules
        self.at = at
        self.inputs = inputs
        self.account = account
        self.found = Propagated()
        self.relevance: dict[fx.Node, Tensor] = {}
        self.folded: dict[fx.Node, fx.Node] = {}  # weighted node -> its normalisation
        self.wanted = self._wanted()

    def _wanted(self) -> set[fx.Node]:
        """Nodes that have a weight, or the input if that is asked for, behind them."""
        wanted: set[fx.Node] = set()
        for node in self.lens.graph.nodes:
            kind = self.lens.kinds[node]
            if (
                kind is Kind.WEIGHTED
                or (kind is Kind.INPUT and self.inputs)
                or (kind is not Kind.DATA and any(n in wanted for n in node.all_input_nodes))
            ):
                wanted.add(node)
        return wanted

    @torch.no_grad()
    def run(self, start: Tensor) -> Propagated:
        self.relevance[self.lens.result] = start
        first = next((n for n in self.lens.graph.nodes if self.lens.kinds[n] is Kind.WEIGHTED), None)
        for node in reversed(self.lens.graph.nodes):
            if node not in self.relevance or self.lens.kinds[node] is Kind.INPUT:
                continue
            relevance = self.relevance.pop(node)
            match self.lens.kinds[node]:
                case Kind.PASS:
                    self._hand(node.all_input_nodes[0], relevance)
                case Kind.MOVE:
                    self._move(node, relevance)
                case Kind.SHARE:
                    self._share(node, relevance)
                case Kind.NORM:
                    self._norm(node, relevance)
                case Kind.WEIGHTED:
                    self._weighted(node, relevance, is_first=node is first)
        self.found.inputs = self.relevance.get(self.lens.input) if self.inputs else None
        self._check()
        known = self.found.weights
        every: dict[str, Any] = {f"{path}.weight": module for path, module in layers(self.model).items()}
        self.found.weights = {
            name: known[name] if name in known else torch.zeros_like(module.weight) for name, module in every.items()
        }
        return self.found

    def _check(self) -> None:
        """Raise NonFiniteError for the first layer, from the output, that overflowed."""
        found = dict(self.found.weights)
        if self.found.inputs is not None:
            found["the input"] = self.found.inputs
        if not found:
            return
        # A sum is finite if all of its terms are, and needs one look at the device for the whole network.
        finite = torch.isfinite(torch.stack([r.sum() for r in found.values()])).tolist()
        for name, sound in zip(found, finite, strict=True):
            if not sound:
                raise NonFiniteError(f"the relevance of {name} is not finite; try rules='plus' or 'epsilon'")

    def _hand(self, node: fx.Node, relevance: Tensor) -> None:
        if node in self.wanted:
            self.relevance[node] = self.relevance[node] + relevance if node in self.relevance else relevance

    def _transpose(self, node: fx.Node, relevance: Tensor) -> dict[fx.Node, Tensor]:
        """Relevance through the transposed Jacobian of a weight-free operation, per tensor input."""
        sources = [n for n in node.all_input_nodes if self.lens.kinds[n] is not Kind.DATA]
        with torch.enable_grad():
            leaves = {n: self.values[n].detach().requires_grad_() for n in sources}
            given = {n: leaves[n] if n in leaves else self.values[n] for n in node.all_input_nodes}
            output = run_node(node, self.model, given)
            gradients = torch.autograd.grad(output, list(leaves.values()), relevance)
        return dict(zip(sources, gradients, strict=True))

    def _move(self, node: fx.Node, relevance: Tensor) -> None:
        for source, moved in self._transpose(node, relevance).items():
            self._hand(source, moved)

    def _share(self, node: fx.Node, relevance: Tensor) -> None:
        s = stabilise(self.values[node], self.rules.eps)
        s = torch.div(relevance, s, out=s)
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if (
            node.target in _ADDITIONS
            and len(operands) == 2 == len(set(operands))
            and not node.kwargs
            and all(self.values[n].shape == s.shape for n in operands)
        ):
            parts = dict.fromkeys(operands, s)
        else:
            parts = self._transpose(node, s)
        for source, part in parts.items():
            self._hand(source, self.values[source] * part)

    def _norm(self, node: fx.Node, relevance: Tensor) -> None:
        source = node.all_input_nodes[0]
        if self.rules.norm == "fold" and self._folds(node, relevance):
            self.folded[source] = node
            self._hand(source, relevance)
        elif isinstance(self.rules.norm, Rule):
            scale, shift = (_broadcast(v, relevance) for v in self._affine(node))
            contribution = self.values[source] * scale
            z = self.values[node]
            positive, negative = contribution.clamp(min=0), contribution.clamp(max=0)
            s_positive, s_negative = self.rules.norm.factors(
                relevance, z, positive + shift.clamp(min=0), negative + shift.clamp(max=0)
            )
            self._account_bias(node, shift.expand_as(z), s_positive, s_negative)
            handed = torch.zeros_like(relevance)
            if s_positive is not None:
                handed.addcmul_(positive, s_positive)
            if s_negative is not None:
                handed.addcmul_(negative, s_negative)
            self._hand(source, handed)
        else:
            self._hand(source, relevance)

    def _folds(self, node: fx.Node, relevance: Tensor) -> bool:
        """Whether the normalisation's channels are the outputs of the layer before it."""
        if node not in self.lens.folds:
            return False
        dense = isinstance(self.model.get_submodule(str(self.lens.folds[node].target)), nn.Linear)
        return relevance.dim() == 2 or not dense

    def _affine(self, node: fx.Node) -> tuple[Tensor, Tensor]:
        """``(scale, shift)`` per channel, with which batch normalisation acted in the recorded pass."""
        norm: Any = self.model.get_submodule(str(node.target))
        if norm.training or norm.running_mean is None:
            x = self.values.whole(node.all_input_nodes[0])
            affine = _through_two_points(x, self.values.whole(node))
            if affine is not None:
                return affine
            dims = [d for d in range(x.dim()) if d != 1]
            mean = x.mean(dims)  # on a CPU several times faster than torch.var_mean
            variance = (x - _broadcast(mean, x)).square_().mean(dims)
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale = torch.rsqrt(variance + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        shift = -mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach()
        return scale, shift

    def _weighted(self, node: fx.Node, relevance: Tensor, *, is_first: bool) -> None:
        path = str(node.target)
        module: Any = self.model.get_submodule(path)
        linear = LinearMap.of(module, path)
        source = node.all_input_nodes[0]
        a = self.values[source]
        weight = module.weight.detach()
        at = self.at.get(f"{path}.weight", weight)
        bias = None if module.bias is None else module.bias.detach()
        z = self.values[node]
        if node in self.folded:
            scale, shift = self._affine(self.folded[node])
            rows = scale.reshape(-1, *([1] * (weight.dim() - 1)))
            weight, at = weight * rows, at * rows
            bias = shift if bias is None else bias * scale + shift
            z = self.values[self.folded[node]]
        rule = self.rules.dense if linear.dense else self.rules.conv
        toward_input = self.rules.first if is_first and self.rules.first is not None else rule
        weight_rule = self.rules.weight or (Epsilon() if isinstance(rule, Flat) else rule)
        hand_on = source in self.wanted
        step = _Step(linear, a, weight, at, z, relevance, bias)
        if self.account:
            self.found.outputs[node.name] = float(relevance.sum())
            if hand_on and not isinstance(toward_input, Flat) and bias is not None:
                full = linear.per_output(bias, z).expand_as(z)
                self._account_bias(node, full, *step.factors(toward_input))
        handed, of_weights = step.apply(toward_input if hand_on else None, weight_rule)
        name = f"{path}.weight"
        known = self.found.weights.get(name)
        self.found.weights[name] = of_weights if known is None else known + of_weights
        if handed is not None:
            self._hand(source, handed)

    def _account_bias(self, node: fx.Node, bias: Tensor, plus: Tensor | None, minus: Tensor | None) -> None:
        if not self.account:
            return
        total = 0.0
        if plus is not None:
            total += float((bias.clamp(min=0) * plus).sum())
        if minus is not None:
            total += float((bias.clamp(max=0) * minus).sum())
        self.found.biases[node.name] = total


class _Step:
    """One weighted layer: its input, output, weights and the relevance that arrives at its output."""

    def __init__(
        self,
        linear: LinearMap,
        a: Tensor,
        weight: Tensor,
        at: Tensor,
        z: Tensor,
        relevance: Tensor,
        bias: Tensor | None,
    ) -> None:
        self.linear, self.a, self.weight, self.at = linear, a, weight, at
        self.z, self.relevance, self.bias = z, relevance, bias
        self._factors: dict[Rule, tuple[Tensor | None, Tensor | None]] = {}

    @cached_property
    def signed(self) -> bool:
        """Whether the input has negative values; behind a ReLU half of the work falls away."""
        return self.a.numel() > 0 and float(self.a.amin()) < 0

    def factors(self, rule: Rule) -> tuple[Tensor | None, Tensor | None]:
        if rule not in self._factors:
            positive = self._z_positive if rule.needs_positive else self.z
            negative = self._z_negative if rule.needs_negative else self.z
            self._factors[rule] = rule.factors(self.relevance, self.z, positive, negative)
        return self._factors[rule]

    @cached_property
    def _z_positive(self) -> Tensor:
        weight, bias = self.weight.clamp(min=0), None if self.bias is None else self.bias.clamp(min=0)
        if not self.signed:
            return self.linear.apply(self.a, weight, bias)
        z = self.linear.apply(self.a.clamp(min=0), weight, bias)
        return z.add_(self.linear.apply(self.a.clamp(max=0), self.weight.clamp(max=0)))

    @cached_property
    def _z_negative(self) -> Tensor:
        # Not z - z+, whose rounding would pass for contributions where there are none.
        weight, bias = self.weight.clamp(max=0), None if self.bias is None else self.bias.clamp(max=0)
        if not self.signed:
            return self.linear.apply(self.a, weight, bias)
        z = self.linear.apply(self.a.clamp(min=0), weight, bias)
        return z.add_(self.linear.apply(self.a.clamp(max=0), self.weight.clamp(min=0)))

    def apply(self, toward_input: Rule | None, weight_rule: Rule) -> tuple[Tensor | None, Tensor]:
        """Relevance of the layer's input (``None`` if no rule is given) and of its weights."""
        if toward_input is not None and toward_input == weight_rule:
            plus, minus = self.factors(weight_rule)
            if plus is minus and plus is not None:  # one factor for all contributions: one transposed pass
                to_inputs, to_weights = self.linear.back(plus, self.a, self.weight)
                assert to_inputs is not None
                assert to_weights is not None
                return to_inputs.mul_(self.a), to_weights.mul_(self.at)
        handed = None if toward_input is None else self._to_inputs(toward_input)
        return handed, self._to_weights(weight_rule)

    def _to_inputs(self, rule: Rule) -> Tensor:
        if isinstance(rule, Flat):
            ones = torch.ones_like(self.weight)
            count = self.linear.apply(torch.ones_like(self.a[:1]), ones)  # 0 where only padding is seen
            return self._input_sum(divide(self.relevance, count), ones)
        plus, minus = self.factors(rule)
        if plus is minus:
            return self._input_sum(plus, self.weight).mul_(self.a)
        supporting, opposing = self.weight.clamp(min=0), self.weight.clamp(max=0)
        handed = self._input_sum(plus, supporting, minus, opposing)
        if not self.signed:
            return handed.mul_(self.a)
        handed.mul_(self.a.clamp(min=0))
        return handed.addcmul_(self.a.clamp(max=0), self._input_sum(plus, opposing, minus, supporting))

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


def _through_two_points(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor] | None:
    """``(scale, shift)`` per channel of an affine map from its input and output; ``None`` if they do not tell.

    The extremes of each channel in a few samples determine the line through them, without a pass over the batch.
    """
    few = slice(0, max(1, 4096 * x.shape[1] // max(1, x[:1].numel())))
    x, z = (v[few].transpose(0, 1).flatten(1) for v in (x, z))
    if x.shape[1] < 2:
        return None
    ends = torch.stack((x.argmin(1), x.argmax(1)), 1)
    (x_low, x_high), (z_low, z_high) = x.gather(1, ends).unbind(1), z.gather(1, ends).unbind(1)
    span = x_high - x_low
    if bool((span <= 0.1 * torch.maximum(x_low.abs(), x_high.abs())).any()):  # the difference would be inexact
        return None
    scale = (z_high - z_low) / span
    return scale, z_low - scale * x_low


def _broadcast(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(1, -1, *([1] * (like.dim() - 2)))
