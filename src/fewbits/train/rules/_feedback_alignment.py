"""Feedback alignment (Lillicrap et al. 2016, doi 10.1038/ncomms13276).

With ``h_l = f(a_l)``, ``a_l = W_l h_(l-1)`` and fixed random ``B_l`` in place of ``W_l``, only on the way back::

    d_l  = (B_(l+1)^T d_(l+1)) * f'(a_l)
    dW_l = d_l h_(l-1)^T
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewbits.train.rules._feedback import magnitudes, through, trainable, transposed
from fewbits.train.rules._options import Seed, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("feedback-alignment")
def feedback_alignment(*, seed: Seed = 0) -> Rule:
    """Errors go backward through fixed random weights.

    Works on any network whose weights are those of linear and convolutional layers and embeddings, residual ones too.

    Args:
        seed: of the random weights, of each layer's shape, normal with the standard deviation of Glorot's.

    Raises:
        RecipeError: an impossible option. UnsupportedError, when it begins: a weight of another layer, by its name.
    """

    def init(network: nn.Module) -> Any:
        trainable(network, "feedback-alignment")
        return {"feedback": dict(magnitudes(network, seed))}

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        def back(path: str, layer: Any, x: Tensor, errors: Tensor) -> Tensor:
            return transposed(layer, state["feedback"][path].to(errors.dtype), errors, x.shape)

        return *through(network, batch, back), state

    return Rule(init, update)
