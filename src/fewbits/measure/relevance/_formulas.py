"""Rules of operations without weights, each as its formula.

``c`` is relevance per value: an element ``y`` of an operation's output has relevance ``c y``. A function here takes the
node and the ``c`` of its output, and gives the ``c`` of each operand, and the relevance that constants took.

Sources: attention and normalisation as in AttnLRP (Achtibat et al. 2024, arXiv 2402.05602: products are halved, softmax
by its derivative, layer normalisation with a constant standard deviation); ``detach`` as in Ali et al. 2022
(arXiv 2202.07304), where softmax is a constant, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.measure.relevance._nodes import Node, edges, native, near_zero, parameter, per_channel


class Handed(NamedTuple):
    """``c`` of each operand, in the order of the node's edges, and the relevance that a constant took."""

    operands: Sequence[Tensor | None]
    constant: Tensor | float = 0.0


# f(x) of the nodes that keep x. What saturates keeps one side only.
ELEMENTWISE: dict[str, Callable[[Node, Tensor], Tensor]] = {
    "Gelu": lambda n, x: F.gelu(x, approximate=n._saved_approximate),
    "Silu": lambda n, x: F.silu(x),
    "Hardswish": lambda n, x: F.hardswish(x),
    "Mish": lambda n, x: F.mish(x),
    "Elu": lambda n, x: n._saved_scale * F.elu(x, n._saved_alpha),
    "Celu": lambda n, x: F.celu(x, n._saved_alpha),
    "Hardsigmoid": lambda n, x: F.hardsigmoid(x),
    "Hardtanh": lambda n, x: x.clamp(n._saved_min_val, n._saved_max_val),
    "Softplus": lambda n, x: F.softplus(x, n._saved_beta, n._saved_threshold),
    "LogSigmoid": lambda n, x: F.logsigmoid(x),
    "Softshrink": lambda n, x: F.softshrink(x, n._saved_lambd),
    "Hardshrink": lambda n, x: F.hardshrink(x, n._saved_lambd),
    "Clamp": lambda n, x: x.clamp(n._saved_min, n._saved_max),
    "ClampMin": lambda n, x: x.clamp(min=n._saved_min),
    "ClampMax": lambda n, x: x.clamp(max=n._saved_max),
    "Erf": lambda n, x: torch.erf(x),
    "Atan": lambda n, x: torch.atan(x),
}


def elementwise(node: Node, c: Tensor, f: Callable[[Node, Tensor], Tensor]) -> Handed:
    """``c (f(x) - f(0)) / x``: the slope of the line from ``f(0)``, which is a constant."""
    x = node._saved_self
    zero = f(node, x.new_zeros(1))
    x = torch.where(near_zero(x), torch.finfo(x.dtype).eps ** 0.5, x)
    return Handed([f(node, x).sub_(zero).div_(x).mul_(c)], c * zero if bool(zero) else 0.0)


def sigmoid(node: Node, c: Tensor) -> Handed:
    """``c (s - 1/2) / x``: through the origin, where ``s / x`` would have a pole; the half is a constant."""
    s = node._saved_result
    x = torch.logit(s, torch.finfo(s.dtype).eps)
    return Handed([c * torch.where(near_zero(x), s * (1 - s), (s - 0.5) / x)], c * 0.5)


def tanh(node: Node, c: Tensor) -> Handed:
    """``c tanh(x) / x``."""
    y = node._saved_result
    most = 1 - torch.finfo(y.dtype).eps
    x = torch.atanh(y.clamp(-most, most))
    return Handed([c * torch.where(near_zero(x), 1 - y * y, y / x)])


def product(node: Node, c: Sequence[Tensor | None], factors: Sequence[int]) -> Handed:
    """Half to each of two ``factors`` that carry data; all of it to one."""
    share = 1 / max(1, len(factors))
    return Handed([v * share if i in factors and v is not None else v for i, v in enumerate(native(node, c))])


def quotient(node: Node, c: Sequence[Tensor | None], signal: Callable[[int], bool]) -> Handed:
    """All to the numerator; a denominator that carries data only scales."""
    parts = native(node, c)
    return Handed([v if i == 0 or not signal(i) else None for i, v in enumerate(parts)])


