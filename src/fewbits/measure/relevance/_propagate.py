"""The backward pass of relevance: a walk over the autograd graph of an ordinary forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import NonFiniteError, UnsupportedError
from fewbits.measure.relevance import _formulas as formulas
from fewbits.measure.relevance._composed import Composed, handed
from fewbits.measure.relevance._formulas import ELEMENTWISE, Handed
from fewbits.measure.relevance._linear import LinearMap
from fewbits.measure.relevance._nodes import (
    ADDENDS,
    BATCH_NORMS,
    CONVOLUTIONS,
    GATES,
    MOVES,
    NATIVE,
    PRODUCTS,
    SCALES,
    SOURCES,
    Node,
    edges,
    fitted,
    kind,
    kinds,
    leaves,
    native,
    ordered,
    outputs_of,
    parameter,
    per_channel,
)
from fewbits.measure.relevance._probe import is_homogeneous
from fewbits.measure.relevance._rules import Epsilon, Flat, Rule, Rules, stabilise
from fewbits.measure.relevance._step import Carried, Step
from fewbits.measure.relevance._tape import Tape, inside
from fewbits.weights import layers


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


def propagate(
    outputs: Tensor,
    start: Tensor,
    rules: Rules,
    tape: Tape,
    *,
    at: Mapping[str, Tensor] | None = None,
    inputs: bool = False,
    account: bool = False,
) -> Propagated:
    """Send relevance from a network's outputs back to every weight (and to the input).

    Args:
        outputs: of a forward pass that ``tape`` watched, with their graph: a backward pass that came before has to keep
            it (``retain_graph=True``).
        start: their relevance, of their shape.
        rules: rule per layer type.
        at: weights on which the relevance of weights is taken, in place of the ones the network computed
            with: ``R_w = at * dz/dw * R/z``. With the float background weights a weight that sits in the zero
            cluster still has a relevance and can come back (ECQx reads eq. 7 on the quantized weights, where
            it is zero for ever).
        inputs: whether to return the relevance of the input.
        account: whether to keep the sums that conservation is checked with; the tape has to, too.

    Raises:
        UnsupportedError: relevance arrives at an operation without a rule, or there is no graph to walk.
        NonFiniteError: relevance overflowed; the message names the layer.
    """
    if outputs.grad_fn is None:
        raise UnsupportedError(
            "the network's outputs have no autograd graph, which relevance goes through; run the network without "
            "torch.no_grad() or torch.inference_mode()"
        )
    with torch.no_grad():
        return _Walk(tape, rules, at or {}, inputs, account).run(outputs, start)


class _Walk:
    def __init__(self, tape: Tape, rules: Rules, at: Mapping[str, Tensor], inputs: bool, account: bool) -> None:
        self.tape, self.rules, self.at = tape, rules, at
        self.inputs, self.account = inputs, account
        self.found = Propagated()
        self.signal: dict[Node, bool] = {}  # data flows through it
        self.wanted: dict[Node, bool] = {}  # and there is something behind it that relevance is asked of
        self.weighted: dict[Node, bool] = {}  # and there is a weighted operation behind it
        self.uses: dict[Node, int] = defaultdict(int)
        self.folded: dict[Node, Node] = {}  # weighted operation -> its batch normalisation
        self.forced: set[Node] = set()  # inside of what is declared linear
        self.arrived: dict[Node, dict[int, Carried]] = defaultdict(dict)
        self.sources: dict[int, Tensor] = {}  # relevance of inputs, by their place among what the network is given

    def run(self, outputs: Tensor, start: Tensor) -> Propagated:
        order = ordered(outputs.grad_fn)
        self._look(order)
        if not self.signal[outputs.grad_fn]:
            raise UnsupportedError("the outputs do not depend on the inputs: nothing but parameters leads to them")
        self.arrived[outputs.grad_fn][outputs.output_nr] = Carried(start.to(outputs.dtype), outputs.detach())
        for node in reversed(order):
            arrived = self.arrived.pop(node, None)
            if arrived is None:
                continue
            try:
                self._step(node, arrived)
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
                where = self.tape.path_of(node)
                raise UnsupportedError(
                    f"what {node.name()}{f' in {where}' if where else ''} read is overwritten in place later, which no "
                    "gradient survives either; write it out of place"
                ) from error
        self.found.sources = [self.sources[place] for place in sorted(self.sources)]
        self.found.inputs = self.found.sources[0] if self.found.sources else None
        self._check()
        found, every = self.found.weights, {}
        for path, module in layers(self.tape.model).items():
            name = f"{path}.weight".lstrip(".")
            own = found.get(name, found.get(self.tape.names.get(id(module.weight), name)))
            every[name] = torch.zeros_like(module.weight.detach()) if own is None else own
        self.found.weights = every | {name: r for name, r in found.items() if name not in every}
        return self.found

    # What the walk knows of a node before relevance arrives there.

    def _look(self, order: Sequence[Node]) -> None:
        for node in order:
            name, below = kind(node), [n for n, _ in edges(node)]
            for n in below:
                self.uses[n] += n is not None
            source = node in self.tape.sources or name in SOURCES or _reads_constants(node, name)
            flows = [n is not None and self.signal[n] for n in below]
            self.signal[node] = source or (any(flows) and not self._stops(name))
            parameters = self.signal[node] and any(n is not None and not f for n, f in zip(below, flows, strict=True))
            behind = [n for n, f in zip(below, flows, strict=True) if f]
            self.weighted[node] = self._multiplies(name) or any(self.weighted[n] for n in behind)
            self.wanted[node] = self.signal[node] and (
                name in SOURCES
                or (source and (self.inputs or self.account))
                or parameters
                or any(self.wanted[n] for n in behind)
            )

    def _stops(self, name: str) -> bool:
        how = self.tape.operations.get(name)
        return how == "scale" or (how is None and (name in SCALES or (self.detach and name in GATES)))

    @property
    def detach(self) -> bool:
        return self.rules.attention == "detach"

    @staticmethod
    def _multiplies(name: str) -> bool:
        return name in CONVOLUTIONS or name in ("Mm", "Addmm", "Bmm", "Baddbmm")

    def _flows(self, node: Node, operand: int) -> bool:
        below = edges(node)[operand][0]
        return below is not None and self.signal[below]

    # One node.

    def _step(self, node: Node, arrived: dict[int, Carried]) -> None:
        name = kind(node)
        if node in self.tape.sources:
            self._source(self.tape.sources[node][0], arrived[0], self.tape.sources[node][1])
            return
        if name == "Embedding":
            self._embedding(node, arrived[0])
            return
        if name in MOVES and node not in self.forced and any(c.value is not None for c in arrived.values()):
            self._move(node, arrived)
            return
        operation = _weighted_operands(node, name, self._flows)
        if operation is not None and node not in self.forced:
            self._weigh(node, arrived[0], *operation)
            return
        if name in BATCH_NORMS and not _is_instance_norm(node):
            self._norm(node, arrived[0])
            return
        # An eigenvalue of zero: an output without a value has no relevance, and none is made of it.
        c = [self._per_value(arrived[i]) if i in arrived else None for i in range(_outputs(node, arrived))]
        given = self._handed(node, name, c)
        addends = self.tape.addends.get(node, ()) if self.account else ()
        for operand, v in enumerate(given.operands):
            if v is not None and not (addends and not self._flows(node, operand)):
                self._hand(node, operand, Carried(v), multiplied=self._is_factor(node, name, operand))
        if self.account:
            self._book(node, given.constant)
            for operand, value in enumerate(addends):
                assert c[0] is not None
                if operand >= len(given.operands) or not self._flows(node, operand):
                    self._book(node, c[0] * value)

    def _per_value(self, carried: Carried) -> Tensor:
        return carried.per_value(self.rules.eps)

    def _handed(self, node: Node, name: str, c: list[Tensor | None]) -> Handed:
        """What a node without weights of its own hands on, by its kind."""
        if node in self.forced:
            return Handed(native(node, c))
        if name in self.tape.operations:
            return self._by_name(node, self.tape.operations[name], c)
        first = c[0]
        match name:
            case _ if name in PRODUCTS:
                factors = [i for i in range(len(edges(node))) if self._flows(node, i)]
                return formulas.product(node, c, [i for i in factors if not (name in ADDENDS and i == 0)])
            case "Div":
                return formulas.quotient(node, c, lambda i: self._flows(node, i))
            case "Softmax" | "LogSoftmax" | "SafeSoftmax":
                return formulas.softmax(node, c)
            case _ if name.startswith("ScaledDotProduct"):
                return formulas.attention(node, c, self.detach)
            case "CopySlices":
                return self._in_place(node, c)
            case _ if name in NATIVE or name == "DDPSink" or name == "_DDPSink":
                return Handed(native(node, c))
        if first is None:
            return Handed([None] * len(edges(node)))
        match name:
            case _ if name in ELEMENTWISE:
                return formulas.elementwise(node, first, ELEMENTWISE[name])
            case "Sigmoid":
                return formulas.sigmoid(node, first)
            case "Tanh":
                return formulas.tanh(node, first)
            case "NativeLayerNorm":
                return formulas.layer_norm(node, first)
            case "FusedRmsNorm":
                return formulas.rms_norm(node, first)
            case "NativeGroupNorm":
                return formulas.group_norm(node, first)
            case _ if name in BATCH_NORMS:
                return formulas.instance_norm(node, first)
            case _ if isinstance(node, _COMPOSED):
                if node.how == "linear":
                    self.forced |= inside(node)
                return Handed(handed(node, first))
        if self.tape.probe and is_homogeneous(node, self.tape.operands.get(node), self._flows):
            return Handed(native(node, c))
        raise self._unsupported(node, name)

    def _by_name(self, node: Node, how: Any, c: list[Tensor | None]) -> Handed:
        """As a user named it: by the name of its node."""
        if how == "linear":
            return Handed(native(node, c))
        if callable(how):
            parts = how(node, *c)
            return Handed(list(parts) if isinstance(parts, tuple) else [parts])
        x = getattr(node, "_saved_self", None)
        y = getattr(node, "_saved_result", None)
        if x is None or y is None:
            raise UnsupportedError(
                f"{node.name()} does not keep both its input and its result, so it cannot be 'elementwise' by its "
                "name; give that of the module or of the function"
            )
        return Handed([None if c[0] is None else c[0] * y / stabilise(x, self.rules.eps)])

    def _in_place(self, node: Node, c: list[Tensor | None]) -> Handed:
        name = self.tape.in_place.get(node)
        others = [i for i in range(1, len(edges(node))) if self._flows(node, i)]
        linear = name in _LINEAR_IN_PLACE or (name in ("mul_", "div_", "__imul__", "__itruediv__") and not others)
        if not linear:
            raise self._unsupported(node, f"{name or 'an operation'} in place on a view")
        return Handed(native(node, c))

    def _unsupported(self, node: Node, name: str) -> UnsupportedError:
        error = UnsupportedError(_WAYS_OUT.get(name) or _words(node, name, self.tape.path_of(node)))
        error.node = node  # type: ignore[attr-defined]  # its source line can be found
        return error

    def _is_factor(self, node: Node, name: str, operand: int) -> bool:
        """Whether an operand without data multiplies; others are added."""
        if name in PRODUCTS:
            return not (name in ADDENDS and operand == 0)
        return name in ("Div", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm", "PreluKernel") and operand <= 1

    def _hand(self, node: Node, operand: int, carried: Carried, *, multiplied: bool = False) -> None:
        below, output = edges(node)[operand]
        if below is None:
            return
        if not self.signal[below]:
            if multiplied:
                self._to_parameter(below, output, carried)
            elif self.account and carried.value is None:
                self._book_added(node, below, output, carried.tensor)
            return
        if not self.wanted[below]:
            return
        tensor = fitted(carried.tensor, below, output)
        if tensor is not carried.tensor and carried.value is not None:
            carried = Carried(fitted(self._per_value(carried), below, output))
        elif tensor is not carried.tensor:
            carried = Carried(tensor)
        known = self.arrived[below].get(output)
        self.arrived[below][output] = carried if known is None else known.plus(carried)

    def _move(self, node: Node, arrived: dict[int, Carried]) -> None:
        """Elements keep their relevance where they move, also one whose value is zero."""
        count = outputs_of(node)
        if any(c.value is None for c in arrived.values()):
            arrived = {i: Carried(self._per_value(c)) for i, c in arrived.items()}
            tensors = [arrived[i].tensor if i in arrived else None for i in range(count)]
            for operand, v in enumerate(native(node, tensors)):
                if v is not None:
                    self._hand(node, operand, Carried(v))
            return
        ones = {i: torch.ones_like(c.tensor) for i, c in arrived.items()}
        values = {i: c.value for i, c in arrived.items()}
        tensors = [arrived[i].tensor if i in arrived else None for i in range(count)]
        moved = native(node, tensors)
        sums = native(node, [values.get(i) for i in range(count)])
        counts = native(node, [ones.get(i) for i in range(count)])
        for operand, (r, v, n) in enumerate(zip(moved, sums, counts, strict=True)):
            if r is not None and v is not None and n is not None:
                self._hand(node, operand, Carried(r, v / n.clamp(min=1)))

    # Weighted operations and their normalisation.

    def _weigh(self, node: Node, carried: Carried, data: int, weight: int, bias_at: int | None) -> None:
        name = kind(node)
        dense = name not in CONVOLUTIONS
        linear = LinearMap(dense=True) if dense else LinearMap.of(node, self.rules.dtype)
        a, w = _operands(node, name)
        wide = torch.promote_types(carried.tensor.dtype, torch.float32)
        a, w = a.detach().to(wide), w.detach().to(wide)
        carried = Carried(carried.tensor.to(wide), None if carried.value is None else carried.value.to(wide))
        path, below, direct = self._weight_behind(node, weight, dense)
        at = self.at.get(path, w) if path is not None and direct else w
        at = at.to(wide)
        bias = None if bias_at is None else parameter(edges(node)[bias_at][0])
        own, statistics = w, None
        if node in self.folded:
            statistics = formulas.batch_statistics(self.folded[node])
            rows = linear.per_row(statistics.scale, w)
            own, at = w * rows, at * rows
            bias = statistics.shift if bias is None else bias * statistics.scale + statistics.shift
        rule = self.rules.dense if dense else self.rules.conv
        behind = edges(node)[data][0]
        is_first = behind is not None and not self.weighted[behind]
        toward = self.rules.first if is_first and self.rules.first is not None else rule
        weight_rule = self.rules.weight or (Epsilon() if isinstance(rule, Flat) else rule)
        hand_on = behind is not None and self.wanted[behind]

        def z() -> Tensor:
            if statistics is not None:
                x = self.folded[node]._saved_input
                return torch.addcmul(per_channel(statistics.shift, x), x, per_channel(statistics.scale, x)).to(wide)
            value, version = self.tape.values.get(node, (None, 0))
            if value is not None and value._version == version:
                return value.to(wide)
            return linear.apply(a, own, bias)

        step = Step(linear, a, own, at, z, carried, bias, self.account)
        if self.account:
            label = self._label(node)
            self.found.outputs[label] = self.found.outputs.get(label, 0.0) + float(step.relevance.sum())
            if hand_on and not isinstance(toward, Flat):
                factors = step.factors(toward)
                self.found.lost[label] = self.found.lost.get(label, 0.0) + step.lost.get(toward, 0.0)
                if bias is not None:
                    self._book_bias(node, linear.per_output(bias, step.z).expand_as(step.z), *factors)
            elif behind is None:  # a table of constants is data, but nobody's input
                given, _ = step.apply(toward, weight_rule)
                assert given is not None
                self._book(node, given.tensor * a if given.value is None else given.tensor)
                if bias is not None:
                    self._book_bias(node, linear.per_output(bias, step.z).expand_as(step.z), *step.factors(toward))
            if bias is None and bias_at is not None and edges(node)[bias_at][0] is not None:
                self._book_added(node, *edges(node)[bias_at], step.carried.per_value(self.rules.eps))
        given, of_weights = step.apply(toward if hand_on else None, weight_rule)
        if direct and path is not None:
            self._add(path, of_weights)
        elif below is not None:
            self._to_parameter(*below, Carried(of_weights.T if dense else of_weights, w.T if dense else w))
        if given is not None:
            self._hand(node, data, given)

    def _weight_behind(self, node: Node, operand: int, dense: bool) -> tuple[str | None, tuple[Node, int] | None, bool]:
        """The name of the weight that is an operand, the operand's edge, and whether it lies there as the layer has it.

        It does where it is the parameter, or computed from one of its shape (a parametrization, a standardisation); a
        dense one is transposed.
        """
        below, output = edges(node)[operand]
        if below is None:
            return None, None, False
        place, transposed = below, False
        while kind(place) in ("T", "ToCopy"):
            transposed ^= kind(place) == "T"
            place = edges(place)[0][0]
        shape = tuple(node._saved_weight.shape if not dense else _operands(node, kind(node))[1].shape)
        if transposed == dense:
            for leaf in leaves(place):
                name = self.tape.names.get(id(leaf))
                if name is not None and tuple(leaf.shape) == shape:
                    return name, (below, output), True
        return None, (below, output), False

    def _to_parameter(self, below: Node, output: int, carried: Carried) -> None:
        """Relevance of an operand without data, to the parameter whose elements it is, if it is one."""
        tensor = fitted(carried.tensor, below, output)
        relevance = carried.value is not None
        arrived: dict[Node, list[Tensor | None]] = {below: _at(tensor, output, below)}
        for node in reversed(ordered(below)):
            c = arrived.pop(node, None)
            if c is None:
                continue
            if kind(node) == "AccumulateGrad":
                name = self.tape.names.get(id(node.variable))
                if name is not None and node.variable.dim() >= 2 and c[0] is not None:
                    at = self.at.get(name, node.variable.detach())
                    self._add(name, c[0] if relevance else c[0] * at)
                continue
            if kind(node) not in MOVES and kind(node) not in ("Expand", "Repeat"):
                return
            for (further, index), v in zip(edges(node), native(node, c), strict=False):
                if further is not None and v is not None:
                    v = fitted(v, further, index)
                    known = arrived.setdefault(further, _at(None, index, further))
                    before = known[index]
                    known[index] = v if before is None else before + v

    def _add(self, name: str, relevance: Tensor) -> None:
        known = self.found.weights.get(name)
        self.found.weights[name] = relevance if known is None else known + relevance

    def _norm(self, node: Node, carried: Carried) -> None:
        if self.rules.norm == "fold" and self._folds(node):
            behind, _ = edges(node)[0]
            self.folded[behind] = node
            self.arrived[behind][0] = carried  # per value of the normalisation's output
            return
        x, found = node._saved_input, formulas.batch_statistics(node)
        scale, shift = per_channel(found.scale, x), per_channel(found.shift, x)
        if self.rules.norm == "fold":  # a layer of its own, with one contribution to each output
            c = self._per_value(carried)
            if self.account:
                self._book(node, c * shift)
            self._hand(node, 0, Carried(c * scale))
            return
        contribution = x * scale
        z = contribution + shift
        relevance = carried.tensor * z if carried.value is None else carried.tensor
        if isinstance(self.rules.norm, Rule):
            positive, negative = contribution.clamp(min=0), contribution.clamp(max=0)
            sums = positive + shift.clamp(min=0), negative + shift.clamp(max=0)
            if self.account and (stranded := self.rules.norm.stranded(*sums)) is not None:
                label = self._label(node)
                self.found.lost[label] = self.found.lost.get(label, 0.0) + float(relevance[stranded].sum())
            plus, minus = self.rules.norm.factors(relevance, z, *sums)
            self._book_bias(node, shift.expand_as(z), plus, minus)
            relevance = torch.zeros_like(relevance)
            if plus is not None:
                relevance.addcmul_(positive, plus)
            if minus is not None:
                relevance.addcmul_(negative, minus)
        elif self.account:  # what is zero cannot have relevance
            label = self._label(node)
            self.found.lost[label] = self.found.lost.get(label, 0.0) + float(relevance[x == 0].sum())
        self._hand(node, 0, Carried(relevance, x.detach()))

    def _folds(self, node: Node) -> bool:
        """Whether a batch normalisation's channels are the outputs of the layer before it, and of nothing else."""
        behind = edges(node)[0][0]
        if behind is None or self.uses[behind] != 1 or not self.signal[behind]:
            return False
        return _weighted_operands(behind, kind(behind), self._flows) is not None

    # The books that conservation is checked with, and what comes out.

    def _label(self, node: Node) -> str:
        return self.tape.path_of(node) or node.name()

    def _book(self, node: Node, constant: Tensor | float) -> None:
        total = float(constant.sum()) if isinstance(constant, Tensor) else constant
        if total:
            label = self._label(node)
            self.found.biases[label] = self.found.biases.get(label, 0.0) + total

    def _book_bias(self, node: Node, bias: Tensor, plus: Tensor | None, minus: Tensor | None) -> None:
        if not self.account:
            return
        if plus is not None:
            self._book(node, bias.clamp(min=0) * plus)
        if minus is not None:
            self._book(node, bias.clamp(max=0) * minus)

    def _book_added(self, node: Node, below: Node, output: int, c: Tensor) -> None:
        """An addend that is made of parameters, linearly: the sum of its relevance is that of theirs."""
        arrived = {below: _at(fitted(c, below, output), output, below)}
        for place in reversed(ordered(below)):
            given = arrived.pop(place, None)
            if given is None:
                continue
            if kind(place) == "AccumulateGrad":
                assert given[0] is not None
                self._book(node, given[0] * place.variable.detach())
                continue
            for (further, index), v in zip(edges(place), native(place, given), strict=False):
                if further is not None and v is not None:
                    v = fitted(v, further, index)
                    known = arrived.setdefault(further, _at(None, index, further))
                    before = known[index]
                    known[index] = v if before is None else before + v

    def _source(self, place: int, carried: Carried, value: Tensor) -> None:
        if self.inputs:
            relevance = carried.tensor * value.detach() if carried.value is None else carried.tensor
            known = self.sources.get(place)
            self.sources[place] = relevance if known is None else known + relevance

    def _embedding(self, node: Node, carried: Carried) -> None:
        """Where indices become data: a dense layer of one-hot inputs. Indices that are no input are a constant."""
        c, indices = self._per_value(carried), node._saved_indices
        place = next((i for i, given in self.tape.indices.items() if _same(given, indices)), None)
        table = parameter(edges(node)[0][0])
        (gradient,) = native(node, [c])
        assert gradient is not None
        self._to_parameter(*edges(node)[0], Carried(gradient))
        if self.inputs and table is not None and place is not None:
            relevance = (c * table[indices]).sum(-1)
            known = self.sources.get(place)
            self.sources[place] = relevance if known is None else known + relevance
        elif self.account:
            self._book_added(node, *edges(node)[0], gradient)

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


