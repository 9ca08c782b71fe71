"""What a network's outputs are for: the seam between the rooms and the outputs that they need not understand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32, send_to_device
from torch import Tensor, nn

from fewbits.errors import DataError, FewbitsError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.task._evaluating import evaluating_in_float32
from fewbits.task._fed import measured_over
from fewbits.task.batches import described, handing, run, run_laid_out, samples_of, tensors_in
from fewbits.task.metric import METRICS, Metric, metric_of, number

Outputs = Any
"""A tensor for the tasks that fewbits knows; with a loss of the user's own whatever the network returns."""

MAIN = ("logits", "out", "last_hidden_state", "prediction", "predictions")
"""Where the outputs are in networks that return several by name."""


class Task:
    """A task with a loss of one's own; the tasks that fewbits knows derive from it.

    Args:
        loss: ``loss(outputs, targets)``, a scalar to be minimised.
        metric: ``metric(outputs, targets)``, a number for one batch, averaged over samples; default: the loss.
        scale: of that metric: ``percent``, ``fraction``, ``loss`` or ``score``. Needed with ``metric``.
        outputs: which of the network's outputs the loss gets: a key, an index, or a function of what the network
            returns; default: all that it returns.
        start: ``start(outputs, targets)``, relevance of the outputs, of their shape; default: their own values.

    Attributes:
        name: in recipes. scale: of :meth:`evaluate`.

    Raises:
        RecipeError: a metric without its scale.
    """

    name = "own"

    def __init__(
        self,
        loss: Callable[[Any, Any], Tensor],
        metric: Callable[[Any, Any], Any] | None = None,
        *,
        scale: str | None = None,
        outputs: str | int | Callable[[Any], Any] | None = None,
        start: Callable[[Any, Any], Tensor] | None = None,
    ) -> None:
        if metric is not None and scale is None:
            raise RecipeError(f"a metric of one's own needs its scale: one of {', '.join(METRICS)}")
        self._loss, self._metric, self._read, self._start = loss, metric, outputs, start
        self.scale: Metric = metric_of(scale or "loss")

    def forward(self, model: nn.Module, batch: Any) -> Outputs:
        """What the task reads of the network's outputs for a batch."""
        return self.answer(run(model, batch[0]))

    def answer(self, returned: Any) -> Outputs:
        """What the task reads of what a network returned."""
        read = self._read
        if read is None:
            return returned
        if callable(read):
            return read(returned)
        return _part(returned, read)

    def check(self, outputs: Outputs, batch: Any) -> None:
        """Raise DataError unless the batch's targets fit the outputs."""

    def loss(self, outputs: Outputs, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """A scalar, to be minimised.

        Raises:
            RecipeError: label smoothing of what are no classes. DataError: the user's function returns no scalar.
        """
        self._unsmoothed(label_smoothing)
        value = _own(self._loss, outputs, batch[1], "loss")
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
            raise DataError(f"the task's loss returned {found}; it has to return a tensor with one number")
        return value.reshape(())

    def imitation(self, outputs: Outputs, answers: Outputs, temperature: float) -> Tensor:
        """How far outputs are from a teacher's: a scalar, on the scale of :meth:`loss`; here mean squares."""
        mine, theirs = list(tensors_in(outputs)), list(tensors_in(answers))
        pairs = [(a, b) for a, b in zip(mine, theirs, strict=False) if a.is_floating_point()]
        if len(mine) != len(theirs) or not pairs or any(a.shape != b.shape for a, b in pairs):
            raise DataError(
                f"the teacher's outputs {_shapes(theirs)} are not of the shapes of the network's own, {_shapes(mine)}"
            )
        return torch.stack([F.mse_loss(a, b) for a, b in pairs]).sum()

    def tally(self, outputs: Outputs, batch: Any) -> Tensor:
        """Numbers of one batch that add up over batches; :meth:`value` makes the metric of their sums."""
        count = samples_of(batch)
        if self._metric is None:
            value = float(self.loss(outputs, batch))
        else:
            value = number(_own(self._metric, outputs, batch[1], "metric"), "the task's metric")
        return torch.tensor([value * count, count], dtype=torch.float64)

    def value(self, total: Tensor) -> float:
        """The metric, from the sums of :meth:`tally`."""
        return float(total[0] / total[1])

    def decisions(self, outputs: Outputs) -> Tensor | None:
        """What outputs decide, to be compared between networks; ``None`` where they are numbers."""
        return None

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> float:
        """The metric on ``scale`` of a network over batches, in evaluation mode.

        Raises:
            DataError: no samples, or targets that do not fit the network.
        """
        total: Tensor | None = None
        with evaluating_in_float32(model) as place:
            data = measured_over(model, batches)
            for batch in data:
                batch = send_to_device(batch, place)
                with handing(model, batch[0], data.place):
                    returned = run_laid_out(model, batch[0])
                with data.naming():
                    outputs = convert_to_fp32(self.answer(returned))
                    self.check(outputs, batch)
                    tally = self.tally(outputs, batch).double().cpu()
                _refuse_nan(outputs, data.place)
                total = tally if total is None else total + tally
        if total is None:
            raise DataError("the evaluation data is empty")
        return self.value(total)

    def relevance_start(self, outputs: Outputs, batch: Any, start: str) -> Tensor:
        """Relevance of the outputs, of their shape, from which layer-wise propagation begins.

        Raises:
            UnsupportedError: outputs that are no tensor.
        """
        if not isinstance(outputs, Tensor):
            raise UnsupportedError(
                f"relevance begins at one tensor of outputs, and the network gives {type(outputs).__name__}: give "
                "Task(outputs=...), or use a method without relevance (assign.method: ecq)"
            )
        return self._plain_start(outputs, start) if self._start is None else self._start(outputs, batch[1])

    def _plain_start(self, outputs: Tensor, start: str) -> Tensor:
        """Of outputs that are no classes: their own values, or ones."""
        if start == "probability":
            raise RecipeError(f"task {self.name}: its outputs have no probability; measure.start is score or ones")
        return outputs.detach() if start == "score" else torch.ones_like(outputs)

    def _unsmoothed(self, label_smoothing: float) -> None:
        if label_smoothing:
            raise RecipeError(f"label_smoothing is for classes; task {self.name} has none: leave it out")


def main_output(returned: Any) -> Tensor:
    """The tensor that a task reads where a network returns several: by name, or the first.

    Raises:
        DataError: no tensor of floats among what the network returned.
    """
    if isinstance(returned, Tensor):
        return returned
    named = returned if isinstance(returned, Mapping) else getattr(returned, "_asdict", dict)()
    for name in MAIN:
        if isinstance(named.get(name), Tensor):
            found: Tensor = named[name]
            return found
    for found in tensors_in(returned):
        if found.is_floating_point():
            return found
    raise DataError(f"the network returns {type(returned).__name__} without a tensor of floats in it")


def _part(returned: Any, key: str | int) -> Any:
    try:
        return getattr(returned, key) if isinstance(key, str) and hasattr(returned, key) else returned[key]
    except (KeyError, IndexError, TypeError):
        known = f" (there are {', '.join(map(str, returned))})" if isinstance(returned, Mapping) else ""
        raise DataError(f"the network's outputs have no {key!r}{known}") from None


def _own(function: Callable[[Any, Any], Any], outputs: Any, targets: Any, word: str) -> Any:
    """What a function of the user's own gives; its error becomes one that says on what."""
    try:
        return function(outputs, targets)
    except (FewbitsError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        found = " ".join(str(error).split())[:300]
        raise DataError(
            f"the task's {word} fails on outputs {described(outputs)} and targets {described(targets)}: "
            f"{type(error).__name__}: {found}"
        ) from error


def _refuse_nan(outputs: Any, place: str) -> None:
    """NonFiniteError where nothing of the outputs is a number; a row of padding may be none."""
    floats = [x for x in tensors_in(outputs) if x.is_floating_point() and x.numel()]
    if floats and all(bool(x.isnan().all()) for x in floats):
        raise NonFiniteError(f"{place}: all outputs of the network are NaN; are its inputs, or the weights, infinite?")


def _shapes(tensors: list[Tensor]) -> str:
    return ", ".join(str(list(t.shape)) for t in tensors) or "none"
