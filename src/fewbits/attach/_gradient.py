"""Gradients as they come to a held weight."""

from __future__ import annotations

from torch import Tensor


def dense(gradient: Tensor) -> Tensor:
    """A gradient with all its elements: an embedding with ``sparse=True`` gives some rows alone."""
    return gradient.to_dense() if gradient.is_sparse else gradient
