"""The backward pass of relevance: a walk over the autograd graph of an ordinary forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from fewbits.errors import NonFiniteError, UnsupportedError
from fewbits.measure.relevance import _formulas as formulas
from fewbits.measure.relevance._books import Books
from fewbits.measure.relevance._handing import Handing
from fewbits.measure.relevance._linear import LinearMap
from fewbits.measure.relevance._nodes import (
    BATCH_NORMS,
    CONVOLUTIONS,
    MOVES,
    Node,
    edges,
    fitted,
    kind,
    leaves,
    native,
    ordered,
    outputs_of,
    parameter,
    per_channel,
    to_leaves,
)
from fewbits.measure.relevance._operands import (
    is_instance_norm,
    operands_of,
    same_indices,
    weighted_operands,
)
from fewbits.measure.relevance._propagated import Propagated
from fewbits.measure.relevance._rules import Epsilon, Flat, Rule, Rules
from fewbits.measure.relevance._signals import Signals
from fewbits.measure.relevance._step import Carried, Step
from fewbits.measure.relevance._tape import Tape
from fewbits.measure.relevance._unknown import NoRuleError
from fewbits.weights import layers


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
        RecipeError: an operation was named that is no node of this network.
        NonFiniteError: relevance overflowed; the message names the layer.
    """
    if outputs.grad_fn is None:
        raise UnsupportedError(
            "the network's outputs have no autograd graph, which relevance goes through; run the network without "
            "torch.no_grad() or torch.inference_mode()"
        )
    with torch.no_grad():
        return _Walk(ordered(outputs.grad_fn), tape, rules, at or {}, inputs, account).run(outputs, start)


