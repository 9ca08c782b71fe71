"""What autograd does not say of one forward pass: which inputs are data, and which formula an operation belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fewbits.measure.relevance._composed import COMPOSED, Composed, How, operations_of
from fewbits.measure.relevance._nodes import BATCH_NORMS, Node, edges, kind
from fewbits.weights import aliases, layers


def unseen(hook: Callable[..., Any]) -> Callable[..., Any]:
    """What a hook does itself is not watched: each attribute of a tensor would count as a call."""

    @wraps(hook)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return hook(*args, **kwargs)

    return quiet


class Tape:
    """Watches the forward passes of a network, each an ordinary one; the last one counts.

    Autograd itself records what was computed. Meanwhile inputs and parameters ask for gradients, recurrent layers are
    computed step by step (a fused kernel tells nothing), and what no node says is noted here.

    Args:
        model: the network itself, not a wrapper around it.
        operations: what unknown operations are, see :func:`fewbits.measure.relevance.relevance`.
        account: whether to keep constants that are added, which conservation is checked with.
        probe: whether to keep the operands of every operation, for a test of homogeneity.

    Raises:
        RecipeError: an operation that is none.
    """

    def __init__(
        self,
        model: nn.Module,
        operations: Mapping[Any, How] | None = None,
        *,
        account: bool = False,
        probe: bool = False,
    ) -> None:
        self.model, self.account, self.probe = model, account, probe
        self.operations = operations_of(operations or {}, model)
        self.names = _names(model)
        self.clear()

    def clear(self) -> None:
        """Let go of everything that a forward pass left."""
        self.sources: dict[Node, tuple[int, Tensor]] = {}  # where data enters: its place among the inputs, and it
        self.indices: dict[int, Tensor] = {}  # inputs that are integers, by their place
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self.values: dict[Node, tuple[Tensor, int]] = {}  # what layers gave, with the version of its memory
        self.addends: dict[Node, list[Tensor]] = {}  # of a sum or a difference, each with its sign
        self.in_place: dict[Node, str] = {}  # what was done to a view, of which autograd names only the copy
        self.operands: dict[Node, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {}
        self.statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # a batch's mean, and one over its deviation
        self._calls: list[tuple[str, set[Node], list[Node]]] = []  # what each module was given, and gave

    @contextmanager
    def glance(self) -> Iterator[Tape]:
        """Note what the network is given and the statistics of its normalisations, and nothing that costs."""
        with ExitStack() as stack:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    stack.callback(module.register_forward_hook(self._statistics).remove)
            stack.callback(self.model.register_forward_pre_hook(self._given, with_kwargs=True).remove)
            yield self

    def _given(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.clear()
        self.arguments = args, kwargs

    def _statistics(self, module: nn.Module, args: Any, output: Tensor) -> None:
        node: Any = output.grad_fn
        if node is not None and kind(node) in BATCH_NORMS:
            self.statistics[module] = node._saved_result1, node._saved_result2

    @contextmanager
    def watch(self) -> Iterator[Tape]:
        """Record the forward passes inside the ``with`` block."""
        frozen = [p for p in self.model.parameters() if p.is_floating_point() and not p.requires_grad]
        weighted = set(layers(self.model).values())
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            for p in frozen:
                p.requires_grad_(True)
                stack.callback(p.requires_grad_, False)
            for path, module in self.model.named_modules():
                self._hook(stack, path, module, module in weighted)
                if isinstance(module, _BatchNorm):
                    stack.callback(module.register_forward_hook(self._statistics).remove)
            # Last, so that the user's own hooks see what they always see.
            stack.callback(self.model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            stack.enter_context(_Watch(self))
            yield self

    def _hook(self, stack: ExitStack, path: str, module: nn.Module, weighted: bool) -> None:
        how = next((self.operations[cls] for cls in type(module).__mro__ if cls in self.operations), None)
        how = how or COMPOSED.get(type(module).__name__)

        @unseen
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.requires_grad]
            if how is not None and isinstance(output, Tensor) and output.requires_grad and given:
                output = Composed.apply(how, output, *given)
            if weighted and isinstance(output, Tensor) and output.grad_fn is not None:
                value = output.detach()
                self.values[output.grad_fn] = value, value._version
            made = [t.grad_fn for t in tree_leaves(output) if isinstance(t, Tensor)]
            self._calls.append((path, {t.grad_fn for t in given}, made))
            return output

        if isinstance(module, nn.RNNBase):
            kernels: list[ExitStack] = []

            def apart(*_: Any) -> None:
                kernels.append(ExitStack())
                with warnings.catch_warnings():  # of what other devices could do
                    warnings.simplefilter("ignore")
                    kernels[-1].enter_context(torch.backends.mkldnn.flags(enabled=False))
                    kernels[-1].enter_context(torch.backends.cudnn.flags(enabled=False))

            stack.callback(module.register_forward_pre_hook(apart).remove)
            closing = module.register_forward_hook(lambda *_: kernels.pop().close(), always_call=True)
            stack.callback(closing.remove)
        stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)

    @unseen
    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._given(module, args, kwargs)

        def marked(x: Tensor) -> Tensor:
            place = len(self.sources) + len(self.indices)
            if not x.is_floating_point():
                if x.dtype in (torch.int64, torch.int32):
                    self.indices[place] = x
                return x
            x = x if x.requires_grad else x.detach().requires_grad_()
            through = x.clone()  # a network may write into what it is given
            self.sources[through.grad_fn] = place, x
            return through

        return tree_map_only(Tensor, marked, (args, kwargs))

    def path_of(self, wanted: Node) -> str:
        """The path of the innermost module that made a node; empty for the network itself."""
        for path, given, outputs in self._calls:  # inner modules end before outer ones
            if any(wanted in between(output, given) for output in outputs):
                return path
        return ""


def _names(model: nn.Module) -> dict[int, str]:
    """Names of weights by the parameters that hold them, under a parametrization as well."""
    names = {}
    for name, p in model.named_parameters():
        place, _, last = name.rpartition(".")
        if ".parametrizations." in f".{name}":
            before, _, after = f".{name}".partition(".parametrizations.")
            name = f"{before}.{after.partition('.')[0]}".strip(".")
        elif last in ("weight_v", "weight_orig"):  # of the older forms of weight_norm and spectral_norm
            name = f"{place}.weight".lstrip(".")
        names[id(p)] = name
    first = aliases(model)  # parameters that carry a plan come later than they do in the plain network
    return {key: first.get(name, name) for key, name in names.items()}


class _Watch(TorchFunctionMode):
    """Sees every call of a torch function."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _ASKS and args[0].requires_grad and args[1]:
            return None  # an input that asks for gradients, as networks have it that checkpoint their blocks
        output = func(*args, **kwargs)
        tape = self.tape
        how = tape.operations.get(func) if tape.operations else None
        if how is not None and isinstance(output, Tensor) and output.requires_grad:
            given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.requires_grad]
            output = Composed.apply(how, output, *given)
        name = _in_place(getattr(func, "__name__", ""), args, kwargs)
        if name is not None and args and isinstance(args[0], Tensor):
            for place in (args[0], args[0]._base):
                if place is not None and place.grad_fn is not None and kind(place.grad_fn) == "CopySlices":
                    tape.in_place[place.grad_fn] = name
        if name is None and "circular" in (*args[2:], *kwargs.values()) and isinstance(output, Tensor):
            for node in between(output.grad_fn, {args[0].grad_fn}):  # written by parts, below what is watched
                tape.in_place.setdefault(node, "copy_")
        if getattr(func, "__name__", "") == "_pad_packed_sequence":
            for node in between(output[0].grad_fn, {args[0].grad_fn}):
                tape.in_place.setdefault(node, "copy_")
        if (tape.account or tape.probe) and isinstance(output, Tensor):
            node = output.grad_fn
            called = getattr(func, "__name__", "").strip("_").removeprefix("i")
            if node is not None and tape.account and called in _SUMS and kind(node) in ("Add", "Sub", "Rsub"):
                tape.addends.setdefault(node, _addends(called, args, kwargs))
            if node is not None and tape.probe:
                tape.operands.setdefault(node, (func, args, kwargs))
        return output


