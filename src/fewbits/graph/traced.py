"""A look at a network's computation through ``torch.fx``: which operation feeds which, and of what kind each is."""

from __future__ import annotations

import inspect
import operator
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fewbits.errors import UnsupportedError


class Kind(StrEnum):
    """What an operation does to the elements of its operands."""

    INPUT = "input"
    WEIGHTED = "weighted"  # linear and convolutional layers
    NORM = "norm"  # channel by channel: batch and instance normalisation
    PASS = "pass"  # element by element
    MOVE = "move"  # elements are moved or chosen (reshape, pad, cat, max pooling)
    SHARE = "share"  # sums and averages
    DATA = "data"  # shapes and constants
    OUTPUT = "output"


_PASS_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardtanh, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Identity, nn.Mish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.CELU, nn.Threshold,
    nn.RReLU, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.PReLU, nn.FeatureAlphaDropout,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
_MOVE_MODULES = (
    nn.Flatten, nn.Unflatten, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.GLU,
)  # fmt: skip
_SHARE_MODULES = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Upsample, nn.LPPool1d, nn.LPPool2d,
    nn.Softmax, nn.LogSoftmax, nn.Softmin,
)  # fmt: skip
_NORM_MODULES = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
MODULES: dict[type[nn.Module], Kind] = {
    **dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), Kind.WEIGHTED),
    **dict.fromkeys(_NORM_MODULES, Kind.NORM),
    **dict.fromkeys(_PASS_MODULES, Kind.PASS),
    **dict.fromkeys(_MOVE_MODULES, Kind.MOVE),
    **dict.fromkeys(_SHARE_MODULES, Kind.SHARE),
}

_PASS_FUNCTIONS = (
    F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardtanh, F.softplus,
    torch.relu, torch.relu_, torch.tanh, torch.sigmoid,
)  # fmt: skip
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout)
_MOVE_FUNCTIONS = (
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze,
    torch.cat, torch.concat, torch.stack, F.pad, F.max_pool1d, F.max_pool2d, F.max_pool3d,
    F.adaptive_max_pool2d, operator.getitem,
)  # fmt: skip
_SHARE_FUNCTIONS = (
    operator.add, operator.iadd, torch.add, torch.mean, torch.sum, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate,
)  # fmt: skip
FUNCTIONS: dict[Callable[..., Any], Kind] = {
    **dict.fromkeys(_PASS_FUNCTIONS + DROPOUTS, Kind.PASS),
    **dict.fromkeys(_MOVE_FUNCTIONS, Kind.MOVE),
    **dict.fromkeys(_SHARE_FUNCTIONS, Kind.SHARE),
}

_MOVE_METHODS = "view reshape flatten permute transpose contiguous squeeze unsqueeze t expand narrow"
METHODS: dict[str, Kind] = {
    **dict.fromkeys(("relu", "relu_", "tanh", "sigmoid"), Kind.PASS),
    **dict.fromkeys(_MOVE_METHODS.split(), Kind.MOVE),
    **dict.fromkeys(("add", "add_", "mean", "sum"), Kind.SHARE),
    **dict.fromkeys(("size", "dim", "numel"), Kind.DATA),
}


class _Proxy(fx.Proxy):
    """Tells ``y += x`` from ``y = y + x``, which plain ``torch.fx`` does not: one overwrites ``y``."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at layers whose kind is known, parametrized ones included; looks into everything else."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self._fixed = fixed

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Its arguments; those that are fixed as they are, and not torch.fx's way, which leaves checks in the graph."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        for place, given in enumerate(args):
            if isinstance(given, fx.Proxy) and (name := str(given.node.target)) in self._fixed:
                args[place] = self._fixed[name]
                self.graph.erase_node(given.node)
        return function, args

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Parts one by one, where the call says how many there are; fewer chunks fail when the graph runs."""
        count = _parts(obj.node)
        return super().iter(obj) if count is None else iter([operator.getitem(obj, place) for place in range(count)])

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict) and (
            kind_of_module(m) is not None or super().is_leaf_module(m, module_qualified_name)
        )