def gated(node: Node, c: Sequence[Tensor | None], *, between_data: bool) -> Handed:
    """``y = s + w (e - s)`` with a weight ``w`` that carries data: a sum, and a product that is halved."""
    to_start, to_end, to_weight = native(node, c)
    if not between_data:
        return Handed([c[0], None, to_weight])
    halves = [None if v is None else v / 2 for v in (to_end, to_weight)]
    return Handed([None if to_start is None or c[0] is None else (c[0] + to_start) / 2, *halves])


def glu(node: Node, c: Tensor, detach: bool) -> Handed:
    """``y = a s(b)`` for the halves of ``x``: a product that is halved, of which one factor is a sigmoid."""
    dim = node._saved_dim - (node._saved_dim > 2**63) * 2**64  # unsigned, where it counts from the end
    a, b = node._saved_self.chunk(2, dim)
    s = torch.sigmoid(b)
    if detach:
        return Handed([torch.cat([c * s, torch.zeros_like(c)], dim)])
    slope = torch.where(near_zero(b), s * (1 - s), (s - 0.5) / b)
    return Handed([torch.cat([c * s, c * a * slope], dim) / 2], c * a / 4)


def layer_norm(node: Node, c: Tensor) -> Handed:
    """``y = w (x - mean x) r + b`` with a constant ``r``: ``h - mean h`` with ``h = c w r``; weights get none."""
    x, w, r = node._saved_input, node._saved_weight, node._saved_result2
    over = tuple(range(-len(node._saved_normalized_shape), 0))
    lead = tuple(range(x.dim() - len(over)))
    h = c * r if w is None else c * w * r
    return Handed([h - h.mean(over, keepdim=True), None, c.sum(lead)])


def rms_norm(node: Node, c: Tensor) -> Handed:
    """``y = w x r`` with a constant ``r``: ``c w r``."""
    w, r = node._saved_weight, node._saved_result1
    return Handed([c * r if w is None else c * w * r, None])


def group_norm(node: Node, c: Tensor) -> Handed:
    """As :func:`layer_norm`, over each group of channels."""
    x, w, groups = node._saved_input, node._saved_weight, node._saved_group
    apart = (len(x), groups, -1)
    r = node._saved_result2.reshape(len(x), groups, 1)
    h = (c if w is None else c * per_channel(w, x)).reshape(apart) * r
    over = [d for d in range(x.dim()) if d != 1]
    return Handed([(h - h.mean(-1, keepdim=True)).reshape(x.shape), None, c.sum(over)])


class BatchStatistics(NamedTuple):
    """``y = scale x + shift`` per channel."""

    scale: Tensor
    shift: Tensor


def batch_statistics(node: Node) -> BatchStatistics:
    """With what a batch normalisation acted: the batch's statistics in training, else the running ones."""
    if getattr(node, "_saved_training", True) or node._saved_running_mean is None:
        mean, r = node._saved_result1, node._saved_result2
    else:
        eps = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
        mean, r = node._saved_running_mean, torch.rsqrt(node._saved_running_var + eps)
    scale = r if node._saved_weight is None else r * node._saved_weight.detach()
    shift, bias = -mean * scale, parameter(edges(node)[2][0])
    return BatchStatistics(scale, shift if bias is None else shift + bias)


def instance_norm(node: Node, c: Tensor) -> Handed:
    """Batch normalisation of one sample that stands for many, as torch normalises instances: the mean is data, too."""
    x, found = node._saved_input, batch_statistics(node)
    over = [d for d in range(x.dim()) if d != 1]
    h = c * per_channel(found.scale, x)
    return Handed([h - h.mean(over, keepdim=True), None, c.sum(over)])


def softmax(node: Node, c: Sequence[Tensor | None]) -> Handed:
    """By its derivative, the first term of its Taylor expansion (AttnLRP, eq. 13)."""
    return Handed(native(node, c))


def attention(node: Node, c: Sequence[Tensor | None], detach: bool) -> Handed:
    """Fused attention, ``softmax(q k^T s + mask) v``: of its derivative a quarter to ``q`` and ``k``, half to ``v``.

    So do the product with ``v``, softmax and the product of ``q`` and ``k``, one after the other. With ``detach`` all
    goes to values.
    """
    to_q, to_k, to_v, *rest = native(node, c)
    if detach:
        return Handed([None, None, to_v, *[None] * len(rest)])
    parts = [None if g is None else g * share for g, share in ((to_q, 1 / 4), (to_k, 1 / 4), (to_v, 1 / 2))]
    return Handed([*parts, *[None] * len(rest)])
