"""A plan's tensors put into a plain network, which loses the plan's removed channels first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewbits.attach.attach import counters
from fewbits.channels.surgery import prune_channels
from fewbits.errors import MismatchError, did_you_mean
from fewbits.plan import Plan


def load_plan(model: nn.Module, plan: Plan) -> None:
    """Give a plain network the tensors of ``plan``, in place.

    If channels were removed, the network may be the one before (it loses the same channels) or after. A tensor that
    the plan has under several names goes to all of them, whether or not the network shares it, too.

    Raises:
        MismatchError: names or shapes differ, or a number is beyond the network's type; the message has both sides.
    """
    state = model.state_dict()
    if plan.channels is not None and _is_larger(state, plan):
        prune_channels(model, plan.channels)
        state = model.state_dict()
    tensors = plan.tensors()
    for name, tensor in tensors.items():
        if name not in state:
            raise MismatchError(f"the plan has {name!r}, which the network lacks{did_you_mean(name, state)}")
        if state[name].shape != tensor.shape:
            raise MismatchError(
                f"{name}: the plan has shape {tuple(tensor.shape)}, the network {tuple(state[name].shape)}"
            )
        state[name] = _fitting(name, tensor, state[name].dtype)
    counted = counters(model)
    missing = [name for name in state if name not in tensors and name not in counted]
    if missing:
        raise MismatchError(f"the plan lacks {missing[0]!r} (and {len(missing) - 1} more) of the network")
    model.load_state_dict(state)


def _fitting(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in the network's type; MismatchError where that makes infinity of a number."""
    if tensor.dtype == dtype or not (tensor.is_floating_point() and dtype.is_floating_point):
        return tensor
    found = tensor.to(dtype)
    if int(torch.isfinite(tensor).sum()) != int(torch.isfinite(found).sum()):
        largest = float(tensor[torch.isfinite(tensor)].abs().max())
        raise MismatchError(
            f"{name}: the plan has {largest:.3g}, which the network's {dtype} does not hold; give a network in float32"
        )
    return found


def _is_larger(state: Mapping[str, Tensor], plan: Plan) -> bool:
    """Whether this is the state of the network that the plan's channels were removed from."""
    assert plan.channels is not None
    name = next((n for n in plan.channels.kept if n in plan), "")  # none if every channel stayed
    return name in state and tuple(state[name].shape) == plan.channels.full(name, plan[name].shape)