def _parts(node: fx.Node) -> int | None:
    """How many parts a tensor is split into, if the call itself says so."""
    if node.op not in ("call_function", "call_method"):
        return None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    names = {"chunk": ("chunks",), "split": ("split_size_or_sections", "split_size"), "tensor_split": TENSOR_SPLIT}
    if name not in names:
        return None
    given = [node.kwargs[key] for key in names[name] if key in node.kwargs] or list(node.args[1:2])
    if isinstance(given[0], tuple | list):
        return len(given[0]) + (name == "tensor_split")
    return given[0] if isinstance(given[0], int) and name != "split" else None


TENSOR_SPLIT = ("indices_or_sections", "sections", "indices")


def kind_of_module(module: nn.Module) -> Kind | None:
    """The kind of a layer by its class, ``None`` when unknown.

    A class that specialises a known one counts as that one, unless it computes something of its own.
    """
    for cls in type(module).__mro__:
        if cls in MODULES and type(module).forward is cls.forward:
            return MODULES[cls]
    return None


def graph_of(
    model: nn.Module, *, fixed: Mapping[str, Any] | None = None, way: str = "ecq, ecqx and pruning do without"
) -> fx.Graph:
    """The bare graph of a network, whether or not relevance can go through it.

    Args:
        fixed: values of arguments of its forward, which then are no inputs of the graph. way: out, where there is none.

    Raises:
        UnsupportedError: control flow that depends on data.
    """
    for name in [name for name in vars(model) if _CONSTANT.fullmatch(name)]:
        delattr(model, name)  # of a tracing before: the same tensors come again, and have their names again
    try:
        with left_alone(model):
            return _Tracer(fixed or {}).trace(model)
    except Exception as error:  # torch.fx raises many types, depending on what the forward does
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UnsupportedError(
            f"cannot read the structure of {type(model).__name__} with torch.fx{_line_of(error)}: {reason[:200]}; {way}"
        ) from error


def defaults_of(model: nn.Module) -> dict[str, Any]:
    """Arguments of the forward that need not be given: all that have defaults, but one if there are no others."""
    found = inspect.signature(model.forward).parameters.values()
    own = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if own and all(p.default is not p.empty for p in own):
        own = own[1:]
    return {p.name: p.default for p in own if p.default is not p.empty}


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """What a forward pass keeps in attributes of a network is as before: some keep what they computed (LeViT).

    A trace would leave stand-ins there, which nothing can copy; a look at a network, values that grow old.
    """
    modules = list(model.modules())
    own = [{name: value for name, value in vars(m).items() if name[0] != "_" and name != "training"} for m in modules]
    inside = [(value, value.copy()) for some in own for value in some.values() if type(value) in (dict, list)]
    try:
        yield
    finally:
        for value, before in inside:
            value.clear()
            value.update(before) if isinstance(value, dict) else value.extend(before)
        for module, some in zip(modules, own, strict=True):
            for name, value in list(vars(module).items()):
                if isinstance(value, fx.Proxy) and name not in some:
                    delattr(module, name)
            for name, value in some.items():
                if vars(module).get(name) is not value:
                    vars(module)[name] = value


_CONSTANT = re.compile(r"_tensor_constant\d+")
_FOREIGN = (f"{os.sep}torch{os.sep}", f"{os.sep}fewbits{os.sep}")  # folders of what is not the user's own


def _line_of(error: BaseException) -> str:
    """The innermost line of somebody's own that an error went through, in words."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in _FOREIGN)]
    if not own:
        return ""
    return f" at line {own[-1].lineno} of {os.path.basename(own[-1].filename)}, in {own[-1].name}"


def placed(graph: fx.Graph, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Arguments of a call of a network, in the order in which its graph takes them.

    Raises:
        UnsupportedError: one is missing.
    """
    given = list(args)
    for node in [n for n in graph.nodes if n.op == "placeholder"][len(args) :]:
        name = str(node.target)
        if name not in kwargs and not node.args and not name.startswith("*"):
            raise UnsupportedError(f"the network's forward needs {name!r}, which the batch does not have")
        given.append(kwargs.get(name, node.args[0] if node.args else ({} if name.startswith("**") else ())))
    return given


def arguments(node: fx.Node) -> Mapping[str, Any]:
    """Arguments of a function's node by their names, given by position or not."""
    assert callable(node.target)
    try:
        return inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # a builtin says nothing of its signature
        return node.kwargs
