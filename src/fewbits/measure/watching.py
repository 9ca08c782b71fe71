"""Scorers that watch what goes into layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewbits.errors import UnsupportedError
from fewbits.measure._scores import Scores
from fewbits.measure.scorer import Scorer, TrainingStep
from fewbits.weights import WEIGHTED, aliases, is_turned

_PLAIN = {kind.forward for kind in (*WEIGHTED, nn.Embedding)}
_READS = (F.linear, F.embedding, torch.embedding, F.conv1d, F.conv2d, F.conv3d)


class LayerScorer(Scorer):
    """A scorer of linear layers, convolutions and embeddings by what they compute with.

    A weight that several layers share, or a layer that runs more than once, has the sum over all uses. A layer with a
    forward of its own need not compute with what it is given: of it the operation inside is watched.

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
        own = {layer for _, layer in self._layers if not (is_turned(layer) or type(layer).forward in _PLAIN)}
        inside = _Inside(self.see)
        with ExitStack() as stack:
            for name, layer in self._layers:
                if layer not in own:
                    hook = layer.register_forward_hook(partial(self._look, name), with_kwargs=True)
                    stack.callback(hook.remove)
                if own:
                    enter = partial(inside.enter, name if layer in own else None)
                    stack.callback(layer.register_forward_pre_hook(enter).remove)
                    stack.callback(layer.register_forward_hook(inside.leave, always_call=True).remove)
            if own:
                stack.enter_context(inside)
            yield

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
                    f"{name}: its layer was not called, or computes in a way of its own, so nothing is known of its "
                    "inputs; leave it out (select.exclude), or take another measure"
                )
            found[name] = score
        return found


class _Inside(TorchFunctionMode):
    """Sees the operation that a layer with a forward of its own computes by."""

    def __init__(self, see: Callable[[str, nn.Module, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.see = see
        self.layers: list[tuple[str | None, nn.Module]] = []  # that run, inner ones last; no name: of another forward

    def enter(self, name: str | None, layer: nn.Module, inputs: Any) -> None:
        self.layers.append((name, layer))

    def leave(self, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        self.layers.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.layers and func in _READS:
            name, layer = self.layers[-1]
            if name is not None:
                self.see(name, layer, args[0] if args else kwargs["input"], output)
        return output
