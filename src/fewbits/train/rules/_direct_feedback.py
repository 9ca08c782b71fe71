"""Direct feedback alignment (Nokland 2016, arXiv 1609.01596).

The error of the outputs, ``e = dL/da_L``, goes to every layer by fixed random weights of its own::

    d_l  = (B_l e) * f'(a_l)
    dW_l = d_l h_(l-1)^T
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules._feedback import drawn, through, trainable
from fewbits.train.rules._options import Seed, checked
from fewbits.train.rules._rule import Batch, Rule
from fewbits.weights import layers


@checked("direct-feedback-alignment")
def direct_feedback_alignment(*, seed: Seed = 0) -> Rule:
    """Errors go from the outputs to the inputs of every layer at once.

    Works on the networks of feedback alignment. In a residual one, what goes around a layer hands on what it gets.
    The weights are drawn at the first batch; a layer then has as many as it has inputs times the network outputs.

    Args:
        seed: of the random weights, normal, of the size that keeps the length of the error.

    Raises:
        RecipeError: an impossible option. UnsupportedError: a weight of another layer, or inputs of a layer that are
            not one row for each sample, or that change their size.
    """

    def init(network: nn.Module) -> Any:
        trainable(network, "direct-feedback-alignment")
        return {"feedback": {}}

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        places = {path: place for place, path in enumerate(layers(network))}
        feedback = state["feedback"]
        error: list[Tensor] = []

        def at(outputs: Any) -> None:
            if not isinstance(outputs, Tensor):
                raise UnsupportedError(f"direct-feedback-alignment: outputs are {type(outputs).__name__}, not a tensor")
            outputs.register_hook(error.append)

        def back(path: str, layer: Any, x: Tensor, errors: Tensor) -> Tensor:
            e = error[-1].reshape(len(error[-1]), -1)
            size = (e.shape[1], x[0].numel())
            if path not in feedback:
                feedback[path] = drawn(size, size[1] ** -0.5, seed, places[path], x)
            if len(x) != len(e) or feedback[path].shape != size:
                raise UnsupportedError(
                    f"direct-feedback-alignment: inputs of {path} have the shape {list(x.shape)} and outputs "
                    f"{list(error[-1].shape)}; its weights are for {list(feedback[path].shape)} numbers of a sample"
                )
            return (e.to(errors.dtype) @ feedback[path].to(errors.dtype)).view_as(x)

        return *through(network, batch, back, at), state

    return Rule(init, update)
