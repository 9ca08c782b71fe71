"""Scorers that watch what goes into layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.measure._scores import Scores
from fewbits.measure.scorer import Scorer, TrainingStep
from fewbits.weights import WEIGHTED, aliases, is_turned


class LayerScorer(Scorer):
    """A scorer of linear layers, convolutions and embeddings by what they compute with.

    A weight that several layers share, or a layer that runs more than once, has the sum over all uses.

    Args:
        model: the network that computes, plain or with a plan attached.
    """

    measured: str
    """What an error says of the scores: "norms of inputs are known"."""

    def __init__(self, model: nn.Module) -> None:
        first = aliases(model)
        self._layers: list[tuple[str, nn.Module]] = []
        for path, layer in model.named_modules():
            if isinstance(layer, (*WEIGHTED, nn.Embedding)) or is_turned(layer):
                name = f"{path}.weight".lstrip(".")
                self._layers.append((first.get(name, name), layer))

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.forget()
        hooks = [
            layer.register_forward_hook(partial(self._look, name), with_kwargs=True) for name, layer in self._layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _look(
        self, name: str, layer: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], outputs: Any
    ) -> None:
        self.see(name, layer, inputs[0] if inputs else next(iter(named.values())), outputs)

    @abstractmethod
    def forget(self) -> None:
        """Begin a forward pass with nothing seen."""

    @abstractmethod
    def see(self, name: str, layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        """One call of a layer, whose weight has this name."""

    @abstractmethod
    def score(self, name: str, weight: Tensor) -> Tensor | None:
        """Of the weight's shape; ``None`` if no layer that has it was seen."""

    def scores(self, step: TrainingStep) -> Scores:
        """One score per selected weight.

        Raises:
            UnsupportedError: a weight of another kind of layer, or of one that did not run.
        """
        known, found = {name for name, _ in self._layers}, {}
        for name, weight in step.weights.items():
            if name not in known:
                raise UnsupportedError(
                    f"{name}: {self.measured} for linear and convolutional layers, and embeddings; leave it out "
                    "(select.exclude), or take another measure"
                )
            score = self.score(name, weight.detach())
            if score is None:
                raise UnsupportedError(
                    f"{name}: its layer was not called, so nothing is known of its inputs; leave it out "
                    "(select.exclude), or take another measure"
                )
            found[name] = score
        return found
