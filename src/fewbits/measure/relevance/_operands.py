"""Which operand of an operation is data, and which one is a weight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewbits.measure.relevance._nodes import CONVOLUTIONS, Node, edges, kind


def is_instance_norm(node: Node) -> bool:
    before = edges(node)[0][0]
    single = len(node._saved_input) == 1 and bool(getattr(node, "_saved_training", True))
    return single and before is not None and kind(before) in ("View", "ReshapeAlias", "UnsafeView")


def same_indices(given: Tensor, indices: Tensor) -> bool:
    """Whether these indices are the ones that the network was given, as they are or with their shape changed."""
    return given.data_ptr() == indices.data_ptr() or (given.shape == indices.shape and torch.equal(given, indices))


def reads_constants(node: Node, name: str) -> bool:
    """Whether a layer's input is no operand that a gradient goes to, such as a table of positions: it is data, too."""
    if name in CONVOLUTIONS:
        return edges(node)[0][0] is None
    return name in ("Mm", "Addmm", "Bmm") and edges(node)[name == "Addmm"][0] is None


def weighted_operands(node: Node, name: str, flows: Callable[[Node, int], bool]) -> tuple[int, int, int | None] | None:
    """Which operand of a linear operation is data, which one the weight, and which one the bias; or ``None``.

    Products of two tensors that carry data are no layers, nor is one whose data comes second.
    """
    if name in CONVOLUTIONS:
        return (0, 1, 2) if not flows(node, 1) and node._saved_input is not None else None
    if name not in ("Mm", "Addmm"):
        return None
    first = 1 if name == "Addmm" else 0
    if flows(node, first + 1) or not (flows(node, first) or edges(node)[first][0] is None):
        return None
    if name == "Addmm" and (node._saved_alpha != 1 or node._saved_beta != 1 or flows(node, 0)):
        return None
    a, w = (node._saved_mat1, node._saved_mat2) if name == "Addmm" else (node._saved_self, node._saved_mat2)
    if a is None or w is None:  # a constant multiplies: autograd keeps one of the two
        return None
    return first, first + 1, 0 if name == "Addmm" else None


def operands_of(node: Node, name: str) -> tuple[Tensor, Tensor]:
    """Data and weight of a linear operation; a dense weight as ``[out, in]``."""
    if name in CONVOLUTIONS:
        return node._saved_input, node._saved_weight
    a = node._saved_mat1 if name == "Addmm" else node._saved_self
    return a, node._saved_mat2.T
