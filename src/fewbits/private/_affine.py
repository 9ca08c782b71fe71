"""Which operations of torch are affine in one value, sample by sample, whatever their other arguments are."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.weights import NORMS

MODULES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Flatten,
    nn.Unflatten, nn.Fold, nn.Unfold,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
_METHODS = (
    "view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "t", "adjoint", "squeeze", "unsqueeze", "expand", "broadcast_to", "repeat", "tile",
    "repeat_interleave", "mean", "sum", "neg", "negative", "flip", "fliplr", "flipud", "roll", "rot90", "cumsum",
    "diff", "narrow", "select", "index_select", "unfold", "tril", "triu",
)  # fmt: skip
_FUNCTIONS = (
    operator.neg, operator.pos, operator.getitem, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout,
    F.feature_alpha_dropout, F.pad, F.interpolate, F.upsample, F.linear, F.conv1d, F.conv2d, F.conv3d,
    F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.batch_norm, F.pixel_shuffle, F.pixel_unshuffle,
    F.channel_shuffle, F.fold, F.unfold,
    *(getattr(torch, name) for name in _METHODS if hasattr(torch, name)),
)  # fmt: skip
PRODUCTS = (
    operator.matmul, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot,
    "matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__", "__rmatmul__",
)  # fmt: skip
"""Affine in each of their arguments."""
PARTS = (
    torch.chunk, torch.split, torch.tensor_split, torch.unbind, "chunk", "split", "split_with_sizes", "tensor_split",
    "unbind",
)  # fmt: skip
"""Which return several values."""
SAME = ("clone", "detach", "contiguous", "cpu", "double", "float", "requires_grad_", torch.clone)
"""Which change no number (programs compute in float64)."""
SHAPED = (
    torch.zeros_like, torch.ones_like, torch.full_like, "new_zeros", "new_ones", "new_full", "new_tensor", "size",
    "dim", "ndimension",
)  # fmt: skip
"""Which look at a value's shape alone."""
JOINS = (torch.cat, torch.concat, torch.concatenate)
TURNS = ("mT", "T", "mH", "H", "data", "real")
"""Attributes that are values themselves."""


def is_affine(target: Any) -> bool:
    """Whether a module, function or method is affine in its first argument."""
    if isinstance(target, nn.Module):
        own = next((kind for kind in type(target).__mro__ if kind in MODULES), None)
        if own is None or type(target).forward is not own.forward:
            return False
        return not isinstance(target, NORMS) or target.running_mean is not None
    return target in _FUNCTIONS or target in _METHODS


def keeps(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it gives the numbers that it takes."""
    if target in ("to", "type", "type_as"):
        kinds = [one.dtype if isinstance(one, Tensor) else one for one in (*args[1:], *kwargs.values())]
        whole = [one for one in kinds if isinstance(one, torch.dtype) and not one.is_floating_point]
        return not whole and (target == "to" or not any(isinstance(one, str | type) for one in kinds))
    return target in SAME
