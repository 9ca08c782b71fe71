"""Forward gradients (Baydin et al. 2022, arXiv 2202.08587): no backward pass.

Along random directions ``u`` with ``E[u u^T] = 1``, by forward-mode differentiation::

    g = (dL . u) u,   whose expectation is dL
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from accelerate.utils.operations import recursively_apply
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewbits.errors import UnsupportedError
from fewbits.task.batches import called, outside_autograd
from fewbits.train.rules._options import Count, Seed, checked
from fewbits.train.rules._rule import Batch, Rule
from fewbits.train.rules._walk import fixed, uncounted


@checked("forward-gradient")
def forward_gradient(
    *, directions: Count = 1, distribution: Literal["normal", "signs"] = "normal", seed: Seed = 0
) -> Rule:
    """The slope of the loss along random directions, times them. Unbiased, with a variance that grows with the weights.

    Works on any network of operations that PyTorch differentiates forward, of any structure.

    Args:
        directions: of how many the mean is taken; each costs some two forward passes.
        distribution: of the numbers of a direction. seed: of the directions.

    Raises:
        RecipeError: an impossible option. UnsupportedError: an operation without forward differentiation, by its name.
    """

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
        generator = torch.Generator().manual_seed((1_000_003 * seed + state["step"]) % 2**63)
        again = int(torch.randint(2**31, ()))  # what dropout draws, along every direction
        found = {name: torch.zeros_like(p) for name, p in weights.items()}
        for number in range(directions):
            along = {name: _drawn(p, distribution, generator) for name, p in weights.items()}
            with fixed(again), uncounted(network.modules() if number else ()):
                outputs, loss, slope = along_direction(network, batch, weights, along)
            for name, direction in along.items():
                found[name].add_(direction, alpha=slope / directions)
        for name, parameter in weights.items():
            parameter.grad = found[name]
        return outputs, loss, {"step": state["step"] + 1}

    return Rule(lambda network: {"step": 0}, update)


def along_direction(
    network: nn.Module, batch: Batch, weights: Mapping[str, Tensor], along: Mapping[str, Tensor]
) -> tuple[Any, Tensor, float]:
    """Outputs, loss, and the slope of the loss along a direction of all weights."""
    args, kwargs = called(batch.inputs)
    plain = sdpa_kernel(SDPBackend.MATH)  # attention's other forms are not differentiated forward
    with torch.no_grad(), forward_ad.dual_level(), batch.computing(), plain:
        duals = {name: forward_ad.make_dual(p.detach(), along[name]) for name, p in weights.items()}
        try:
            returned = functional_call(network, duals, args, kwargs)
            loss, slope = forward_ad.unpack_dual(batch.loss_of(returned))
        except NotImplementedError as error:
            raise UnsupportedError(
                "forward-gradient: PyTorch does not differentiate an operation forward: "
                f"{str(error).splitlines()[0][:200]}"
            ) from error
        outputs = recursively_apply(lambda t: forward_ad.unpack_dual(t).primal.clone(), returned)
        if slope is None:
            raise outside_autograd(network)
        return outputs, loss.clone(), float(slope)


def _drawn(like: Tensor, distribution: str, generator: torch.Generator) -> Tensor:
    if distribution == "normal":
        return torch.randn(like.shape, generator=generator).to(like)
    return torch.randint(0, 2, like.shape, generator=generator).mul_(2).sub_(1).to(like)
