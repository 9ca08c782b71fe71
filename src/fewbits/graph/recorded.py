"""A look at a network's computation through one run: what ``torch.fx`` cannot trace, seen as it happens.

The graph has the operations, names and arguments that a trace has. Sizes that the forward pass asks for stay known as
such, so a reshape that leaves an axis open, or takes a size from a tensor, is told from one that is written in numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from fewbits.graph.traced import kind_of_module

VALUE = "value"
"""In a node's ``meta``: what it gave in the run."""
PLACE = "place"
"""In a node's ``meta``: path of the innermost module at work."""

OPENED = (
    nn.Transformer, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)  # fmt: skip
"""Layers of PyTorch's that are made of others, into which a run looks."""
_ABOUT = frozenset(
    ["dtype", "device", "layout", "requires_grad", "is_cuda", "is_cpu", "is_nested", "is_sparse", "is_quantized",
     "ndim", "grad_fn", "is_leaf", "names", "is_meta", "is_mps", "is_xpu", "itemsize", "_version", "is_mkldnn"]
)  # fmt: skip
_ASKED = frozenset(
    ["dim", "ndimension", "is_floating_point", "is_complex", "is_contiguous", "stride", "storage_offset", "data_ptr",
     "get_device", "element_size", "untyped_storage", "__hash__", "__repr__", "__format__", "requires_grad_"]
)  # fmt: skip
_NAMED = (
    "add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "matmul", "neg", "abs", "invert", "eq", "ne", "lt", "le",
    "gt", "ge", "iadd", "isub", "imul", "itruediv", "getitem", "setitem", "and_", "or_",
)  # fmt: skip
_OPERATORS = {f"__{name.strip('_')}__": getattr(operator, name) for name in _NAMED}
_SWAPPED = {f"__r{name}__": getattr(operator, name) for name in _NAMED[:7]}


def place_of(node: fx.Node) -> str:
    """Path of the innermost module that an operation of either reader's graph belongs to."""
    stack = node.meta.get("nn_module_stack")
    return str(node.meta.get(PLACE) or (next(reversed(stack.values()))[0] if stack else ""))


def unseen(*values: Any) -> None:
    """Stands in a graph for whatever made a tensor out of sight; it may have read any of the values before it."""


def recorded(model: nn.Module, given: Iterable[Tensor], call: Callable[[], Iterable[Tensor]]) -> fx.Graph:
    """The graph of one run of a network, without gradients.

    Nodes have the kinds and targets that :func:`fewbits.graph.traced.graph_of` gives, and in ``meta`` what they gave
    (:data:`VALUE`) and the module that they belong to (:data:`PLACE`). What is decided by numbers is decided as in this
    run. A tensor that something out of sight has made, as a function of one's own for autograd does, is read by
    :func:`unseen`.

    Args:
        model: a plain network; not changed. given: the tensors that it is called with.
        call: calls its forward pass, and gives the tensors of the result.
    """
    recorder = _Recorder(model)
    with torch.no_grad(), recorder.watching():
        recorder.begin(given)
        with recorder:
            outputs = call()
        recorder.close(outputs)
    return recorder.graph


class _Size(int):
    """A number that the forward pass asked a tensor for, or computed from such ones."""

    recorder: _Recorder
    make: Callable[[], fx.Node]
    made: fx.Node | None

    @property
    def node(self) -> fx.Node:
        if self.made is None:
            self.made = self.make()
        return self.made


