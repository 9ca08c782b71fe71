"""Direct difference target propagation, linear (Meulemans et al. 2020, arXiv 2006.14331, DDTP-linear).

Targets go from the outputs to every block at once, by linear feedback that learns to reconstruct noise::

    t_L = h_L - eta dL/dh_L
    t_l = h_l + Q_l (t_L - h_L)
    W_l  down |f_l(h_(l-1)) - t_l|^2 / 2
    Q_l  down |Q_l (f_(L..l+1)(h_l + sigma eps) - h_L) / sigma - eps|^2 + decay |Q_l|^2
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules._adam import fresh, stepped
from fewbits.train.rules._blocks import Chain, blocks_of
from fewbits.train.rules._feedback import drawn
from fewbits.train.rules._nudge import forget_directions, output_errors
from fewbits.train.rules._options import NotNegative, Positive, Seed, Whole, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("direct-difference-target-propagation")
def direct_difference_target_propagation(
    *,
    noise: Positive = 0.01,
    feedback_lr: Positive = 1e-3,
    feedback_decay: NotNegative = 1e-4,
    feedback_blocks: Literal["all", "one"] = "all",
    warm_up: Whole = 20,
    seed: Seed = 0,
) -> Rule:
    """Linear targets. With them ``eta`` cancels out of the directions, so it is no option.

    Blocks may hold several layers, as in residual networks. A block's feedback has as many weights as the block has
    outputs times the network has; it is made at the first batch and trained by Adam.

    Args:
        noise: ``sigma``. feedback_lr: learning rate of the feedback. feedback_decay: its weight decay.
        feedback_blocks: whose feedback learns at a step: all blocks', each with a pass through all that follow, or
            one block's in turn. warm_up: steps in which only the feedback learns. seed: of its first weights.

    Raises:
        RecipeError: an impossible option. UnsupportedError: a network that is no chain of blocks.
    """

    def init(network: nn.Module) -> Any:
        blocks_of(network)
        return {"step": 0, "feedback": {}}

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        with batch.computing(), batch.blocks().steady() as chain:
            hidden = chain.activations(chain.enter(batch.inputs))
            loss, errors = output_errors(batch, hidden[-1])
            state = _begun(state, hidden, seed)
            chain[-1].pull(hidden[-2], -errors / len(errors))
            for block, below, here in zip(chain[:-1], hidden, hidden[1:], strict=False):
                with torch.no_grad():  # h_l - t_l, over eta
                    wrong = -(rows(errors) @ state["feedback"][str(block.number)]["value"]).view_as(here)
                block.pull(below, wrong / len(here))
            slopes = _slopes(chain, hidden, state, noise, feedback_blocks)
        if state["step"] < warm_up:
            forget_directions(network)
        learnt = {}
        for name, slope in slopes.items():
            now = state["feedback"][name]
            learnt[name] = stepped(now, batch.mean(slope) + feedback_decay * now["value"], feedback_lr)
        return hidden[-1], loss, {"step": state["step"] + 1, "feedback": state["feedback"] | learnt}

    return Rule(init, update)


def _begun(state: Any, hidden: list[Tensor], seed: int) -> Any:
    """The state with feedback ``[outputs, numbers of a block]`` for every block but the last."""
    shapes = {str(place): (hidden[-1][0].numel(), here[0].numel()) for place, here in enumerate(hidden[1:-1])}
    known = {name: tuple(learnt["value"].shape) for name, learnt in state["feedback"].items()}
    if known == shapes:
        return state
    if known:
        raise UnsupportedError(
            "direct-difference-target-propagation: samples have other shapes than those that its feedback was made for"
        )
    feedback = {n: fresh(drawn(shape, shape[1] ** -0.5, seed, int(n), hidden[-1])) for n, shape in shapes.items()}
    return {**state, "feedback": feedback}


@torch.no_grad()
def _slopes(chain: Chain, hidden: list[Tensor], state: Any, noise: float, which: str) -> dict[str, Tensor]:
    """Of the reconstruction loss, the mean over samples."""
    places = range(len(chain) - 1)
    if which == "one" and len(chain) > 1:
        places = range(state["step"] % len(places), state["step"] % len(places) + 1)
    found = {}
    for place in places:
        eps = torch.randn_like(hidden[place + 1])
        moved = hidden[place + 1] + noise * eps
        for block in chain[place + 1 :]:
            moved = block(moved)
        away = rows(moved - hidden[-1]) / noise
        wrong = away @ state["feedback"][str(place)]["value"] - rows(eps)
        found[str(place)] = 2 * away.T @ wrong / len(away)
    return found


def rows(x: Tensor) -> Tensor:
    """A row of float32 for each sample; outputs may have one number of each, and no axis for it."""
    return x.float().reshape(len(x), -1)
