"""Predictive coding (Whittington and Bogacz 2017; Rosenbaum 2022, arXiv 2106.13082, algorithms 1 to 3).

Each block predicts the value ``v_l`` that the next one works with; ``eps_l = v_l - f_l(v_(l-1))`` is its error. With
the errors of the outputs given by the loss, ``eps_L = -dL/df_L``, values move, and then weights learn::

    v_l  += step * (-eps_l + J_(l+1)^T eps_(l+1))
    dW_l  = J_W^T eps_l
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewbits.train.rules._blocks import Chain
from fewbits.train.rules._nudge import output_errors, readable
from fewbits.train.rules._options import Count, Positive, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("predictive-coding")
def predictive_coding(
    *, mode: Literal["strict", "fixed-pred", "exact"] = "strict", steps: Count = 20, step: Positive = 0.1
) -> Rule:
    """Local errors of predictions; blocks may hold several layers, as in residual networks.

    Every sample settles by itself: errors are those of its own loss, and the mean is taken of what it teaches.

    Args:
        mode: ``strict`` settles with the predictions and Jacobians of the values of the moment. ``fixed-pred`` keeps
            those of the forward pass; with ``step`` 1 and as many ``steps`` as blocks it is backpropagation.
            ``exact`` hands errors back once, which is backpropagation block by block.
        steps: updates of all values. step: of each of them.

    Raises:
        RecipeError: an impossible option. UnsupportedError, when it begins: a network that is no chain of blocks.
    """

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        with batch.computing(), batch.blocks().steady() as chain:
            values = chain.activations(chain.enter(batch.inputs))
            loss, errors = output_errors(batch, values[-1])
            outputs = values[-1]
            if mode == "exact":
                _exact(chain, values, errors)
            elif mode == "fixed-pred":
                _fixed(chain, values, errors, steps, step)
            else:
                _strict(chain, batch, values, steps, step)
        return outputs, loss, state

    return Rule(readable, update)


def _learn(chain: Chain, values: list[Tensor], eps: list[Tensor]) -> None:
    """``-dW_l``, the mean over samples. ``eps[l]`` is the error of what block ``l`` predicts."""
    for block, value, error in zip(chain, values, eps, strict=False):
        block.pull(value, -error / len(error))


def _exact(chain: Chain, values: list[Tensor], errors: Tensor) -> None:
    """``eps_l = J_(l+1)^T eps_(l+1)``, from the outputs on."""
    for block, value in zip(reversed(chain), reversed(values[:-1]), strict=True):
        errors = block.pull(value, -errors / len(errors)) * -len(errors)


def _fixed(chain: Chain, values: list[Tensor], errors: Tensor, steps: int, step: float) -> None:
    """Predictions and Jacobians of the forward pass: ``eps_l += step * (-eps_l + J_(l+1)^T eps_(l+1))``."""
    eps = [*(torch.zeros_like(value) for value in values[1:-1]), errors]
    for _ in range(steps):
        pulled = [
            chain[place + 1].pull(values[place + 1], eps[place + 1], learn=False) for place in range(len(eps) - 1)
        ]
        eps = [*(e + step * (p - e) for e, p in zip(eps, pulled, strict=False)), errors]
    _learn(chain, values, eps)


def _strict(chain: Chain, batch: Batch, values: list[Tensor], steps: int, step: float) -> None:
    """Predictions and Jacobians of the values of the moment."""
    values = list(values)
    for _ in range(steps):
        eps: list[Tensor] = []

        def error(predicted: Tensor, eps: list[Tensor] = eps) -> Tensor:
            eps.append(_error(chain, batch, values, len(eps), predicted))
            return eps[-1]

        pulled = [block.pull(value, error, learn=False) for block, value in zip(chain, values, strict=False)]
        for place in range(1, len(chain)):
            values[place] = values[place] + step * (pulled[place] - eps[place - 1])
    for place, block in enumerate(chain):
        with torch.no_grad():
            eps_l = _error(chain, batch, values, place, block(values[place]))
        block.pull(values[place], -eps_l / len(eps_l))


def _error(chain: Chain, batch: Batch, values: list[Tensor], place: int, predicted: Tensor) -> Tensor:
    """``eps_l`` of a block; of the last, by the loss of what it predicts."""
    return values[place + 1] - predicted if place + 1 < len(chain) else output_errors(batch, predicted)[1]