def _of_sizes(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    """An operator of :class:`_Size` that is seen."""

    def computed(self: _Size, *others: Any) -> Any:
        if not all(isinstance(other, int | float) for other in others):
            return NotImplemented
        given = (*others, self) if swapped else (self, *others)
        result = function(*map(_bare, given))
        recorder = self.recorder
        if not recorder.running:
            return result
        node = recorder.node("call_function", function, given, {}, result)
        return recorder.size(result, lambda: node) if type(result) is int else result

    return computed


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow"):
    setattr(_Size, f"__{_name}__", _of_sizes(getattr(operator, _name)))
    setattr(_Size, f"__r{_name}__", _of_sizes(getattr(operator, _name), swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Size, f"__{_name}__", _of_sizes(getattr(operator, _name)))
_Size.__neg__ = _of_sizes(operator.neg)  # type: ignore[method-assign]
_Size.__hash__ = int.__hash__  # type: ignore[method-assign]
_Size.__float__ = _of_sizes(float)  # type: ignore[method-assign]


def _bare(value: Any) -> Any:
    return int.__add__(value, 0) if isinstance(value, _Size) else value


class _Recorder(TorchFunctionMode):
    """Between a network and torch: notes each call that no layer makes, and each layer as a whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.graph = fx.Graph()
        self.running = True
        self.layers = 0  # layers at work, of which nothing inside is noted
        self.paths = [""]
        self.nodes: dict[int, fx.Node] = {}  # of the tensors that are known, by identity; their nodes keep them alive
        self.parts: dict[int, tuple[fx.Node, int]] = {}  # of tensors in a tuple that an operation gave
        self.own = {id(t): n for n, t in (*model.named_parameters(), *model.named_buffers())}
        self.constants = {
            id(value) for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)
        }

    # -- nodes -------------------------------------------------------------------------------------------

    def node(self, op: str, target: Any, args: Any, kwargs: Any, value: Any, name: str | None = None) -> fx.Node:
        """A further node, whose arguments are nodes where they are known values."""
        made = self.graph.create_node(op, target, self.known(tuple(args)), self.known(dict(kwargs)), name)
        made.meta |= {VALUE: value, PLACE: self.paths[-1]}
        return made

    def known(self, value: Any) -> Any:
        """A nested value with nodes in place of tensors and sizes."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, _Size):
            return value.node
        if isinstance(value, tuple | list):
            return (tuple if isinstance(value, tuple) else list)(map(self.known, value))
        if isinstance(value, dict):
            return {key: self.known(part) for key, part in value.items()}
        if isinstance(value, slice):
            return slice(self.known(value.start), self.known(value.stop), self.known(value.step))
        return value

    def _tensor(self, tensor: Tensor) -> fx.Node:
        found = self.nodes.get(id(tensor))
        if found is not None:
            return found
        if id(tensor) in self.parts:
            whole, place = self.parts[id(tensor)]
            return self._note(tensor, self.node("call_function", operator.getitem, (whole, place), {}, tensor))
        if id(tensor) in self.own or id(tensor) in self.constants:
            made = self.graph.create_node("get_attr", self.own.get(id(tensor), f"constant_{len(self.nodes)}"))
            made.meta |= {VALUE: tensor, PLACE: self.paths[-1]}
            return self._note(tensor, made)
        before = tuple(node for node in self.graph.nodes if isinstance(node.meta[VALUE], Tensor | tuple | list))
        made = self.graph.create_node("call_function", unseen, before)
        made.meta |= {VALUE: tensor, PLACE: self.paths[-1]}
        return self._note(tensor, made)

    def _note(self, tensor: Tensor, node: fx.Node) -> fx.Node:
        self.nodes[id(tensor)] = node
        return node

    def noted(self, node: fx.Node, result: Any) -> None:
        """Let what an operation gave be known by it."""
        if isinstance(result, Tensor):
            self._note(result, node)
        elif isinstance(result, tuple | list):
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.nodes.pop(id(part), None)
                    self.parts[id(part)] = node, place

    def size(self, number: int, make: Callable[[], fx.Node]) -> _Size:
        """A size that is known by a node, which is made where it is used."""
        found = _Size(number)
        found.recorder, found.make, found.made = self, make, None
        return found

    # -- begin and end -----------------------------------------------------------------------------------

    def begin(self, given: Iterable[Tensor]) -> None:
        """Take in what the network is called with."""
        for number, tensor in enumerate(given):
            made = self.graph.create_node("placeholder", f"input_{number}")
            made.meta |= {VALUE: tensor, PLACE: ""}
            self._note(tensor, made)

    def close(self, outputs: Iterable[Tensor]) -> None:
        """Note what the network returned."""
        self.running = False
        last = self.graph.output(tuple(map(self._tensor, outputs)))
        last.meta |= {VALUE: None, PLACE: ""}

    # -- layers ------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module; attention in its plain form."""
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            torch.backends.mha.set_fastpath_enabled(False)
            for path, module in self.model.named_modules():
                if path:
                    begins, ends = self._hooks(path, _is_layer(module))
                    stack.callback(module.register_forward_pre_hook(begins, with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(ends, with_kwargs=True, prepend=True).remove)
            yield

    def _hooks(self, path: str, layer: bool) -> tuple[Callable[..., None], Callable[..., None]]:
        def begins(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.paths.append(path)
            if layer:
                self.layers += 1
                if self.layers == 1:
                    self._given = self.known(args), self.known(kwargs)

        def ends(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            if layer:
                self.layers -= 1
                if not self.layers:
                    self.noted(self.node("call_module", path, *self._given, result), result)
            self.paths.pop()

        return begins, ends

    # -- calls -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = None if self.layers or torch._C._functorch.peek_interpreter_stack() is not None else _called(func, args)
        if found is None:
            return func(*_plain(args), **_plain(kwargs))
        op, target, given = found
        named = self.known(given), self.known(kwargs)  # before it changes in place what it is given
        result = func(*_plain(args), **_plain(kwargs))
        node = self.node(op, target, *named, result)
        if isinstance(result, torch.Size):
            return torch.Size([self._dimension(node, place, number) for place, number in enumerate(result)])
        if type(result) is int:
            return self.size(result, lambda: node)
        self.noted(node, result)
        return result

    def _dimension(self, shape: fx.Node, place: int, number: int) -> _Size:
        return self.size(number, lambda: self.node("call_function", operator.getitem, (shape, place), {}, number))


def _plain(value: Any) -> Any:
    """A nested value with numbers in place of sizes."""
    if isinstance(value, _Size):
        return _bare(value)
    if type(value) in (tuple, list, torch.Size):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    return value


def _called(func: Any, args: Any) -> tuple[str, Any, Any] | None:
    """What kind of node a call is, its target and arguments; ``None`` where it only asks about a tensor."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        attribute = getattr(func.__self__, "__name__", "")
        return None if attribute in _ABOUT else ("call_function", getattr, (args[0], attribute))
    if name in _ASKED:
        return None
    if name in _SWAPPED:
        return "call_function", _SWAPPED[name], (args[1], args[0])
    if name in _OPERATORS:
        return "call_function", _OPERATORS[name], args
    if getattr(torch.Tensor, name, None) == func:
        return "call_method", "size" if name == "__len__" else name, (args[0], 0) if name == "__len__" else args
    return "call_function", func, args


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one operation: of a known kind, or PyTorch's own."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, *OPENED)):
        return False
    return kind_of_module(module) is not None or type(module).__module__.startswith(("torch.nn", "torch.ao.nn"))