_LINEAR_IN_PLACE = kinds(
    "copy_ __setitem__ add_ sub_ __iadd__ __isub__ zero_ fill_ masked_fill_ index_put_ relu_ index_add_ neg_"
)
_COMPOSED: Any = Composed._backward_cls
_CALL = "call the nn.LSTM or nn.GRU module itself, or disable torch.backends.mkldnn and torch.backends.cudnn around it"
_WAYS_OUT = {
    "CompiledFunction": "relevance cannot look into a compiled region: call it on the network before torch.compile, or "
    "on network._orig_mod",
    "CheckpointFunction": "relevance cannot look into a checkpoint that runs its block anew under its own graph: give "
    "torch.utils.checkpoint.checkpoint use_reentrant=False",
    "MkldnnRnnLayer": f"relevance cannot look into a recurrent network that ran as one fused operation: {_CALL}",
    "CudnnRnn": f"relevance cannot look into a recurrent network that ran as one fused operation: {_CALL}",
}


def _words(node: Node, name: str, path: str) -> str:
    where = f" in {path}" if path else ""
    return (
        f"no relevance rule for the operation {node.name()}{where}; say what it is by operations={{{name!r}: 'linear' "
        "| 'elementwise' | 'scale' | a function}, by this name, by its function (torch.exp) or by its module's class, "
        "or let probe=True find out whether it is homogeneous"
    )


