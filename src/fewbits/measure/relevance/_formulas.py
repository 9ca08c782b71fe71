"""Rules of operations without weights, each as its formula.

``c`` is relevance per value: an element ``y`` of an operation's output has relevance ``c y``. A function here takes the
node and the ``c`` of its output, and gives the ``c`` of each operand, and the relevance that constants took.

Sources: attention and normalisation as in AttnLRP (Achtibat et al. 2024, arXiv 2402.05602: products are halved, softmax
by its derivative, layer normalisation with a constant standard deviation); ``detach`` as in Ali et al. 2022
(arXiv 2202.07304), where softmax is a constant, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import UnsupportedError
from fewbits.measure.relevance._nodes import Node, edges, native, near_zero, outputs_of, parameter, per_channel


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
    (limit,) = native(node, [torch.ones_like(x)])
    assert limit is not None
    slope = torch.where(near_zero(x), limit, (f(node, x) - zero) / x)
    return Handed([c * slope], c * zero)


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


def layer_norm(node: Node, c: Tensor) -> Handed:
    """``y = w (x - mean x) r + b`` with a constant ``r``: ``h - mean h`` with ``h = c w r``."""
    x, w, mean, r = node._saved_input, node._saved_weight, node._saved_result1, node._saved_result2
    over = tuple(range(-len(node._saved_normalized_shape), 0))
    lead = tuple(range(x.dim() - len(over)))
    h = c * r if w is None else c * w * r
    return Handed([h - h.mean(over, keepdim=True), (c * (x - mean) * r).sum(lead), c.sum(lead)])


def rms_norm(node: Node, c: Tensor) -> Handed:
    """``y = w x r`` with a constant ``r``: ``c w r``."""
    w, r = node._saved_weight, node._saved_result1
    over = tuple(range(node._saved_input.dim() - (0 if w is None else w.dim())))
    return Handed([c * r if w is None else c * w * r, (c * node._saved_input * r).sum(over)])


def group_norm(node: Node, c: Tensor) -> Handed:
    """As :func:`layer_norm`, over each group of channels."""
    x, w, groups = node._saved_input, node._saved_weight, node._saved_group
    apart = (len(x), groups, -1)
    mean, r = (v.reshape(len(x), groups, 1) for v in (node._saved_result1, node._saved_result2))
    h = (c if w is None else c * per_channel(w, x)).reshape(apart) * r
    normal = ((x.reshape(apart) - mean) * r).reshape(x.shape)
    over = [d for d in range(x.dim()) if d != 1]
    return Handed([(h - h.mean(-1, keepdim=True)).reshape(x.shape), (c * normal).sum(over), c.sum(over)])


class BatchStatistics(NamedTuple):
    """``y = scale x + shift`` per channel, and the parts that it is made of."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    r: Tensor


def batch_statistics(node: Node) -> BatchStatistics:
    """With what a batch normalisation acted: the batch's statistics in training, else the running ones."""
    if getattr(node, "_saved_training", True) or node._saved_running_mean is None:
        mean, r = node._saved_result1, node._saved_result2
    else:
        eps = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
        mean, r = node._saved_running_mean, torch.rsqrt(node._saved_running_var + eps)
    scale = r if node._saved_weight is None else r * node._saved_weight.detach()
    shift, bias = -mean * scale, parameter(edges(node)[2][0])
    return BatchStatistics(scale, shift if bias is None else shift + bias, mean, r)


def instance_norm(node: Node, c: Tensor) -> Handed:
    """Batch normalisation of one sample that stands for many, as torch normalises instances: the mean is data, too."""
    x, found = node._saved_input, batch_statistics(node)
    over = [d for d in range(x.dim()) if d != 1]
    h = c * per_channel(found.scale, x)
    normal = (x - per_channel(found.mean, x)) * per_channel(found.r, x)
    return Handed([h - h.mean(over, keepdim=True), (c * normal).sum(over), c.sum(over)])


def softmax(node: Node, c: Sequence[Tensor | None]) -> Handed:
    """By its derivative, the first term of its Taylor expansion (AttnLRP, eq. 13)."""
    return Handed(native(node, c))


def attention(node: Node, c: Tensor, detach: bool) -> Handed:
    """Fused attention, computed anew from what autograd kept: ``softmax(q k^T scale + mask) v``.

    A quarter each to queries and keys, half to values; with ``detach`` all to values.
    """
    if getattr(node, "_saved_dropout_p", 0.0):
        raise UnsupportedError(
            f"{node.name()} does not keep which of its attention weights were dropped; set the dropout of attention to "
            "0, or run the network under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        )
    bias = "_saved_attn_mask" if hasattr(node, "_saved_attn_mask") else "_saved_attn_bias"
    mask, causal = getattr(node, bias, None), getattr(node, "_saved_is_causal", False)
    with torch.enable_grad():
        q, k, v = (t.detach().requires_grad_() for t in (node._saved_query, node._saved_key, node._saved_value))
        times = q.shape[1] // k.shape[1]  # grouped queries
        keys, values = (t if times == 1 else t.repeat_interleave(times, 1) for t in (k, v))
        logits = q @ keys.transpose(-1, -2) * (node._saved_scale or 1 / math.sqrt(q.shape[-1]))
        if causal:
            seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
            logits = logits.masked_fill(~seen, -math.inf)
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        weights = logits.softmax(-1)
        if detach:
            (to_v,) = torch.autograd.grad(weights.detach() @ values, [v], c)
            parts: list[Tensor | None] = [None, None, to_v]
        else:
            to_q, to_k, to_v = torch.autograd.grad(weights @ values, [q, k, v], c)
            parts = [to_q / 4, to_k / 4, to_v / 2]
    return Handed(parts + [None] * (len(edges(node)) - 3))


def first_of(c: Sequence[Tensor | None], node: Node) -> Tensor | None:
    """The ``c`` of an operation's result; its other outputs (statistics, random numbers) carry none."""
    assert outputs_of(node) >= 1
    return c[0]
