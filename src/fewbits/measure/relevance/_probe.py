"""A numerical test of what an unknown operation does: whether it is homogeneous, ``f(t x) = t f(x)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from fewbits.measure.relevance._nodes import Node, edges

TIMES = (0.5, 1.7)


def is_homogeneous(
    node: Node,
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None,
    flows: Callable[[Node, int], bool],
) -> bool:
    """Whether scaling all operands that carry data scales the result.

    Then its derivative conserves relevance (Euler's theorem). It is a test at two scales on one batch, not a proof.

    Args:
        node: of the operation. call: the function and its arguments, if they were kept. flows: says which operand of
            a node carries data.
    """
    if call is None:
        return False
    function, args, kwargs = call
    carrying = {below for i, (below, _) in enumerate(edges(node)) if flows(node, i)}

    def at(t: float) -> Tensor | None:
        def scaled(x: Tensor) -> Tensor:
            return x.detach() * t if x.requires_grad and x.grad_fn in carrying else x.detach()

        given, named = tree_map_only(Tensor, scaled, (args, kwargs))
        try:
            found = function(*given, **named)
        except RuntimeError:
            return None
        return found if isinstance(found, Tensor) else None

    base = at(1.0)
    if base is None or not torch.isfinite(base).all():
        return False
    tolerance = 1e3 * torch.finfo(base.dtype).eps * float(base.abs().max() or 1.0)
    results = [(t, at(t)) for t in TIMES]
    return all(y is not None and torch.allclose(y, t * base, rtol=1e-4, atol=tolerance) for t, y in results)