def _outputs(node: Node, arrived: Mapping[int, Carried]) -> int:
    return outputs_of(node) if hasattr(node, "_input_metadata") else max(arrived) + 1


def _at(tensor: Tensor | None, output: int, node: Node) -> list[Tensor | None]:
    """One place per output of a node, with ``tensor`` in one of them."""
    count = outputs_of(node) if kind(node) != "AccumulateGrad" and hasattr(node, "_input_metadata") else output + 1
    return [tensor if i == output else None for i in range(count)]


def _is_instance_norm(node: Node) -> bool:
    before = edges(node)[0][0]
    single = len(node._saved_input) == 1 and bool(getattr(node, "_saved_training", True))
    return single and before is not None and kind(before) in ("View", "ReshapeAlias", "UnsafeView")


def _same(given: Tensor, indices: Tensor) -> bool:
    """Whether these indices are the ones that the network was given, as they are or with their shape changed."""
    return given.data_ptr() == indices.data_ptr() or (given.shape == indices.shape and torch.equal(given, indices))


def _reads_constants(node: Node, name: str) -> bool:
    """Whether a layer's input is no operand that a gradient goes to, such as a table of positions: it is data, too."""
    if name in CONVOLUTIONS:
        return edges(node)[0][0] is None
    return name in ("Mm", "Addmm", "Bmm") and edges(node)[name == "Addmm"][0] is None


