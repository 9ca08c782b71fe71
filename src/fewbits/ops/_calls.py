"""Which functions of torch are which operation, and how each of them is called."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Options = dict[str, Any]
Read = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, Options] | None]
"""From the arguments of a call to its tensor and the options of :func:`fewbits.ops.evaluate`; ``None`` for a call that
is no operation of ours."""


def _one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Options]:
    return (args[0] if args else kwargs["input"]), {}


def _reader(names: str, options: Callable[[Options], Options | None]) -> Read:
    """Of a function with these parameters."""
    order = names.split()

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Options] | None:
        given = dict(zip(order, args, strict=False)) | kwargs
        found = options(given)
        x = given.get("input", given.get("self"))
        return None if found is None or not isinstance(x, Tensor) else (x, found)

    return read


def _softmax(given: Options) -> Options | None:
    dim = given.get("dim")
    return {"dim": dim} if isinstance(dim, int) and given["input"].dim() else None


def _layer_norm(given: Options) -> Options:
    shape = given["normalized_shape"]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    found = {"shape": shape, "weight": given.get("weight"), "eps": given.get("eps", 1e-5)}
    return found | {"bias": given.get("bias")}


def _rms_norm(given: Options) -> Options:
    found = _layer_norm(given)
    return {"shape": found["shape"], "weight": found["weight"], "eps": given.get("eps")}


def _gelu(kind: str) -> Read:
    return _reader("input approximate", lambda given: {} if given.get("approximate", "none") == kind else None)


def _calls() -> dict[Any, list[tuple[str, Read]]]:
    found: dict[Any, list[tuple[str, Read]]] = {}

    def add(name: str, read: Read, *functions: Any) -> None:
        for function in functions:
            found.setdefault(function, []).append((name, read))

    for name in ("sigmoid", "tanh", "erf", "exp", "log", "reciprocal", "rsqrt"):
        add(name, _one, getattr(torch, name), getattr(Tensor, name))
        add(name, _one, getattr(torch, f"{name}_"), getattr(Tensor, f"{name}_"))
    add("sigmoid", _one, functional.sigmoid, torch.special.expit)
    add("tanh", _one, functional.tanh)
    add("erf", _one, torch.special.erf)
    add("silu", _one, functional.silu, torch._C._nn.silu, torch._C._nn.silu_)
    for name, kind in (("gelu", "none"), ("gelu_tanh", "tanh")):
        add(name, _gelu(kind), functional.gelu)
    rows = _reader("input dim", _softmax)
    add("softmax", rows, torch.softmax, Tensor.softmax, torch.special.softmax)
    add("softmax", _reader("input dim _stacklevel dtype", _softmax), functional.softmax)
    norm = _reader("input normalized_shape weight bias eps", _layer_norm)
    add("layer_norm", norm, functional.layer_norm, torch.layer_norm)
    add("rms_norm", _reader("input normalized_shape weight eps", _rms_norm), functional.rms_norm, torch.rms_norm)
    return found


CALLS = _calls()
"""For each function, the operations that a call of it may be."""
ATTENTION = functional.scaled_dot_product_attention
HEADS = functional.multi_head_attention_forward


def called(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Any, Options] | None:
    """Operation, tensor and options of a call; ``None`` where it is none of ours."""
    for name, read in CALLS.get(function, ()):
        found = read(args, kwargs)
        if found is not None:
            return name, *found
    return None


def attention(
    softmax: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` as its documentation writes it, with a softmax that can be another one."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    scores = query @ key.transpose(-2, -1) * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        else:
            scores = scores + attn_mask
    share = softmax(scores, -1)
    if dropout_p > 0:
        share = functional.dropout(share, dropout_p)
    return share @ value


def heads(softmax: Callable[..., Tensor], fused: Callable[..., Tensor]) -> Callable[..., Any]:
    """``multi_head_attention_forward`` itself, but its softmax and its fused attention are others.

    It is torch's own code with other globals: a mode does not see what a function of torch calls inside.
    """
    own = dict(vars(functional)) | {
        "softmax": softmax,
        "scaled_dot_product_attention": fused,
        "has_torch_function": lambda tensors: False,
    }
    code = inspect.unwrap(HEADS)
    made = types.FunctionType(code.__code__, own, code.__name__, code.__defaults__, code.__closure__)
    made.__kwdefaults__ = code.__kwdefaults__
    return made
