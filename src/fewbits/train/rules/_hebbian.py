"""Hebbian learning with hard competition: Grossberg's Instar (Miconi 2021, arXiv 2107.01729).

For each hidden layer with weights w_c and biases b_c, over the positions m of a batch of B samples::

    u_mc = w_c . x_m                                          what channel c says at position m
    y_mc = 1 if u_mc + b_c is positive and the largest of all channels, else 0
    dw_c = 1/B sum_m y_mc (x_m - w_c)                         Instar: winners go toward what they have won
    w_c <- (w_c + rate dw_c) / |w_c + rate dw_c|
    b_c <- b_c - adapt (share of the positions that c wins - 1/C)

The bias is the adaptive threshold with its sign changed; a layer without one has none. The same directions are the
gradient of ``-1/2 sum y'^2``, where ``y' = w . x - |w|^2 / 2`` is overwritten by y in the forward pass: the surrogate
of the released code, and a test here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewbits.train.rules._competing import Heard, competing, each
from fewbits.train.rules._linear import Layer, by_channel, correlated, lead, norms, parameter
from fewbits.train.rules._options import Count, NotNegative, Positive, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("hebbian")
def hebbian(
    rate: Positive | list[Positive] = 0.01,
    adapt: NotNegative = 3.0,
    count: Count = 1,
    keep_zeros: bool = True,
    head: NotNegative = 1.0,
) -> Rule:
    """Instar with winner-take-all and adaptive thresholds, on unit spheres.

    It has steps of its own: ``.grad`` is the weight minus what the formula makes of it, so that SGD with a learning
    rate of 1 and without momentum applies it exactly; the rule's row says so to trainings that say nothing else.

    Args:
        rate: of the weights, for the mean over samples of sums over positions; a list has one for each hidden layer.
            The released code has 0.01, 0.01 and 0.1 so.
        adapt: of the thresholds. count: winners at each position.
        keep_zeros: weights that are zero at the beginning stay so, as those of a fixed sparse mask.
        head: step of the last layer, which learns by the local gradient of the loss; 1 is as far as is safe, 0 leaves
            it alone.

    Raises:
        RecipeError: a number out of range.
    """

    def begin(network: nn.Module) -> dict[str, Any]:
        layers = {name: parameter(m) for name, m in network.named_modules() if name and hasattr(m, "weight")}
        zeros = {name: w.detach() == 0 for name, w in layers.items() if w is not None and w.dim() > 1}
        return {"zeros": {name: mask for name, mask in zeros.items() if keep_zeros and bool(mask.any())}}

    def learn(heard: Heard, batch: Batch, state: dict[str, Any]) -> None:
        layer, bias = heard.layer, heard.layer.bias
        u = heard.u if bias is None else heard.u + bias.detach().reshape(1, heard.u.shape[1], -1, 1)
        y = winners(u, count)
        weight = layer.weight.detach()
        wanted = weight + each(rate, heard.number) / heard.samples * batch.mean(instar(layer, heard.inputs, y))
        if heard.name in state["zeros"]:
            wanted = wanted.masked_fill(state["zeros"][heard.name].to(wanted.device), 0.0)
        lead(layer, "weight", weight - on_the_sphere(wanted))
        if bias is not None:
            lead(layer, "bias", adapt * (batch.mean(y.mean((0, 3)).flatten()) - 1 / u.shape[2]))

    return competing(learn, begin, head=head, lists={"rate": rate})


def winners(u: Tensor, count: int = 1) -> Tensor:
    """1 where a channel is among the ``count`` largest at its position and positive, else 0.

    Args:
        u: ``[N, groups, channels, positions]``; channels of one group compete.
    """
    least = u.topk(min(count, u.shape[2]), dim=2).values[:, :, -1:]
    return ((u >= least) & (u > 0)).to(u.dtype)


def instar(layer: Layer, inputs: Tensor, y: Tensor) -> Tensor:
    """``sum_m y_mc (x_m - w_c)``, of the shape of the weight."""
    weight = layer.weight.detach()
    return correlated(layer, inputs, y) - by_channel(weight, y.sum((0, 3))) * weight


def on_the_sphere(weight: Tensor) -> Tensor:
    """Every channel's weights with length 1."""
    return weight / by_channel(weight, norms(weight).clamp_min(1e-10))
