"""How large a weight's inputs are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewbits.measure.watching import LayerScorer
from fewbits.weights import WEIGHTED, is_turned


class InputScorer(LayerScorer):
    """L2 norm of each weight's input over the batch (and over places, of a convolution), of the weight's shape.

    What Wanda multiplies magnitudes with (arXiv 2306.11695, eq. 1); in float32. A weight that is used more than once
    has the norm over all its uses. An embedding has one-hot inputs: the square is how often a row was asked for.
    """

    measured = "norms of inputs are known"

    def forget(self) -> None:
        self._squares: dict[str, Tensor] = {}  # that can be expanded to the weight's first two dimensions

    @torch.no_grad()
    def see(self, name: str, layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        if isinstance(layer, nn.Embedding):
            squares = torch.bincount(inputs.flatten(), minlength=layer.num_embeddings).float().view(-1, 1)
        else:
            x = inputs.detach().float()
            features = x.dim() - 1 - (len(layer.kernel_size) if isinstance(layer, WEIGHTED[1:]) else 0)
            squares = x.movedim(features, 0).reshape(x.shape[features], -1).square().sum(1)
            squares = squares.view(-1, 1) if is_turned(layer) else squares.view(1, -1)
            groups = getattr(layer, "groups", 1)
            if groups > 1:
                squares = squares.view(groups, -1).repeat_interleave(layer.out_channels // groups, 0)  # type: ignore[operator]
        self._squares[name] = self._squares[name] + squares if name in self._squares else squares

    def score(self, name: str, weight: Tensor) -> Tensor | None:
        if name not in self._squares:
            return None
        norms = self._squares[name].sqrt()
        return norms.view(*norms.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).contiguous()


class WandaScorer(InputScorer):
    """``|w|`` times the norm of its inputs (Wanda), of all layers together."""

    def score(self, name: str, weight: Tensor) -> Tensor | None:
        norms = super().score(name, weight)
        return None if norms is None else weight.abs() * norms
