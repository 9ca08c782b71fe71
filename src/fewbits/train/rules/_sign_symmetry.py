"""Sign symmetry (Liao et al. 2016, arXiv 1510.05067; Moskovitz et al. 2018, arXiv 1812.06488; Xiao et al. 2019).

Feedback weights share the signs of the forward ones, and not their magnitudes::

    d_l  = ((|M_(l+1)| * sign(W_(l+1)))^T d_(l+1)) * f'(a_l)
    dW_l = d_l h_(l-1)^T
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from fewbits.train.rules._feedback import drawn, fans, magnitudes, through, trainable, transposed
from fewbits.train.rules._options import Seed, checked
from fewbits.train.rules._rule import Batch, Rule
from fewbits.weights import layers


@checked("sign-symmetry")
def sign_symmetry(*, magnitude: Literal["uniform", "batch", "fixed"] = "uniform", seed: Seed = 0) -> Rule:
    """Errors go backward through weights with the signs of the forward ones; a weight at zero hands on nothing.

    Works on the networks of feedback alignment.

    Args:
        magnitude: ``uniform``, the same everywhere in a layer (uSF); ``batch``, random and drawn at every batch (brSF);
            ``fixed``, random and drawn once (frSF). All are of the size of Glorot's standard deviation.
        seed: of random magnitudes.

    Raises:
        RecipeError: an impossible option. UnsupportedError, when it begins: a weight of another layer, by its name.
    """

    def init(network: nn.Module) -> Any:
        trainable(network, "sign-symmetry")
        fixed = dict(magnitudes(network, seed)) if magnitude == "fixed" else {}
        return {"step": 0, "magnitudes": {path: drawn_.abs() for path, drawn_ in fixed.items()}}

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        places = {path: place for place, path in enumerate(layers(network))}

        def size_of(path: str, weight: Tensor) -> Tensor | float:
            if magnitude == "fixed":
                found: Tensor = state["magnitudes"][path]
                return found
            size = (2 / sum(fans(weight))) ** 0.5
            if magnitude == "uniform":
                return size
            return drawn(weight.shape, size, seed, state["step"] * len(places) + places[path], weight).abs()

        def back(path: str, layer: Any, x: Tensor, errors: Tensor) -> Tensor:
            weight = layer.weight.detach()
            return transposed(layer, (weight.sign() * size_of(path, weight)).to(errors.dtype), errors, x.shape)

        outputs, loss = through(network, batch, back)
        return outputs, loss, {**state, "step": state["step"] + 1}

    return Rule(init, update)
