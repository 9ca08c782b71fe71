"""The backward pass of relevance through a recorded forward pass."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fewbits.errors import NonFiniteError
from fewbits.graph.traced import Kind, TracedGraph
from fewbits.measure.relevance._layer import LinearMap
from fewbits.measure.relevance._record import ActivationTape, run_node
from fewbits.measure.relevance._rules import Epsilon, Flat, Rule, Rules, stabilise
from fewbits.measure.relevance._step import Carried, Step
from fewbits.weights import layers

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RECTIFIERS = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")


@dataclass(eq=False)
class Propagated:
    """Relevance found in one backward pass.

    Attributes:
        weights: ``{"path.weight": relevance}`` of each weight's shape, summed with its sign over samples and
            over all places where the weight is applied (ECQx, eq. 7); zero for a layer that no class score
            depends on.
        inputs: relevance of the input tensor, if asked for.
        biases: relevance that biases and normalisation shifts received on the way, per node, if asked for.
        lost: relevance of outputs with no contribution that the rule hands relevance to, per node, if asked for.
        outputs: relevance of each weighted layer's outputs (its normalisation's when folded), if asked for.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    inputs: Tensor | None = None
    biases: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)


def propagate(
    recording: ActivationTape,
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
        self, recording: ActivationTape, rules: Rules, at: Mapping[str, Tensor], inputs: bool, account: bool
    ) -> None:
        self.values = recording
        self.traced: TracedGraph = recording.traced
        self.model: nn.Module = recording.model
        self.rules = rules
        self.at = at
        self.inputs = inputs
        self.account = account
        self.found = Propagated()
        self.arrived: dict[fx.Node, Carried] = {}
        self.folded: dict[fx.Node, fx.Node] = {}  # weighted node -> its normalisation
        self.wanted = self._wanted()

    def _wanted(self) -> set[fx.Node]:
        """Nodes that have a weight, or the input if that is asked for, behind them."""
        wanted: set[fx.Node] = set()
        for node in self.traced.graph.nodes:
            kind = self.traced.kinds[node]
            if (
                kind is Kind.WEIGHTED
                or (kind is Kind.INPUT and self.inputs)
                or (kind is not Kind.DATA and any(n in wanted for n in node.all_input_nodes))
            ):
                wanted.add(node)
        return wanted

    @torch.no_grad()
    def run(self, start: Tensor) -> Propagated:
        self.arrived[self.traced.result] = Carried(start)
        first = next((n for n in self.traced.graph.nodes if self.traced.kinds[n] is Kind.WEIGHTED), None)
        for node in reversed(self.traced.graph.nodes):
            if node not in self.arrived or self.traced.kinds[node] is Kind.INPUT:
                continue
            carried = self.arrived.pop(node)
            match self.traced.kinds[node]:
                case Kind.PASS:
                    self._pass(node, carried)
                case Kind.MOVE:
                    self._move(node, carried)
                case Kind.SHARE:
                    self._share(node, carried)
                case Kind.NORM:
                    self._norm(node, carried)
                case Kind.WEIGHTED:
                    self._weighted(node, carried, is_first=node is first)
        if self.inputs and self.traced.input in self.arrived:
            self.found.inputs = self.arrived[self.traced.input].relevance(self.values[self.traced.input])
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

    def _hand(self, node: fx.Node, carried: Carried) -> None:
        if node in self.wanted:
            known = self.arrived.get(node)
            self.arrived[node] = carried if known is None else known.plus(carried, self.values[node])

    def _relevance(self, node: fx.Node, carried: Carried) -> Tensor:
        return carried.relevance(self.values[node]) if carried.per_value else carried.tensor

    def _pass(self, node: fx.Node, carried: Carried) -> None:
        source = node.all_input_nodes[0]
        if carried.per_value and self._rectifies(node):
            self._hand(source, carried.rectified(self.values[node]))
        elif carried.per_value and node.op == "call_module" and type(self._module(node)) is nn.Identity:
            self._hand(source, carried)
        else:
            self._hand(source, Carried(self._relevance(node, carried)))

    def _rectifies(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(self._module(node)) is nn.ReLU
        return node.target in _RECTIFIERS

    def _module(self, node: fx.Node) -> Any:
        return self.model.get_submodule(str(node.target))

    def _transpose(self, node: fx.Node, relevance: Tensor) -> dict[fx.Node, Tensor]:
        """Relevance through the transposed Jacobian of a weight-free operation, per tensor input."""
        sources = [n for n in node.all_input_nodes if self.traced.kinds[n] is not Kind.DATA]
        with torch.enable_grad():
            leaves = {n: self.values[n].detach().requires_grad_() for n in sources}
            given = {n: leaves[n] if n in leaves else self.values[n] for n in node.all_input_nodes}
            output = run_node(node, self.model, given)
            gradients = torch.autograd.grad(output, list(leaves.values()), relevance)
        return {n: _laid_out_as(leaf, g) for (n, leaf), g in zip(leaves.items(), gradients, strict=True)}

    def _move(self, node: fx.Node, carried: Carried) -> None:
        # An element keeps its value where it moves, and so what it carries per value.
        for source, moved in self._transpose(node, carried.tensor).items():
            self._hand(source, Carried(moved, carried.per_value))

    def _share(self, node: fx.Node, carried: Carried) -> None:
        s = carried.tensor
        if not carried.per_value:
            z = stabilise(self.values[node], self.rules.eps)
            s = torch.div(s, z, out=z)
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
            self._hand(source, Carried(part, per_value=True))

    def _norm(self, node: fx.Node, carried: Carried) -> None:
        source = node.all_input_nodes[0]
        if self.rules.norm == "fold" and self._folds(node, carried.tensor):
            self.folded[source] = node
            self.arrived[source] = carried  # per value of the normalisation's output, if at all
            return
        relevance = self._relevance(node, carried)
        if isinstance(self.rules.norm, Rule):
            scale, shift = (_broadcast(v, relevance) for v in self._affine(node))
            contribution = self.values[source] * scale
            z = self.values[node]
            positive, negative = contribution.clamp(min=0), contribution.clamp(max=0)
            sums = positive + shift.clamp(min=0), negative + shift.clamp(max=0)
            if self.account and (stranded := self.rules.norm.stranded(*sums)) is not None:
                self.found.lost[node.name] = float(relevance[stranded].sum())
            s_positive, s_negative = self.rules.norm.factors(relevance, z, *sums)
            self._account_bias(node, shift.expand_as(z), s_positive, s_negative)
            handed = torch.zeros_like(relevance)
            if s_positive is not None:
                handed.addcmul_(positive, s_positive)
            if s_negative is not None:
                handed.addcmul_(negative, s_negative)
            self._hand(source, Carried(handed))
        else:
            self._hand(source, Carried(relevance))

    def _folds(self, node: fx.Node, relevance: Tensor) -> bool:
        """Whether the normalisation's channels are the outputs of the layer before it."""
        if node not in self.traced.folds:
            return False
        dense = isinstance(self.model.get_submodule(str(self.traced.folds[node].target)), nn.Linear)
        return relevance.dim() == 2 or not dense

    def _affine(self, node: fx.Node) -> tuple[Tensor, Tensor]:
        """``(scale, shift)`` per channel, with which batch normalisation acted in the recorded pass."""
        norm = self._module(node)
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

    def _weighted(self, node: fx.Node, carried: Carried, *, is_first: bool) -> None:
        path = str(node.target)
        module = self._module(node)
        linear = LinearMap.of(module, path, self.rules.dtype)
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
        step = Step(linear, a, weight, at, z, carried, bias, self.account)
        if self.account:
            self.found.outputs[node.name] = float(step.relevance.sum())
            if hand_on and not isinstance(toward_input, Flat):
                factors = step.factors(toward_input)
                self.found.lost[node.name] = step.lost.get(toward_input, 0.0)
                if bias is not None:
                    self._account_bias(node, linear.per_output(bias, z).expand_as(z), *factors)
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


def _through_two_points(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor] | None:
    """``(scale, shift)`` per channel of an affine map from its input and output; ``None`` if they do not tell.

    The extremes of each channel in a few samples determine the line through them, without a pass over the batch.
    """
    few = slice(0, max(1, 1024 * x.shape[1] // max(1, x[:1].numel())))
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


def _laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` with the memory layout of ``like``: element by element, two layouts together are slow."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def _broadcast(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(1, -1, *([1] * (like.dim() - 2)))