_ASKS = Tensor.requires_grad.__set__  # type: ignore[attr-defined]
_SUMS = ("add", "radd", "sub", "subtract", "rsub")
_WRITES = frozenset(["__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"])


def _in_place(name: str, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    """What a function does to its first argument, in the words of its method; ``None`` if it leaves it as it is."""
    if name in _WRITES or (name.endswith("_") and not name.startswith("__")):
        return name
    written = kwargs.get("inplace") or any(a is True for a in args[1:])
    return f"{name}_" if written else None


def _addends(name: str, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Operands of a sum or a difference in the order of the node's edges, with their signs."""
    operands = [*args[:2], *(kwargs[k] for k in ("input", "other") if k in kwargs)]
    alpha = kwargs.get("alpha", 1)
    if name == "rsub":
        signs = [-alpha, 1]
    else:
        signs = [1, -alpha if name in ("sub", "subtract") else alpha]
    return [torch.as_tensor(v).detach() * sign for v, sign in zip(operands, signs, strict=False)]


def inside(composed: Node) -> set[Node]:
    """The nodes that a composed operation was made of."""
    (first, _), *given = edges(composed)
    return between(first, {node for node, _ in given})


def between(first: Node | None, stop: set[Node]) -> set[Node]:
    """``first`` and all that leads to it, as far as the nodes of ``stop``."""
    found: set[Node] = set()
    stack = [first]
    while stack:
        node = stack.pop()
        if node is not None and node not in stop and node not in found:
            found.add(node)
            stack.extend(below for below, _ in edges(node))
    return found
