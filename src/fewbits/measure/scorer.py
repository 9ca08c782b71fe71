"""Scores of a training step that is running anyway: what ECQx's assigner is fed with, and its controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError, UnsupportedError, did_you_mean
from fewbits.measure._scores import Scores
from fewbits.measure.relevance import How, Rules, Tape, propagate
from fewbits.measure.relevance._first import first_samples
from fewbits.measure.relevance._locate import located
from fewbits.task import Classification, Task
from fewbits.weights import WEIGHTED, aliases


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


class TaylorScorer(Scorer):
    """``w dL/dw_q`` of the step: signed, like relevance; the assigner takes absolutes after its momentum."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: w.detach() * step.gradients[name] for name, w in step.weights.items()}


class FisherScorer(Scorer):
    """``(dL/dw_q)**2`` of the step's mean gradient."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: step.gradients[name].square() for name in step.weights}


class MagnitudeScorer(Scorer):
    """``|w|`` of the background weights."""

    def scores(self, step: TrainingStep) -> Scores:
        return {name: w.detach().abs() for name, w in step.weights.items()}


class RandomScorer(Scorer):
    """Uniform numbers, drawn anew at every step: the control that knows nothing."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def state(self) -> Tensor | None:
        return self._generator.get_state()

    def restore(self, state: Tensor | None) -> None:
        if state is not None:
            self._generator.set_state(state)

    def scores(self, step: TrainingStep) -> Scores:
        return {name: torch.rand(w.shape, generator=self._generator).to(w.device) for name, w in step.weights.items()}


class InputScorer(Scorer):
    """L2 norm of each weight's input over the batch (and over places, of a convolution), of the weight's shape.

    What Wanda multiplies magnitudes with (arXiv 2306.11695, eq. 1); in float32. A weight that is used more than once
    has the norm over all its uses. An embedding has one-hot inputs: the square is how often a row was asked for.

    Args:
        model: the network that computes, plain or with a plan attached.
    """

    def __init__(self, model: nn.Module) -> None:
        first = aliases(model)
        self._layers: list[tuple[str, nn.Module]] = []
        for path, layer in model.named_modules():
            if isinstance(layer, (*WEIGHTED, nn.Embedding)):
                name = f"{path}.weight".lstrip(".")
                self._layers.append((first.get(name, name), layer))
        self._squares: dict[str, Tensor] = {}  # that can be expanded to the weight's first two dimensions

    @contextmanager
    def watch(self) -> Iterator[None]:
        self._squares = {}
        hooks = [layer.register_forward_pre_hook(partial(self._see, name)) for name, layer in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _see(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(layer, nn.Embedding):
            squares = torch.bincount(inputs[0].flatten(), minlength=layer.num_embeddings).float().view(-1, 1)
        else:
            x = inputs[0].detach().float()
            features = x.dim() - (1 if isinstance(layer, nn.Linear) else len(layer.kernel_size) + 1)  # type: ignore[arg-type]
            squares = x.movedim(features, 0).reshape(x.shape[features], -1).square().sum(1).view(1, -1)
            groups = getattr(layer, "groups", 1)
            if groups > 1:
                squares = squares.view(groups, -1).repeat_interleave(layer.out_channels // groups, 0)  # type: ignore[operator]
        self._squares[name] = self._squares[name] + squares if name in self._squares else squares

    def scores(self, step: TrainingStep) -> Scores:
        found = {}
        for name, weight in step.weights.items():
            if name not in dict(self._layers):
                raise UnsupportedError(
                    f"{name}: norms of inputs are known for linear and convolutional layers, and embeddings; leave it "
                    "out (select.exclude), or take another measure"
                )
            if name not in self._squares:
                raise UnsupportedError(
                    f"{name}: its layer saw no inputs, so there are no norms of them; leave it out of select, or take "
                    "another measure"
                )
            norms = self._squares[name].sqrt()
            found[name] = norms.view(*norms.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).contiguous()
        return found


CONTROLS = ("taylor", "fisher", "magnitude", "random", "inputs")


def control(name: str, seed: int, model: nn.Module | None = None) -> Scorer:
    """A scorer that needs no relevance, by name.

    Args:
        seed: of ``random``. model: the network that computes, for ``inputs``, which watches it.

    Raises:
        RecipeError: no such name.
    """
    match name:
        case "taylor":
            return TaylorScorer()
        case "fisher":
            return FisherScorer()
        case "magnitude":
            return MagnitudeScorer()
        case "random":
            return RandomScorer(seed)
        case "inputs":
            if model is None:
                raise RecipeError("measure inputs watches a network: give control() one")
            return InputScorer(model)
    raise RecipeError(f"no measure named {name!r}{did_you_mean(name, CONTROLS)}")
