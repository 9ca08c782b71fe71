"""Equilibrium propagation (Scellier and Bengio 2017, arXiv 1602.05179; centred, Laborieux et al. 2021).

States ``s_l`` settle to a minimum of an energy, once free and once with the loss as a weak force on the outputs. Here
it is the energy of predictions (Whittington and Bogacz 2017), whose free minimum is the forward pass::

    E      = sum_l |s_l - f_l(s_(l-1))|^2 / 2
    s^beta = argmin E + beta L(s_L)
    dL/dW  = lim (dE/dW (s^beta) - dE/dW (s^-beta)) / (2 beta)
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewbits.train.rules._blocks import Chain
from fewbits.train.rules._nudge import output_errors, readable
from fewbits.train.rules._options import Count, Positive, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("equilibrium-propagation")
def equilibrium_propagation(
    *, beta: Positive = 0.1, estimator: Literal["centred", "one-sided"] = "centred", steps: Count = 20,
    step: Positive = 0.5,
) -> Rule:  # fmt: skip
    """What the energy of settled states says of the weights, nudged to either side.

    The limit of a small ``beta`` is backpropagation: the error falls with its square (centred), or with itself.
    Networks of the Hopfield energy are others than the feed-forward ones that they would be written as; none is trained
    here. Blocks may hold several layers.

    Args:
        beta: strength of the nudge, in units of a sample's loss. estimator: between two nudged states, or between one
            and the free state.
        steps: sweeps over all states, from the outputs down. step: of a state down the gradient of the energy.

    Raises:
        RecipeError: an impossible option. UnsupportedError, when it begins: a network that is no chain of blocks.
    """

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        with batch.computing(), batch.blocks().steady() as chain:
            free = chain.activations(chain.enter(batch.inputs))
            loss, _ = output_errors(batch, free[-1])
            for sign in (1, -1) if estimator == "centred" else (1,):
                states = _settled(chain, batch, free, sign * beta, steps, step)
                # dE/dW = -J^T eps, and of the free state it is zero
                share = 1 / (sign * beta * (2 if estimator == "centred" else 1))
                for block, below, above in zip(chain, states, states[1:], strict=False):
                    block.pull(below, partial(_error, above, -share / len(above)))
        return free[-1], loss, state

    return Rule(readable, update)


def _error(state: Tensor, share: float, predicted: Tensor) -> Tensor:
    return share * (state - predicted)


def _settled(chain: Chain, batch: Batch, free: list[Tensor], beta: float, steps: int, step: float) -> list[Tensor]:
    """States after some sweeps down the gradient of the nudged energy."""
    states = list(free)
    for _ in range(steps):
        for place in range(len(chain), 0, -1):
            with torch.no_grad():
                eps = states[place] - chain[place - 1](states[place - 1])
            if place == len(chain):
                force = beta * output_errors(batch, states[place])[1]
            else:
                force = chain[place].pull(states[place], partial(_error, states[place + 1], 1.0), learn=False)
            states[place] = states[place] + step * (force - eps)
    return states
