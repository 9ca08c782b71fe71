"""A plan's tensors put into a plain network, which loses the plan's removed channels first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from fewbits.attach.attach import counters
from fewbits.channels.surgery import prune_channels
from fewbits.errors import MismatchError, did_you_mean
from fewbits.ops.swap import swap
from fewbits.plan import Entry, Plan
from fewbits.weights import aliases

AT_ONCE = 1 << 22
"""Numbers that are made of a plan at a time: 16 MB."""


def load_plan(model: nn.Module, plan: Plan) -> None:
    """Give a plain network the tensors of ``plan``, and the operations that it computes with, in place.

    If channels were removed, the network may be the one before (it loses the same channels) or after. A tensor that
    the plan has under several names goes to all of them, whether or not the network shares it, too.

    Raises:
        MismatchError: names or shapes differ, or a number is beyond the network's type; the message has both sides.
    """
    state = model.state_dict()
    if plan.channels is not None and _is_larger(state, plan):
        prune_channels(model, plan.channels)
        state = model.state_dict()
    entries = dict(plan) | {other: plan[name] for other, name in plan.aliases.items()}
    for name, entry in entries.items():
        if name not in state:
            raise MismatchError(f"the plan has {name!r}, which the network lacks{did_you_mean(name, state)}")
        if tuple(state[name].shape) != entry.shape:
            raise MismatchError(f"{name}: the plan has shape {entry.shape}, the network {tuple(state[name].shape)}")
        if state[name].dtype != torch.float32:
            _fitting(name, entry.values(), state[name].dtype)  # refused before anything is loaded
    for other, first in aliases(model).items():
        mine, theirs = entries.get(first), entries.get(other)
        if mine is None or theirs is None or mine is theirs:
            continue
        if not torch.equal(mine.values(), theirs.values()):
            raise MismatchError(
                f"{first!r} and {other!r} are one tensor of the network, and two with other numbers in the plan: give "
                "a network that does not share it"
            )
    counted = counters(model)
    missing = [name for name in state if name not in entries and name not in counted]
    if missing:
        raise MismatchError(f"the plan lacks {missing[0]!r} (and {len(missing) - 1} more) of the network")
    for names in _portions(entries):
        portion = OrderedDict((name, _fitting(name, entries[name].values(), state[name].dtype)) for name in names)
        portion._metadata = state._metadata  # type: ignore[attr-defined]  # versions of its modules
        model.load_state_dict(portion, strict=False)
    swap(model, plan.approximations)


def _portions(entries: Mapping[str, Entry]) -> list[list[str]]:
    """Names in turn, of no more numbers at once than :data:`AT_ONCE`: not all tensors need to be there twice."""
    portions: list[list[str]] = [[]]
    size = 0
    for name, entry in entries.items():
        size += prod(entry.shape)
        if size > AT_ONCE and portions[-1]:
            portions.append([])
            size = prod(entry.shape)
        portions[-1].append(name)
    return portions


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