class _Walk:
    def __init__(
        self, order: list[Node], tape: Tape, rules: Rules, at: Mapping[str, Tensor], inputs: bool, account: bool
    ) -> None:
        self.order = order
        self.tape, self.rules, self.at = tape, rules, at
        self.inputs, self.account = inputs, account
        self.found, self.books = Propagated(), Books(tape)
        self.signals = Signals(order, tape, detach=rules.attention == "detach", inputs=inputs or account)
        self.handing = Handing(tape, rules, self.signals.flows)
        self.folded: dict[Node, Node] = {}  # weighted operation -> its batch normalisation
        self.arrived: dict[Node, dict[int, Carried]] = defaultdict(dict)
        self.sources: dict[int, Tensor] = {}  # relevance of inputs, by their place among what the network is given

    def run(self, outputs: Tensor, start: Tensor) -> Propagated:
        assert outputs.grad_fn is not None
        if (scale := self.signals.scaled(outputs.grad_fn)) is not None:
            raise self._is_scale(scale)
        if not self.signals.carries(outputs.grad_fn):
            raise UnsupportedError("the outputs do not depend on the inputs: nothing but parameters leads to them")
        self.arrived[outputs.grad_fn][outputs.output_nr] = Carried(start.to(outputs.dtype), outputs.detach())
        for node in reversed(self.order):
            arrived = self.arrived.pop(node, None)
            if arrived is None:
                continue
            try:
                self._step(node, arrived)
            except NoRuleError as error:
                error.place = [n for n in self.order if kind(n) == kind(error.node)].index(error.node)
                raise
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
                where = self.tape.path_of(node)
                raise UnsupportedError(
                    f"what {node.name()}{f' in {where}' if where else ''} read is overwritten in place later, which no "
                    "gradient survives either; write it out of place"
                ) from error
        self.found.biases, self.found.lost, self.found.outputs = self.books.biases, self.books.lost, self.books.outputs
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

    def _is_scale(self, scale: Node) -> UnsupportedError:
        return self.handing.unsupported(scale, kind(scale))

    # One node.

    def _step(self, node: Node, arrived: dict[int, Carried]) -> None:
        name = kind(node)
        if node in self.tape.sources:
            self._source(self.tape.sources[node][0], arrived[0], self.tape.sources[node][1])
            return
        if name == "Embedding":
            self._embedding(node, arrived[0])
            return
        if name == "EmbeddingBag":
            self._bag(node, arrived[0])
            return
        if name in MOVES and node not in self.handing.forced and any(c.value is not None for c in arrived.values()):
            self._move(node, arrived)
            return
        operation = weighted_operands(node, name, self.signals.flows)
        if operation is not None and node not in self.handing.forced:
            self._weigh(node, arrived[0], *operation)
            return
        if name in BATCH_NORMS and not is_instance_norm(node):
            self._norm(node, arrived[0])
            return
        c = [self._per_value(arrived[i]) if i in arrived else None for i in range(_outputs(node, arrived))]
        given = self.handing.of(node, name, c)
        addends = self.tape.addends.get(node, ()) if self.account else ()
        for operand, v in enumerate(given.operands):
            if v is None:
                continue
            if addends and not self.signals.flows(node, operand):
                if scale := self.signals.scale(node, operand):
                    raise self._is_scale(scale)
            else:
                self._hand(node, operand, Carried(v), multiplied=self.handing.is_factor(node, name, operand))
        if self.account:
            self.books.constant(node, given.constant)
            for operand, value in enumerate(addends):
                assert c[0] is not None
                if operand >= len(given.operands) or not self.signals.flows(node, operand):
                    self.books.constant(node, c[0] * value)

    def _per_value(self, carried: Carried) -> Tensor:
        return carried.per_value(self.rules.eps)

    def _hand(self, node: Node, operand: int, carried: Carried, *, multiplied: bool = False) -> None:
        below, output = edges(node)[operand]
        if below is None:
            return
        if not self.signals.flows(node, operand):
            if not multiplied and (scale := self.signals.scale(node, operand)):
                raise self._is_scale(scale)  # not a factor: relevance would be lost there
            if multiplied:
                self._to_parameter(below, output, carried)
            elif self.account and carried.value is None:
                self.books.addend(node, below, output, carried.tensor)
            return
        if not self.signals.wanted(below):
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
        a, w = operands_of(node, name)
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
        is_first = behind is not None and not self.signals.weighted(behind)
        toward = self.rules.first if is_first and self.rules.first is not None else rule
        weight_rule = self.rules.weight or (Epsilon() if isinstance(rule, Flat) else rule)
        hand_on = behind is not None and self.signals.wanted(behind)

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
            self.books.add(self.books.outputs, node, step.relevance)
            if hand_on and not isinstance(toward, Flat):
                factors = step.factors(toward)
                self.books.add(self.books.lost, node, step.lost.get(toward, 0.0))
                if bias is not None:
                    self.books.bias(node, linear.per_output(bias, step.z).expand_as(step.z), *factors)
            elif behind is None:  # a table of constants is data, but nobody's input
                given, _ = step.apply(toward, weight_rule)
                assert given is not None
                self.books.constant(node, given.tensor * a if given.value is None else given.tensor)
                if bias is not None:
                    self.books.bias(node, linear.per_output(bias, step.z).expand_as(step.z), *step.factors(toward))
            if bias is None and bias_at is not None and edges(node)[bias_at][0] is not None:
                self.books.addend(node, *edges(node)[bias_at], step.carried.per_value(self.rules.eps))
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
        shape = tuple(node._saved_weight.shape if not dense else operands_of(node, kind(node))[1].shape)
        if transposed == dense:
            for leaf in leaves(place):
                name = self.tape.names.get(id(leaf))
                if name is not None and tuple(leaf.shape) == shape:
                    return name, (below, output), True
        return None, (below, output), False

    def _to_parameter(self, below: Node, output: int, carried: Carried) -> None:
        """Relevance of an operand without data, to the parameter whose elements it is, if it is one."""
        for variable, tensor in to_leaves(below, output, carried.tensor, MOVES | {"Expand", "Repeat"}):
            name = self.tape.names.get(id(variable))
            if name is not None and variable.dim() >= 2:
                at = self.at.get(name, variable.detach())
                self._add(name, tensor * at if carried.value is None else tensor)

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
                self.books.constant(node, c * shift)
            self._hand(node, 0, Carried(c * scale))
            return
        contribution = x * scale
        z = contribution + shift
        relevance = carried.tensor * z if carried.value is None else carried.tensor
        if isinstance(self.rules.norm, Rule):
            positive, negative = contribution.clamp(min=0), contribution.clamp(max=0)
            sums = positive + shift.clamp(min=0), negative + shift.clamp(max=0)
            if self.account and (stranded := self.rules.norm.stranded(*sums)) is not None:
                self.books.add(self.books.lost, node, relevance[stranded])
            plus, minus = self.rules.norm.factors(relevance, z, *sums)
            if self.account:
                self.books.bias(node, shift.expand_as(z), plus, minus)
            relevance = torch.zeros_like(relevance)
            if plus is not None:
                relevance.addcmul_(positive, plus)
            if minus is not None:
                relevance.addcmul_(negative, minus)
        elif self.account:  # what is zero cannot have relevance
            self.books.add(self.books.lost, node, relevance[x == 0])
        self._hand(node, 0, Carried(relevance, x.detach()))

    def _folds(self, node: Node) -> bool:
        """Whether a batch normalisation's channels are the outputs of the layer before it, and of nothing else."""
        behind = edges(node)[0][0]
        if behind is None or self.signals.uses[behind] != 1 or not self.signals.carries(behind):
            return False
        return weighted_operands(behind, kind(behind), self.signals.flows) is not None

    # What comes out.

    def _source(self, place: int, carried: Carried, value: Tensor) -> None:
        if self.inputs:
            relevance = carried.tensor * value.detach() if carried.value is None else carried.tensor
            known = self.sources.get(place)
            self.sources[place] = relevance if known is None else known + relevance

    def _embedding(self, node: Node, carried: Carried) -> None:
        """Where indices become data: a dense layer of one-hot inputs. Indices that are no input are a constant."""
        c, indices = self._per_value(carried), node._saved_indices
        place = next((i for i, given in self.tape.indices.items() if same_indices(given, indices)), None)
        table = parameter(edges(node)[0][0])
        (gradient,) = native(node, [c])
        assert gradient is not None
        gradient = _dense(gradient)
        self._to_parameter(*edges(node)[0], Carried(gradient))
        if self.inputs and table is not None and place is not None:
            relevance = (c * table[indices]).sum(-1)
            known = self.sources.get(place)
            self.sources[place] = relevance if known is None else known + relevance
        elif self.account:
            self.books.addend(node, *edges(node)[0], gradient)

    def _bag(self, node: Node, carried: Carried) -> None:
        """Sums of embeddings; weights per sample are data like an input, the indices alone are a constant."""
        to_table, *others = native(node, [self._per_value(carried), *[None] * (outputs_of(node) - 1)])
        assert to_table is not None
        self._to_parameter(*edges(node)[0], Carried(_dense(to_table)))
        data = {i: v for i, v in enumerate(others, 1) if v is not None and self.signals.flows(node, i)}
        for operand, v in data.items():
            self._hand(node, operand, Carried(v))
        if self.account and not data:
            self.books.addend(node, *edges(node)[0], _dense(to_table))

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


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _outputs(node: Node, arrived: Mapping[int, Carried]) -> int:
    return outputs_of(node) if hasattr(node, "_input_metadata") else max(arrived) + 1
