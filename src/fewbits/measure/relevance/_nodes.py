"""Nodes of the autograd graph: their names, their order, and what each kind of operation does with relevance.

Node names and ``_saved_*`` attributes are half public; ``tests/unit/measure/test_node_names.py`` asserts each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Node = Any  # torch.autograd.graph.Node; nodes of Python functions lack most of its attributes


def kinds(names: str) -> frozenset[str]:
    """Names of operations, between spaces."""
    return frozenset(names.split())


# Linear in what they are given, or homogeneous piece by piece (rectifiers, maxima): relevance per value goes back as a
# gradient does.
NATIVE = kinds("""
    View ReshapeAlias UnsafeView Permute Transpose T Squeeze Unsqueeze Expand Repeat Slice Select Diagonal
    Index IndexSelect Gather Take Cat Stack Split SplitWithSizes UnsafeSplit UnsafeSplitWithSizes Unbind Flip Roll Rot90
    ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D
    Unfold Im2Col Col2Im AsStrided Clone ToCopy Copy Alias Tril Triu Trace
    MaskedFill MaskedSelect MaskedScatter Where IndexPut IndexAdd IndexFill IndexCopy Scatter ScatterAdd SliceScatter
    SelectScatter PixelShuffle PixelUnshuffle ChannelShuffle
    Add Sub Rsub Neg Sum Mean Cumsum Lerp
    AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D
    MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D FractionalMaxPool2D
    Amax Amin Max Min Maximum Minimum Topk Sort Kthvalue Median
    Relu Threshold LeakyRelu RreluWithNoise PreluKernel Abs NativeDropout
    UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D
    UpsampleLinear1D UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D
    GridSampler2D GridSampler3D Embedding EmbeddingBag PackPaddedSequence
    FftR2C FftC2C FftC2R ViewAsReal ViewAsComplex Complex Conj
""")
# Elements are moved, chosen or cast; no two are added to each other, so relevance itself moves as relevance per value.
MOVES = kinds("""
    View ReshapeAlias UnsafeView Permute Transpose T Squeeze Unsqueeze Slice Select Index Gather Cat Stack
    Split SplitWithSizes UnsafeSplit Unbind Flip Roll ConstantPadNd AsStrided Clone ToCopy Alias Diagonal
""")
PRODUCTS = kinds("Mul Mm Bmm Addmm Baddbmm Dot Mv Addmv Addcmul GroupedMm")
ADDENDS = kinds("Addmm Baddbmm Addmv Addcmul")  # products whose first operand is added
# What only scales: a constant, through which no relevance goes (as the square root in a normalisation).
SCALES = kinds("Rsqrt Sqrt Reciprocal Std Var LinalgVectorNorm Norm Sign Round Floor")
WITH_MEANS = kinds("VarMean StdMean")  # a scale first, and the mean, which is linear
GATES = kinds("Softmax LogSoftmax SafeSoftmax Sigmoid Hardsigmoid")  # constants under "detach"
BATCH_NORMS = kinds("NativeBatchNorm CudnnBatchNorm MiopenBatchNorm BatchNormWithUpdate")
CONVOLUTIONS = kinds("Convolution ConvolutionOverrideable MkldnnConvolution CudnnConvolution")
SOURCES = kinds("Embedding EmbeddingBag")  # data enters as indices


def kind(node: Node) -> str:
    """The operation's name: ``"Mm"`` of a ``MmBackward0``."""
    name = node.name().removeprefix("struct ").rpartition("::")[2]
    return str(name.partition("Backward")[0] or name)


def edges(node: Node) -> Sequence[tuple[Node | None, int]]:
    """Which output of which node went into each operand; ``(None, 0)`` where nothing asks for a gradient."""
    return node.next_functions


def ordered(root: Node) -> list[Node]:
    """All nodes that ``root`` depends on, and itself, each after those that it depends on."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((below, False) for below, _ in edges(node) if below is not None and below not in seen)
    return order


def native(node: Node, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """What the operation's own derivative hands to each operand; nothing is freed or accumulated."""
    if hasattr(node, "_input_metadata"):  # a multiplication in mixed precision wants its own type
        gradients = [
            g if g is None or g.dtype == about.dtype else g.to(about.dtype)
            for g, about in zip(gradients, node._input_metadata, strict=False)
        ]
    found = node(*gradients) if callable(node) else node.apply(*gradients)
    parts = list(found) if isinstance(found, tuple) else [found]
    return parts + [None] * (len(edges(node)) - len(parts))


def outputs_of(node: Node) -> int:
    """How many outputs an operation has."""
    return len(node._input_metadata)


def fitted(v: Tensor, below: Node, output: int) -> Tensor:
    """``v`` summed over what was broadcast, as the engine does between nodes."""
    if kind(below) == "AccumulateGrad":
        shape = below.variable.shape
    else:
        shape = below._input_metadata[output].shape
    return v if v.shape == shape else v.sum_to_size(shape)


def parameter(node: Node | None) -> Tensor | None:
    """The parameter that is an operand as it is, or cast or reshaped."""
    while node is not None and kind(node) in ("ToCopy", "View", "ReshapeAlias", "T"):
        node = edges(node)[0][0]
    return node.variable.detach() if node is not None and kind(node) == "AccumulateGrad" else None


def leaves(root: Node) -> Iterator[Tensor]:
    """Every parameter that a value was computed from."""
    for node in ordered(root):
        if kind(node) == "AccumulateGrad":
            yield node.variable


def to_leaves(
    root: Node, output: int, gradient: Tensor, through: frozenset[str] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every parameter that an operand was made of, and what of ``gradient`` reaches it by the operations' derivatives.

    Args:
        through: operations that it may go through; at another one it ends.
    """
    arrived = {root: one_of(fitted(gradient, root, output), output, root)}
    for node in reversed(ordered(root)):
        given = arrived.pop(node, None)
        if given is None:
            continue
        if kind(node) == "AccumulateGrad":
            if given[0] is not None:
                yield node.variable, given[0]
            continue
        if through is not None and kind(node) not in through:
            continue
        for (below, index), v in zip(edges(node), native(node, given), strict=False):
            if below is not None and v is not None:
                v = fitted(v, below, index)
                known = arrived.setdefault(below, one_of(None, index, below))
                before = known[index]
                known[index] = v if before is None else before + v


def one_of(tensor: Tensor | None, output: int, node: Node) -> list[Tensor | None]:
    """One place per output of a node, with ``tensor`` in one of them."""
    count = outputs_of(node) if kind(node) != "AccumulateGrad" and hasattr(node, "_input_metadata") else output + 1
    return [tensor if i == output else None for i in range(count)]


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """One number per channel (dimension 1), to be broadcast over ``like``."""
    return vector.reshape(1, -1, *([1] * (like.dim() - 2)))


def near_zero(x: Tensor) -> Tensor:
    """Where ``f(x) / x`` is taken by its limit."""
    return x.abs() < torch.finfo(x.dtype).eps ** 0.5
