"""Recurrent layers that compute with held weights: torch's keep a list of weights that would not be these."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def follow(module: nn.Module) -> None:
    """Let a recurrent layer that carries a parametrization read its weights anew at each pass; any other is left alone.

    The list would also keep tensors of the last pass alive, with their graph, and could then not be copied. The class
    that torch made for the parametrization gets a list of its own, and goes with the last parametrization.
    """
    if not isinstance(module, nn.RNNBase):
        return
    module.__dict__.pop("_flat_weights", None)
    module.__dict__["_flat_weight_refs"] = []
    own: Any = type(module)
    own._flat_weights = property(_weights, _ignored)
    own._update_flat_weights = own._init_flat_weights = own.flatten_parameters = _nothing
    own._replicate_for_data_parallel = nn.Module._replicate_for_data_parallel
    own.__setstate__ = nn.Module.__setstate__


def settle(module: nn.Module) -> None:
    """Give a recurrent layer without parametrizations its list again."""
    if isinstance(module, nn.RNNBase) and "_flat_weights" not in module.__dict__ and not _follows(module):
        module._init_flat_weights()


def _follows(module: nn.Module) -> bool:
    return isinstance(getattr(type(module), "_flat_weights", None), property)


def _weights(module: Any) -> list[Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _ignored(module: nn.Module, value: object) -> None:
    """Nothing is kept."""


def _nothing(module: nn.Module) -> None:
    """Nothing is kept that could be out of date."""
