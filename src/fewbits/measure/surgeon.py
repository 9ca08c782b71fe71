"""What the loss gains when a weight is taken out and all others make up for it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import NonFiniteError
from fewbits.measure.watching import LayerScorer
from fewbits.weights import WEIGHTED, is_turned

DAMPING = 1e-2
"""Added to second moments, relative to their mean."""
MOST = 8192
"""Of more inputs or outputs than this each is taken alone."""
AT_ONCE = 2**24
"""Numbers of a convolution's patches in memory at a time, if one sample has no more."""


class SurgeonScorer(LayerScorer):
    """Optimal Brain Surgeon with Kronecker factors: ``w_ij^2 / (2 [G^-1]_ii [A^-1]_jj)``, of the weight's shape.

    ``w_q^2 / (2 [H^-1]_qq)`` is Hassibi and Stork's saliency (1993). ``H`` is a layer's Fisher matrix as K-FAC has it
    (Martens and Grosse, arXiv 1503.05671; of convolutions, 1602.01407): ``A`` is the second moment of inputs (patches
    of a convolution), ``G`` that of gradients of outputs, with the batch's labels. ``1 / [A^-1]_jj`` is what the other
    inputs do not explain of input ``j``. Scores of layers compare, up to a factor that all of them share.

    Both have ``DAMPING`` of their mean diagonal added. One-hot inputs of an embedding explain nothing of each other,
    and of more than ``MOST`` inputs or outputs the same is assumed. Computed from one batch, in float32.
    """

    measured = "second moments are known"

    def forget(self) -> None:
        self._seen: dict[str, list[_Moments]] = {}

    def see(self, name: str, layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        if not (torch.is_grad_enabled() and outputs.requires_grad):
            return
        own = self._seen.setdefault(name, [])
        known = next((moments for moments in own if moments.layer is layer), None)
        if known is None:
            known = _Moments(layer)
            own.append(known)
        known.add_inputs(inputs.detach())
        outputs.register_hook(known.add_gradients)

    def score(self, name: str, weight: Tensor) -> Tensor | None:
        found = [moments for moments in self._seen.get(name, []) if moments.whole]
        if not found:
            return None
        factors = sum(moments.factors(name, weight.shape) for moments in found)
        return weight.float().square() * factors / 2


class _Moments:
    """Second moments of one layer's inputs and of the gradients of its outputs, each ``[groups, d, d]``.

    Those that are kept as diagonals are ``[groups, d]``.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.groups = layer, getattr(layer, "groups", 1)
        self.inputs: Tensor | None = None
        self.gradients: Tensor | None = None
        self.rows = 0

    @property
    def whole(self) -> bool:
        return self.inputs is not None and self.gradients is not None

    @torch.no_grad()
    def add_inputs(self, inputs: Tensor) -> None:
        layer = self.layer
        if isinstance(layer, nn.Embedding):
            self._add(
                torch.bincount(inputs.flatten(), minlength=layer.num_embeddings).float().view(1, -1), inputs.numel()
            )
        elif isinstance(layer, WEIGHTED[1:]):
            for rows in _patches(layer, inputs.float()):
                self._add(_squares(rows), rows.shape[1])
        else:
            rows = _last(inputs.float())
            self._add(_squares(rows), rows.shape[1])

    def _add(self, found: Tensor, rows: int) -> None:
        self.inputs = found if self.inputs is None else self.inputs + found
        self.rows += rows

    @torch.no_grad()
    def add_gradients(self, gradient: Tensor) -> None:
        spatial = len(self.layer.kernel_size) if isinstance(self.layer, WEIGHTED[1:]) else 0
        rows = _last(gradient.float().movedim(gradient.dim() - 1 - spatial, -1))
        found = _squares(rows.view(rows.shape[1], self.groups, -1).transpose(0, 1))
        self.gradients = found if self.gradients is None else self.gradients + found

    def factors(self, name: str, shape: torch.Size) -> Tensor:
        """``1 / ([G^-1]_ii [A^-1]_jj)``, of the weight's shape."""
        assert self.inputs is not None
        assert self.gradients is not None
        a, g = _unexplained(name, self.inputs / max(self.rows, 1)), _unexplained(name, self.gradients)
        turned = isinstance(self.layer, nn.Embedding) or is_turned(self.layer)
        pairs = torch.einsum("gj,gi->gji" if turned else "gj,gi->gij", a, g)
        return pairs.reshape(shape)


def _last(x: Tensor) -> Tensor:
    """``[1, n, features]`` of values whose last dimension is the features."""
    return x.reshape(1, -1, x.shape[-1])


def _patches(layer: Any, x: Tensor) -> Iterator[Tensor]:
    """``[groups, positions, inputs of an output]`` of a convolution, in the order of its weight; a few samples each."""
    kernel = layer.kernel_size
    x = x if x.dim() == len(kernel) + 2 else x[None]
    if any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for place, (size, step, apart) in enumerate(zip(kernel, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + place, apart * (size - 1) + 1, step)[..., ::apart]
    x = x.unflatten(1, (layer.groups, -1)).movedim(1, 0).movedim(2, 2 + len(kernel))
    # Now [groups, n, positions..., channels of a group, kernel...], a view; only parts of it are ever written out.
    inputs = prod(x.shape[2 + len(kernel) :])
    for part in x.split(max(1, AT_ONCE // max(1, x[:, :1].numel())), dim=1):
        yield part.reshape(layer.groups, -1, inputs)


def _squares(rows: Tensor) -> Tensor:
    """Sum over rows of their products; above ``MOST`` of their squares alone."""
    return rows.square().sum(1) if rows.shape[-1] > MOST else rows.transpose(1, 2) @ rows


def _unexplained(name: str, moments: Tensor) -> Tensor:
    """``1 / [M^-1]_jj`` with damping, ``[groups, d]``; zero where all moments are.

    Raises:
        NonFiniteError: moments are not numbers.
    """
    whole = moments.dim() == 3
    mean = (moments.diagonal(dim1=1, dim2=2) if whole else moments).mean(1, keepdim=True)
    if not bool(mean.isfinite().all()):
        raise NonFiniteError(f"{name}: inputs of its layer, or gradients of its outputs, are not finite")
    if not whole:
        return moments + DAMPING * mean
    scale = torch.where(mean > 0, mean, 1.0)  # moments of gradients are often below what float32 squares well
    eye = torch.eye(moments.shape[-1], device=moments.device)
    factor = torch.linalg.cholesky(moments / scale[:, None] + (DAMPING + (mean <= 0).float())[:, None] * eye)
    return mean / torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