def _weighted_operands(node: Node, name: str, flows: Callable[[Node, int], bool]) -> tuple[int, int, int | None] | None:
    """Which operand of a linear operation is data, which one the weight, and which one the bias; or ``None``.

    Products of two tensors that carry data are no layers, nor is one whose data comes second.
    """
    if name in CONVOLUTIONS:
        return (0, 1, 2) if not flows(node, 1) and node._saved_input is not None else None
    if name not in ("Mm", "Addmm"):
        return None
    first = 1 if name == "Addmm" else 0
    if flows(node, first + 1) or not (flows(node, first) or edges(node)[first][0] is None):
        return None
    if name == "Addmm" and (node._saved_alpha != 1 or node._saved_beta != 1 or flows(node, 0)):
        return None
    a, w = (node._saved_mat1, node._saved_mat2) if name == "Addmm" else (node._saved_self, node._saved_mat2)
    if a is None or w is None:  # a constant multiplies: autograd keeps one of the two
        return None
    return first, first + 1, 0 if name == "Addmm" else None


def _operands(node: Node, name: str) -> tuple[Tensor, Tensor]:
    """Data and weight of a linear operation; a dense weight as ``[out, in]``."""
    if name in CONVOLUTIONS:
        return node._saved_input, node._saved_weight
    a = node._saved_mat1 if name == "Addmm" else node._saved_self
    return a, node._saved_mat2.T
