"""Scores of a training step that is running anyway: what ECQx's assigner is fed with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError
from fewbits.measure._scores import Scores
from fewbits.measure.relevance import How, Rules, Tape, propagate
from fewbits.measure.relevance._first import first_samples
from fewbits.measure.relevance._locate import located
from fewbits.task import Classification, Task


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What a training step has at hand after its backward pass.

    Attributes:
        outputs: of the network. batch: the mini-batch, which only the task reads.
        weights: float background weights.
        gradients: gradients of the loss with respect to the quantized weights.
    """

    outputs: Tensor
    batch: Any
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


class Scorer(ABC):
    """Turns a training step into scores."""

    @property
    def keeps_graph(self) -> bool:
        """Whether the autograd graph of the outputs has to outlive the step's backward pass."""
        return False

    @property
    def watches(self) -> bool:
        """Whether the network has to run inside :meth:`watch`."""
        return self.keeps_graph

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Wraps the forward pass of the step."""
        yield

    @abstractmethod
    def scores(self, step: TrainingStep) -> Scores:
        """One score per selected weight, of the weight's shape."""

    def state(self) -> Tensor | None:
        """What a resumed run needs to go on identically: the random state, if there is one."""
        return None

    def restore(self, state: Tensor | None) -> None:  # noqa: B027 - most have nothing to take up
        """Take up what :meth:`state` gave."""


class RelevanceScorer(Scorer):
    """Relevance of the weights in this very forward pass (training mode, batch statistics included).

    Args:
        model: the network with the plan attached.
        rules: rules per layer type.
        start: relevance of the outputs, see :func:`fewbits.task.start_relevance`.
        on: ``"background"`` takes the relevance on the float weights, so that zeroed weights can come back;
            ``"quantized"`` is the paper's literal reading.
        samples: first samples of the batch to use; ``None`` for the whole batch, as the paper does. They go through the
            network once more, with the statistics of the whole batch.
        task: says where relevance begins; default: classification.
        operations, probe: what unknown operations are, see :func:`fewbits.measure.relevance`.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Rules,
        *,
        start: str = "score",
        on: str = "background",
        samples: int | None = None,
        task: Task | None = None,
        operations: Mapping[Any, How] | None = None,
        probe: bool = False,
    ) -> None:
        if on not in ("background", "quantized"):
            raise RecipeError(f"relevance on {on!r}: it must be 'background' or 'quantized'")
        self._tape, self._samples = Tape(model, operations, probe=probe), samples
        self._rules, self._start, self._on, self._task = rules, start, on, task or Classification()

    @property
    def watches(self) -> bool:
        return True

    @property
    def keeps_graph(self) -> bool:
        return self._samples is None

    @contextmanager
    def watch(self) -> Iterator[None]:
        with self._tape.watch() if self._samples is None else self._tape.glance():
            yield

    def scores(self, step: TrainingStep) -> Scores:
        outputs = step.outputs
        values = outputs.detach() if isinstance(outputs, Tensor) else outputs  # which the task refuses
        begin = self._task.relevance_start(values, step.batch, self._start)
        if self._samples is not None:
            begin, outputs = first_samples(self._tape, begin, outputs, self._samples, self._task.answer)
        at = step.weights if self._on == "background" else None
        with located(self._tape):
            found = propagate(outputs, begin / len(begin), self._rules, self._tape, at=at).weights
        self._tape.clear()
        return {name: found[name] if name in found else torch.zeros_like(w) for name, w in step.weights.items()}
