"""Operations that are known as a whole: a module or function whose parts have no rule, or not the right one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError, UnsupportedError, did_you_mean
from fewbits.measure.relevance._nodes import Node

HOWS = ("linear", "elementwise", "scale")
How = str | Callable[..., Any]

# Classes of other libraries that write an activation out as a formula.
COMPOSED: dict[str, How] = dict.fromkeys(
    ("NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "QuickGELU", "ClippedGELUActivation",
     "AccurateGELUActivation", "LaplaceActivation", "ReLUSquaredActivation", "GELUTanh", "GeluTanh", "HardMish",
     "HardMishJit", "Swish", "MishActivation", "GELUActivation", "PytorchGELUTanh"),
    "elementwise",
)  # fmt: skip


class Composed(torch.autograd.Function):
    """The output as it is; gradients take the way through its parts, relevance the one that ``how`` says."""

    @staticmethod
    def forward(ctx: Any, how: How, output: Tensor, *inputs: Tensor) -> Tensor:
        ctx.how = how
        ctx.save_for_backward(output, *inputs)
        return output.clone()  # a view of it could not be written to

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, gradients[0], *[None] * (len(ctx.saved_tensors) - 1)


def handed(node: Node, c: Tensor) -> list[Tensor | None]:
    """What a composed operation hands to its output's parts and to each of its inputs.

    Raises:
        UnsupportedError: an elementwise operation that changes the shape, or a function that gives something else.
    """
    output, *inputs = node.saved_tensors
    if node.how == "linear":
        return [c, *[None] * len(inputs)]
    if node.how == "scale":
        return [None] * (1 + len(inputs))
    if node.how == "elementwise":
        x = inputs[0]
        if x.shape != output.shape:
            raise UnsupportedError(
                f"an operation from shape {tuple(x.shape)} to {tuple(output.shape)} is not elementwise; name it "
                "'linear' or 'scale', or give a function"
            )
        safe = torch.where(x == 0, torch.ones_like(x), x)
        return [None, c * torch.where(x == 0, torch.zeros_like(x), output / safe), *[None] * (len(inputs) - 1)]
    found = node.how(c, tuple(inputs), output)
    parts = list(found) if isinstance(found, tuple) else [found]
    shapes = [x.shape if p is None else p.shape for p, x in zip(parts, inputs, strict=False)]
    if len(parts) != len(inputs) or shapes != [x.shape for x in inputs]:
        raise UnsupportedError(
            f"{_name(node.how)} has to give one tensor of relevance per value for each of the {len(inputs)} inputs, of "
            "its shape, or None"
        )
    return [None, *parts]


def operations_of(given: Mapping[Any, How], model: nn.Module) -> dict[Any, How]:
    """What each operation is: a module class, a torch function, or the name of a node of the autograd graph.

    A string is the name of a class of the network's modules (``"MyGate"``), of a function of torch (``"torch.exp"``,
    ``"torch.nn.functional.normalize"``), or of a node (``"ExpBackward0"``, ``"Exp"``).

    Raises:
        RecipeError: it is none of these, or not a known way.
    """
    classes = {type(m).__name__: type(m) for m in model.modules()}
    found: dict[Any, How] = {}
    methods: dict[Any, How] = {}  # torch.exp(x) may be written x.exp()
    for key, how in given.items():
        if not callable(how) and how not in HOWS:
            raise RecipeError(
                f"operations: {_name(key)} is {how!r}, which has to be {', '.join(HOWS)} or a function"
                f"{did_you_mean(str(how), HOWS)}"
            )
        if not isinstance(key, str):
            found[key] = how
            methods |= dict.fromkeys(_methods(key), how)
        elif key in classes:
            found[classes[key]] = how
        elif key.startswith("torch."):
            found[_function(key)] = how
            methods |= dict.fromkeys(_methods(_function(key)), how)
        elif key[:1].isupper():
            found[key.partition("Backward")[0]] = how
        else:
            raise RecipeError(
                f"operations: {key!r} is no class of the network's modules, no function of torch ('torch.exp') and no "
                f"node of its autograd graph ('ExpBackward0'){did_you_mean(key, classes)}"
            )
    return methods | found


def _methods(function: Any) -> list[Any]:
    """The tensor's method that does what a function of torch does; none for a module's class."""
    name = getattr(function, "__name__", "")
    ours = name and any(getattr(place, name, None) is function for place in (torch, torch.nn.functional))
    return [getattr(Tensor, name)] if ours and hasattr(Tensor, name) else []


def _function(name: str) -> Any:
    place: Any = torch
    for part in name.split(".")[1:]:
        place = getattr(place, part, None)
    if not callable(place) or inspect.ismodule(place):
        raise RecipeError(f"operations: there is no function {name!r}")
    return place


def _name(what: Any) -> str:
    return getattr(what, "__name__", repr(what))
