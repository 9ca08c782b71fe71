"""Which operations have which rule: functions as themselves, methods by their names."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F

from fewbits.graph.traced import FUNCTIONS, METHODS, Kind

UNARY: set[Any] = {
    *(f for f, kind in FUNCTIONS.items() if kind is Kind.PASS),
    *(m for m, kind in METHODS.items() if kind is Kind.PASS),
    "contiguous", "clone", "detach", "float", "to", "type_as", "abs", "exp", "log", "clamp", "clamp_", "clamp_min",
    "clamp_max", "neg", "sqrt", "rsqrt", "square", "sin", "cos", "erf", "sign", "reciprocal", "logical_not",
    "sigmoid_", "tanh_", "abs_", "neg_", "exp_", "bool", "half", "double", "bfloat16", "round", "floor", "ceil",
    torch.abs, torch.exp, torch.log, torch.clamp, torch.clamp_min, torch.clamp_max, torch.neg, torch.sqrt, torch.rsqrt,
    torch.square, torch.sin, torch.cos, torch.erf, torch.sign, torch.reciprocal, torch.selu, torch.celu, torch.round,
    torch.floor, torch.ceil, operator.neg, operator.pos, operator.abs, F.hardsigmoid, F.mish, F.selu, F.celu,
    F.logsigmoid, F.softsign, F.softshrink, F.hardshrink, F.tanhshrink, F.threshold, F.tanh, F.sigmoid, F.rrelu,
    F.leaky_relu_, F.elu_, F.hardtanh_, F.feature_alpha_dropout,
    torch.zeros_like, torch.ones_like,
}  # fmt: skip
BINARY: set[Any] = {
    operator.add, operator.iadd, torch.add, "add", "add_", operator.sub, operator.isub, torch.sub, "sub", "sub_",
    operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply", operator.truediv,
    operator.itruediv, torch.div, torch.divide, "div", "div_", torch.maximum, torch.minimum, "maximum", "minimum",
    operator.pow, torch.pow, "pow", torch.rsub, "rsub", "fmod", torch.fmod, torch.atan2, "expand_as", torch.subtract,
    operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne, operator.and_, operator.or_,
    torch.gt, torch.ge, torch.lt, torch.le, torch.eq, torch.ne, "gt", "ge", "lt", "le", "eq", "ne", torch.logical_and,
    torch.logical_or, "copysign", torch.copysign,
}  # fmt: skip
TIMES: set[Any] = {operator.mul, torch.mul, torch.multiply, "mul", "multiply"}
DIVIDES: set[Any] = {
    operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_", "fmod", torch.fmod, operator.pow,
    torch.pow, "pow",
}  # fmt: skip
TERNARY: set[Any] = {
    torch.where, torch.lerp, "lerp", torch.addcmul, "addcmul", torch.addcdiv, "addcdiv", "where", "masked_fill",
    torch.masked_fill,
}  # fmt: skip
MATMUL: set[Any] = {torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm"}
SIZED: set[Any] = {"view", "reshape", torch.reshape, "expand"}  # take sizes: those written as numbers cannot change
LIKE: set[Any] = {"reshape_as", "view_as"}  # take the sizes of another tensor
UNFLATTENED: set[Any] = {"unflatten", torch.unflatten}
FREE: set[Any] = {
    torch.flatten, "flatten", "squeeze", "unsqueeze", torch.squeeze, torch.unsqueeze, "permute", torch.permute,
    "transpose", torch.transpose, "t", torch.t, "swapaxes", torch.swapaxes, "swapdims", "movedim", torch.movedim,
    "moveaxis", "flip", torch.flip, "repeat", torch.tile, "tile", F.pixel_unshuffle,
    "repeat_interleave", torch.repeat_interleave,
}  # fmt: skip
REDUCE: set[Any] = {
    "mean", "sum", "amax", "amin", "std", "var", "prod", "logsumexp", "max", "min", "median", "all", "any", torch.mean,
    torch.sum, torch.amax, torch.amin, torch.std, torch.var, torch.prod, torch.logsumexp, torch.max, torch.min,
    torch.median, torch.all, torch.any, "argmax", "argmin", torch.argmax, torch.argmin,
}  # fmt: skip
NORMS: set[Any] = {"norm", torch.norm, torch.linalg.vector_norm}
ALONG: set[Any] = {  # along an axis, which no channel may leave
    F.softmax, torch.softmax, "softmax", F.log_softmax, "log_softmax", torch.log_softmax, F.softmin, "cumsum",
    torch.cumsum, "cumprod", torch.cumprod, F.normalize,
}  # fmt: skip
PICKED: set[Any] = {  # by numbers along an axis
    "narrow", torch.narrow, "select", torch.select, "index_select", torch.index_select, "roll", torch.roll, "unfold",
}  # fmt: skip
SPLIT: set[Any] = {"split", torch.split, "tensor_split", torch.tensor_split}
SPATIAL: set[Any] = {  # channel by channel, channels on axis 1
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.max_pool1d, F.max_pool2d, F.max_pool3d, F.interpolate, F.upsample,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool1d,
    F.adaptive_max_pool2d, F.adaptive_max_pool3d, F.lp_pool1d, F.lp_pool2d, torch.max_pool2d, torch.max_pool1d,
    torch.avg_pool1d, torch.adaptive_avg_pool1d, F.max_pool1d_with_indices, F.max_pool2d_with_indices,
    F.max_pool3d_with_indices, F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d_with_indices,
}  # fmt: skip
JOINS: set[Any] = {torch.cat, torch.concat, torch.concatenate}
STACKS: set[Any] = {torch.stack}
TRANSPOSED = ("T", "mT", "H", "mH")  # attributes
ABOUT = ("ndim", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_nested", "is_sparse", "is_quantized")
RANKS: set[Any] = {"dim", "ndimension", "is_floating_point", torch.is_floating_point}  # whatever the channels are

SIZES: set[Any] = {  # what a size asked of a tensor may go into: rules that know what becomes of it
    *SIZED, *UNFLATTENED, operator.getitem, operator.floordiv, getattr, "size",
}  # fmt: skip
