"""torch's optimizers as they are, without the compiler that their decorators load: 75 MB and a second for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn


def _undecorated(method: Any) -> Callable[..., Any]:
    """What is behind ``torch._disable_dynamo`` and its like, if torch lets us see it."""
    found: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return found


Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])


def _light(kind: Kind) -> Kind:
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: _undecorated(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(_undecorated(kind.step))  # its decorator switches gradients off, too
    return type(kind.__name__, (kind,), methods)  # type: ignore[return-value]


Adam, SGD = _light(torch.optim.Adam), _light(torch.optim.SGD)


def step_one(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> None:
    """The step of one parameter of a group, whose gradient then goes.

    It is the step of all but for its moment: Adam and SGD treat each number by itself.
    """
    groups = optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [parameter]}]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups
    parameter.grad = None
