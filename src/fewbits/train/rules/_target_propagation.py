"""Difference target propagation (Lee et al. 2015, arXiv 1412.7525).

Every block learns to reach a target, which inverses ``g_l`` of the blocks above hand down from the outputs::

    t_(L-1) = h_(L-1) - eta dL/dh_(L-1)
    t_(l-1) = h_(l-1) + g_l(t_l) - g_l(h_l)
    W_l  down |f_l(h_(l-1)) - t_l|^2 / 2
    g_l  down |g_l(f_l(h_(l-1) + eps)) - (h_(l-1) + eps)|^2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules._adam import fresh, stepped
from fewbits.train.rules._blocks import Block, blocks_of
from fewbits.train.rules._feedback import drawn, fans, transposed
from fewbits.train.rules._nudge import forget_directions, output_errors
from fewbits.train.rules._options import NotNegative, Positive, Seed, Whole, checked
from fewbits.train.rules._rule import Batch, Rule

Inverse = Callable[[Tensor], Tensor]


@checked("difference-target-propagation")
def difference_target_propagation(
    *,
    target_step: Positive = 0.1,
    noise: NotNegative = 0.1,
    feedback_lr: Positive = 1e-3,
    warm_up: Whole = 20,
    seed: Seed = 0,
) -> Rule:
    """Targets from learned inverses. Needs one layer in each block, since that is what is inverted.

    An inverse is the transpose of its layer with weights and biases of its own, trained by Adam. What lies between two
    layers is undone by resizing to the shape that was there.

    Args:
        target_step: ``eta``, in units of a sample's loss. noise: standard deviation of ``eps``, in units of that of the
            activations. feedback_lr: learning rate of the inverses. warm_up: steps in which only these learn.
        seed: of their first weights.

    Raises:
        RecipeError: an impossible option. UnsupportedError: a block of several layers, by their names, or shapes
            between two layers that resizing does not undo.
    """

    def init(network: nn.Module) -> Any:
        chain = blocks_of(network)
        chain.check("difference-target-propagation")
        feedback = {}
        for block in chain[1:]:
            weight = block.layer.weight.detach()
            inputs = weight.shape[1] * getattr(block.layer, "groups", 1)
            size = (1 / fans(weight)[1]) ** 0.5
            feedback[f"{block.number}.weight"] = drawn(weight.shape, size, seed, block.number, weight)
            feedback[f"{block.number}.bias"] = weight.new_zeros(inputs, dtype=torch.float32)
        return {"step": 0, "feedback": {key: fresh(tensor) for key, tensor in feedback.items()}}

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        feedback = {key: learnt["value"] for key, learnt in state["feedback"].items()}
        with batch.computing(), batch.blocks().steady() as chain:
            hidden = chain.activations(chain.enter(batch.inputs))
            loss, errors = output_errors(batch, hidden[-1])
            shapes = [_shape(block, below) for block, below in zip(chain[1:], hidden[1:], strict=False)]

            def inverse(block: Block, weights: Any) -> Inverse:
                middle, below = shapes[block.number - 1], hidden[block.number]
                weight, bias = (weights[f"{block.number}.{kind}"] for kind in ("weight", "bias"))
                return lambda h: _undone(block, h, weight, bias, middle, below)

            last = chain[-1].pull(hidden[-2], -errors / len(errors))  # the last block learns by the loss itself
            if len(chain) > 1:
                with torch.no_grad():
                    inverses = [inverse(block, feedback) for block in chain[1:-1]]
                    found = targets(hidden[1:-1], inverses, -len(errors) * target_step * last)
                for block, below, here, target in zip(chain[:-1], hidden, hidden[1:], found, strict=False):
                    block.pull(below, (here - target) / (target_step * len(here)))
            slopes = _slopes(chain[1:-1], hidden, inverse, feedback, noise)
        if state["step"] < warm_up:
            forget_directions(network)
        learnt = {key: stepped(state["feedback"][key], batch.mean(g), feedback_lr) for key, g in slopes.items()}
        return hidden[-1], loss, {"step": state["step"] + 1, "feedback": state["feedback"] | learnt}

    return Rule(init, update)


def targets(hidden: Sequence[Tensor], inverses: Sequence[Inverse], move: Tensor) -> list[Tensor]:
    """Targets of all blocks but the last, in their order.

    Args:
        hidden: what these blocks give. inverses: ``g_l`` of all of them but the first. move: of the last of them.
    """
    found = [hidden[-1] + move]
    for here, above, inverse in zip(reversed(hidden[:-1]), reversed(hidden[1:]), reversed(inverses), strict=True):
        found.insert(0, here + inverse(found[0]) - inverse(above))
    return found


def _slopes(
    blocks: Sequence[Block], hidden: list[Tensor], inverse: Any, feedback: Mapping[str, Tensor], noise: float
) -> dict[str, Tensor]:
    """Of what inverses miss of inputs with noise, each for what its block gives for them."""
    slopes: dict[str, Tensor] = {}
    for block in blocks:
        below = hidden[block.number]
        size = noise * (float(below.float().std(correction=0)) or 1.0)
        noisy = below + size * torch.randn_like(below)
        keys = (f"{block.number}.weight", f"{block.number}.bias")
        own = {key: feedback[key].detach().requires_grad_() for key in keys}
        with torch.no_grad():
            given = block(noisy)
        with torch.enable_grad():
            wrong = (inverse(block, own)(given) - noisy).float().square().flatten(1).sum(1).mean()
        slopes |= dict(zip(own, torch.autograd.grad(wrong, list(own.values())), strict=True))
    return slopes


def _shape(block: Block, below: Tensor) -> tuple[torch.Size, torch.Size]:
    """Shapes of inputs and outputs of a block's layer."""
    with torch.no_grad():
        inner = block.before(below)
        return inner.shape, block.layer(inner).shape


def _undone(
    block: Block, h: Tensor, weight: Tensor, bias: Tensor, middle: tuple[torch.Size, torch.Size], like: Tensor
) -> Tensor:
    """``g_l(h)``, shaped as inputs of the block."""
    inner, outer = middle
    back = transposed(block.layer, weight, _resized(h, outer, block.name).to(weight.dtype), inner)
    bias = bias if isinstance(block.layer, nn.Linear) else bias.view(-1, *[1] * (back.dim() - 2))
    return _resized(back + bias, like.shape, block.name).to(like.dtype)


def _resized(h: Tensor, shape: torch.Size, name: str) -> Tensor:
    """Flattening, pooling and averages undone: by shape, to the nearest place."""
    if h.shape == shape:
        return h
    if h[0].numel() == shape[1:].numel():
        return h.reshape(shape)
    if h.dim() == 2 and len(shape) > 2 and h.shape[1] == shape[1]:  # averaged over all places
        return h.view(*h.shape, *[1] * (len(shape) - 2)).expand(shape)
    if h.dim() == len(shape) > 2 and h.shape[1] == shape[1]:
        return F.interpolate(h, shape[2:])
    raise UnsupportedError(
        f"difference-target-propagation: what is around layer {name} makes {list(shape[1:])} of {list(h.shape[1:])}, "
        "which resizing does not undo"
    )
