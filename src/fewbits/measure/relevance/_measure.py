"""Relevance of every weight (and input) of a network over batches of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError, MismatchError, RecipeError, did_you_mean
from fewbits.measure.relevance._composed import How
from fewbits.measure.relevance._locate import located
from fewbits.measure.relevance._propagate import propagate
from fewbits.measure.relevance._rules import COMPOSITES, Rules
from fewbits.measure.relevance._tape import Tape
from fewbits.task import Classification, Task, handing, measured_over, samples_in
from fewbits.weights import places


@dataclass(frozen=True, eq=False)
class Relevance:
    """Relevance over a set of samples.

    Attributes:
        weights: ``{"path.weight": tensor}``, signed, mean over samples of the relevance of each weight.
        inputs: relevance of the inputs of the last batch, shape of the batch, or ``None``.
        samples: number of samples seen.
    """

    weights: dict[str, Tensor]
    inputs: Tensor | None
    samples: int


def rules_of(rules: Rules | str) -> Rules:
    """Rules by name (see ``COMPOSITES``) or as given."""
    if isinstance(rules, Rules):
        return rules
    if rules not in COMPOSITES:
        raise RecipeError(
            f"no relevance rules named {rules!r}{did_you_mean(rules, COMPOSITES)} ({', '.join(COMPOSITES)})"
        )
    return COMPOSITES[rules]


def relevance(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    rules: Rules | str = "plus",
    start: str = "score",
    at: Mapping[str, Tensor] | None = None,
    inputs: bool = False,
    operations: Mapping[Any, How] | None = None,
    probe: bool = False,
    task: Task | None = None,
) -> Relevance:
    """Layer-wise relevance propagation over batches, in evaluation mode.

    Args:
        model: a network for the task.
        batches: of any kind that :class:`fewbits.task.Feed` splits, such as ``(inputs, targets)`` pairs.
        rules: a :class:`Rules` or the name of a composite.
        start, at, inputs: see :func:`fewbits.task.start_relevance` and :func:`propagate`.
        operations: what operations are that fewbits does not know, or knows otherwise: ``{operation: how}``. The
            operation is a module's class, a function of torch, or the name of either, or of a node of the autograd
            graph (``"ExpBackward0"``). It is ``"linear"`` (relevance per value goes back as a gradient does),
            ``"elementwise"`` (relevance is handed on unchanged), ``"scale"`` (a constant, which gets none), or a
            function: ``f(c, inputs, output)`` gives ``c``, relevance per value, for each input that carries gradients,
            and ``f(node, *c)`` does so for each operand of a node.
        task: what the outputs are for, and so where relevance begins; default: classification.
        probe: whether an unknown operation is tried out: relevance goes through it if ``f(t x) = t f(x)``.

    Raises:
        UnsupportedError: relevance arrives at an operation without a rule; the message names it, its module, its line
            and what can be done. DataError: no samples, or targets that do not fit.
        MismatchError: ``at`` does not fit the network. NonFiniteError: overflow.
    """
    chosen = rules_of(rules)
    for name, tensor in (at or {}).items():
        _check_at(model, name, tensor)
    tape, task = Tape(model, operations, probe=probe), task or Classification()
    place = next(model.parameters()).device
    totals: dict[str, Tensor] = {}
    of_inputs, samples = None, 0
    with evaluating(model):
        data = measured_over(model, batches)
        for batch in data:
            batch = send_to_device(batch, place)
            with handing(model, batch[0], data.place), tape.watch():
                outputs = task.forward(model, batch)
            with data.naming():
                task.check(outputs, batch)
            begin = task.relevance_start(outputs, batch, start)
            with located(tape):
                found = propagate(outputs, begin, chosen, tape, at=at, inputs=inputs)
            tape.clear()
            for name, tensor in found.weights.items():
                totals[name] = totals[name] + tensor if name in totals else tensor
            of_inputs, samples = found.inputs, samples + samples_in(batch[0])
    if samples == 0:
        raise DataError("relevance needs at least one sample; the batches are empty")
    return Relevance({name: total / samples for name, total in totals.items()}, of_inputs, samples)


def _check_at(model: nn.Module, name: str, tensor: Tensor) -> None:
    weights = {place.name: place for own in places(model).values() for place in own}
    if name not in weights:
        raise MismatchError(f"the network has no weight {name!r}{did_you_mean(name, weights)}")
    if tensor.shape != weights[name].tensor.shape:
        raise MismatchError(
            f"{name}: the given weights have shape {tuple(tensor.shape)}, the network's "
            f"{tuple(weights[name].tensor.shape)}"
        )
