"""Learning by two forward passes: Forward-Forward (Hinton 2022, arXiv 2212.13345) and its self-contrastive form.

Each block of the network learns alone to tell positive from negative data by the *goodness* of its own activities::

    G(a)  = mean of a^2 over a sample's activities
    loss  = softplus(theta - G(a_positive)) + softplus(G(a_negative) - theta)

Forward-Forward writes a label over the first values of the inputs: the right one is positive, a wrong one negative.
The self-contrastive form (SCFF, Chen et al., Nature Communications 2025) needs no labels: a sample with itself is
positive, with another one negative. Its authors add both through equal weights; here they are averaged, so that a
positive sample is what the network meets when it is used.

The last block learns the task's loss from the others' activities, on inputs as they come. What one block passes on
tells the next how good it was by its length alone, so normalise between blocks (``nn.LayerNorm``, ``nn.GroupNorm``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules._local import leave
from fewbits.train.rules._nudge import one_tensor
from fewbits.train.rules._options import Positive, checked
from fewbits.train.rules._rule import Batch, Rule

Pair = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``pair(inputs, targets, outputs) -> (positive, negative)``, both of the inputs' shape."""


def goodness(activities: Tensor) -> Tensor:
    """The mean of squares of each sample, ``[n]``."""
    return activities.flatten(1).square().mean(1)


def contrast(good: Tensor, sign: int, threshold: float) -> Tensor:
    """A block's loss on positive (1) or negative (-1) data from their goodness ``[n]``: the mean over samples."""
    return F.softplus(sign * (threshold - good)).mean()


@checked("forward-forward")
def forward_forward(threshold: Positive = 2.0) -> Rule:
    """Blocks that tell right labels from wrong ones.

    The wrong label of a sample is the likeliest one by the network as it is (Hinton's hard negatives).

    Args:
        threshold: theta, of mean squares.
    """
    return _contrasting(labelled, threshold)


@checked("scff")
def scff(threshold: Positive = 2.0) -> Rule:
    """Blocks that tell a sample from a mixture of two; needs no labels but for the last one.

    Args:
        threshold: theta, of mean squares.
    """
    return _contrasting(mixed, threshold)


def labelled(inputs: Tensor, targets: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs with the right label, and with the likeliest wrong one, over the first values of each sample.

    Args:
        targets: class indices ``[n]``. outputs: ``[n, classes]``.

    Raises:
        UnsupportedError: no classes, or fewer values than classes.
    """
    if targets.is_floating_point() or targets.dim() != 1 or outputs.dim() != 2:
        raise UnsupportedError("forward-forward writes class labels over the inputs, and this task has none: take scff")
    classes, values = outputs.shape[1], inputs[0].numel()
    if values < classes:
        raise UnsupportedError(f"samples of {values} values have no room for {classes} labels: take scff")
    right = F.one_hot(targets.long(), classes)
    wrong = F.one_hot((outputs.float() - 1e30 * right).argmax(1), classes)
    most = inputs.flatten(1).abs().amax(1, keepdim=True)

    def written(label: Tensor) -> Tensor:
        flat = inputs.flatten(1).clone()
        flat[:, :classes] = most * label.to(flat.dtype)
        return flat.reshape(inputs.shape)

    return written(right), written(wrong)


def mixed(inputs: Tensor, targets: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs as they are, and each averaged with another one of the batch: that half the batch away in brightness.

    Which one depends on the samples alone, not on their order.

    Raises:
        UnsupportedError: whole numbers, such as tokens, which have no mean.
    """
    if not inputs.is_floating_point():
        raise UnsupportedError(f"scff averages inputs, and these are {str(inputs.dtype)[6:]}: take mono-forward")
    order = inputs.flatten(1).double().sum(1).argsort()
    other = torch.empty_like(order)
    other[order] = order.roll(len(order) // 2)
    return inputs, (inputs + inputs[other]) / 2


def _contrasting(pair: Pair, threshold: float) -> Rule:
    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        chain = batch.blocks()
        *hidden, last = list(chain)
        inputs = chain.enter(batch.inputs)
        with batch.computing(), chain.steady():
            with torch.no_grad():
                given = inputs
                for block in hidden:
                    given = block(given)
            outputs = one_tensor(last(given))
            loss = batch.loss_of(outputs)
            leave(loss, last.parameters())
            pairs = pair(inputs, batch.targets, outputs.detach())
            for sign, given in zip((1, -1), pairs, strict=True):
                for block in hidden:  # one after the other, as each kind has a loss of its own
                    given = block(given.detach())
                    leave(contrast(goodness(given), sign, threshold), block.parameters())
        return outputs.detach(), loss.detach(), state

    return Rule(lambda network: None, update)
