"""SoftHebb: Hebbian learning with soft competition (Journe et al. 2023, arXiv 2209.11883).

For each hidden layer with weights w_c, over the positions m of a batch::

    u_mc = w_c . x_m
    y_m  = softmax(u_m / T) over the channels; y_mc <- -y_mc for all but the winner of m      (anti-Hebbian losers)
    dw_c = sum_m y_mc (x_m - u_mc w_c)
    w_c <- w_c + rate | |w_c| - 1 |^power dw_c / max |dw|

Lengths go to 1, and the step goes to zero with them, so no schedule is needed. The largest entry of ``dw`` is that of
the layer, as in the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.train.rules._competing import Heard, competing, each
from fewbits.train.rules._linear import Layer, by_channel, correlated, lead, norms
from fewbits.train.rules._options import NotNegative, Positive, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("soft-hebb")
def soft_hebb(
    temperature: Positive | list[Positive] = 1.0,
    rate: Positive | list[Positive] = 0.01,
    power: NotNegative = 0.5,
    head: NotNegative = 1.0,
) -> Rule:
    """Soft winner-take-all with anti-Hebbian losers.

    It has steps of its own: ``.grad`` is what the formula adds, with its sign changed, so that SGD with a learning rate
    of 1 and without momentum applies it exactly; the rule's row says so to trainings that say nothing else.

    Args:
        temperature: of the competition; a list has one for each hidden layer. The released demo of CIFAR-10 has 1, 1.54
            and 4, for weights that begin with a length of 25 (see the zoo's ``soft-hebb-net``).
        rate: likewise; there 0.08, 0.005 and 0.01. power: of the distance of lengths from 1.
        head: step of the last layer, which learns by the local gradient of the loss; 1 is as far as is safe, 0 leaves
            it alone.

    Raises:
        RecipeError: a number out of range.
    """

    def learn(heard: Heard, batch: Batch, state: object) -> None:
        direction = batch.mean(soft_hebb_direction(heard.layer, heard.inputs, heard.u, each(temperature, heard.number)))
        step = soft_hebb_step(heard.layer.weight.detach(), direction, each(rate, heard.number), power)
        lead(heard.layer, "weight", -step)

    return competing(learn, head=head, lists={"temperature": temperature, "rate": rate})


def soft_winners(u: Tensor, temperature: float) -> Tensor:
    """``softmax(u / T)`` over competing channels, with the sign changed for all but the largest.

    Args:
        u: ``[N, groups, channels, positions]``; channels of one group compete.
    """
    y = torch.softmax(u / temperature, dim=2)
    won = torch.zeros_like(y).scatter_(2, u.argmax(2, keepdim=True), 1.0)
    return y * (2 * won - 1)


def soft_hebb_direction(layer: Layer, inputs: Tensor, u: Tensor, temperature: float) -> Tensor:
    """``sum_m y_mc (x_m - u_mc w_c)``, of the shape of the weight."""
    y, weight = soft_winners(u, temperature), layer.weight.detach()
    return correlated(layer, inputs, y) - by_channel(weight, (y * u).sum((0, 3))) * weight


def soft_hebb_step(weight: Tensor, direction: Tensor, rate: float, power: float = 0.5) -> Tensor:
    """What is added to the weight."""
    adaptive = ((norms(weight) - 1).abs() + 1e-10) ** power
    return rate * by_channel(weight, adaptive) * direction / (direction.abs().amax() + 1e-30)
