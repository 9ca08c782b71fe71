"""Matrix products and convolutions of a network, as one forward pass makes them.

What is seen is what PyTorch computes, under the names of modules: nothing is traced, so control flow, attention and
weights outside of layers are no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from fewbits.errors import FewbitsError, UnsupportedError
from fewbits.task.batches import called, sample_of, told
from fewbits.weights import WEIGHTED, places

aten = torch.ops.aten
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Where the two factors of a product are among the arguments.
_PRODUCTS = {
    aten.mm: 0, aten.bmm: 0, aten.mv: 0, aten.dot: 0, aten.vdot: 0,
    aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1, aten.baddbmm_: 1, aten.addbmm: 1, aten.addbmm_: 1,
    aten.addmv: 1, aten.addmv_: 1,
}  # fmt: skip
# Better refused than left out.
_UNCOUNTED = (aten._trilinear, aten._addmm_activation, aten._int_mm, aten._scaled_mm)


@dataclass(frozen=True)
class Sliding:
    """How a convolution's kernel moves: a number for each axis.

    Attributes:
        padding_mode: as of ``nn.Conv2d``. edges: where that is not zeros, what is added at both ends, last axis first.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    padding_mode: str = "zeros"
    edges: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Call:
    """One matrix product or convolution.

    A transposed convolution is the product that makes it up: each input by all weights that meet it.

    Attributes:
        name: of the weight, as a plan has it, with the rows in brackets if it is a part of it; of a product of two
            values that the network computes, as attention has, the module and the shapes.
        parameter: the weight's name in a plan; ``None`` of two values.
        weight: the second factor, ``[outputs, inputs of a group, *kernel]``; of two values perhaps on the meta device.
        whole: shape of the parameter. turned: from a tensor of that shape to one of the weight's form.
        groups: each of which multiplies inputs of its own; the heads of attention are such.
        inputs, shape: shapes of what went in and of what came out, with the batch.
        positions: how often each weight is multiplied, for the whole batch.
        sliding: of a convolution.
        nonzero: where the input was not zero: as it is, of a convolution; ``[groups, positions, inputs]`` of a product.
    """

    name: str
    parameter: str | None
    weight: Tensor
    whole: tuple[int, ...]
    turned: Callable[[Tensor], Tensor]
    groups: int
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    positions: int
    sliding: Sliding | None = None
    nonzero: Tensor | None = field(default=None, repr=False)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _of_transposed(tensor: Tensor, groups: int) -> Tensor:
    """``[inputs, outputs of a group, *kernel]`` as a product's ``[outputs, inputs of a group]``."""
    return tensor.unflatten(0, (groups, -1)).flatten(2).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class _Part:
    """A view of a parameter, to be taken of any tensor of its shape."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def __call__(self, tensor: Tensor) -> Tensor:
        laid = torch.empty_strided(self.shape, self.strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
        found = laid.as_strided(self.size, self.stride, self.offset)
        return found.flatten(0, 1) if len(self.size) == 3 else found


class _Watch(TorchDispatchMode):
    """Notes every product of a forward pass."""

    def __init__(self, model: nn.Module, zeros: bool) -> None:
        super().__init__()
        self.zeros = zeros
        self.calls: list[Call] = []
        self.paths: list[str] = [type(model).__name__]  # of the modules at work, the innermost last
        self.layers = 0  # of those, layers, whose products are noted as a whole
        self.parameters: dict[int, list[tuple[str, Tensor]]] = {}  # by the memory in which they lie
        for name, own in places(model).items():
            if isinstance(own[0].stored, nn.Parameter):
                self.parameters.setdefault(_memory(own[0].stored), []).append((name, own[0].stored))

    # -- layers ------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Hooks on every module, and attention by its parts."""
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            for path, module in model.named_modules():
                stack.callback(module.register_forward_pre_hook(partial(self._enter, path), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(partial(self._leave, path)).remove)
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            torch.backends.mha.set_fastpath_enabled(False)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(self)
            yield

    def _enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.paths.append(path or self.paths[0])
        if not isinstance(module, (*WEIGHTED, *TRANSPOSED, nn.RNNBase)):
            return
        self.layers += 1
        if self.layers == 1:
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor | tuple)), None)
            values = given if isinstance(given, Tensor) else getattr(given, "data", None)  # of a PackedSequence
            if not isinstance(values, Tensor):
                raise _odd(path, module, "is given no tensor")
            self._seen = values.shape, values != 0 if self.zeros else None  # before it changes in place

    def _leave(self, path: str, module: nn.Module, args: Any, result: Any) -> None:
        self.paths.pop()
        if not isinstance(module, (*WEIGHTED, *TRANSPOSED, nn.RNNBase)):
            return
        self.layers -= 1
        if self.layers:
            return
        before, nonzero = self._seen
        if isinstance(module, nn.RNNBase):
            self._recurrent(module, prod(before[:-1]), nonzero)
            return
        if not isinstance(result, Tensor):
            raise _odd(path, module, "gives no tensor")
        weight: Tensor = module.weight
        name = self._name(weight, f"{path}.weight".lstrip("."))
        if isinstance(module, nn.Linear):
            positions = prod(result.shape) // weight.shape[0]
            nonzero = None if nonzero is None else nonzero.reshape(1, positions, -1)
            ends = tuple(before), tuple(result.shape)
            call = Call(name, name, weight, tuple(weight.shape), _as_it_is, 1, *ends, positions, None, nonzero)
        elif isinstance(module, TRANSPOSED):
            turned = partial(_of_transposed, groups=module.groups)
            call = self._transposed(name, name, weight, turned, module.groups, before, result.shape, nonzero)
        else:
            assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            edges = () if module.padding_mode == "zeros" else tuple(module._reversed_padding_repeated_twice)
            sliding = Sliding(module.stride, module.padding, module.dilation, module.padding_mode, edges)
            positions = prod(result.shape) // weight.shape[0]
            call = Call(
                name, name, weight, tuple(weight.shape), _as_it_is, module.groups, tuple(before), tuple(result.shape),
                positions, sliding, nonzero,
            )  # fmt: skip
        self.calls.append(call)

    def _transposed(
        self, name: str, parameter: str | None, weight: Tensor, turned: Callable[[Tensor], Tensor], groups: int,
        before: Any, after: Any, nonzero: Tensor | None,
    ) -> Call:  # fmt: skip
        positions = prod(before) // weight.shape[0]  # padding cuts products off that are made all the same
        if nonzero is not None:
            nonzero = nonzero.movedim(1, -1).reshape(positions, groups, -1).movedim(1, 0)
        return Call(
            name, parameter, turned(weight), tuple(weight.shape), turned, groups, tuple(before), tuple(after),
            positions, None, nonzero,
        )  # fmt: skip

    def _recurrent(self, module: nn.RNNBase, steps: int, nonzero: Tensor | None) -> None:
        """Every weight of a recurrent layer is multiplied at every step of every sample."""
        first = True
        for attribute in module._flat_weights_names:
            weight = getattr(module, attribute)
            if weight.dim() < 2:
                continue
            name = self._name(weight, f"{self.paths[-1]}.{attribute}")
            known = nonzero is not None and attribute.startswith("weight_ih_l0") and first
            kept = nonzero.reshape(1, steps, -1) if known and nonzero is not None else None
            first = first and not known
            shapes = (steps, weight.shape[1]), (steps, weight.shape[0])
            whole = tuple(weight.shape)
            self.calls.append(Call(name, name, weight, whole, _as_it_is, 1, *shapes, steps, None, kept))

    def _name(self, weight: Tensor, name: str) -> str:
        """The first name of a weight that layers share, which is stored once."""
        found = self._stored(weight)
        return found[0] if found is not None and found[1].shape == weight.shape else name

    # -- products outside of layers ----------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if not self.layers:
            if packet in _UNCOUNTED:
                raise UnsupportedError(
                    f"cannot count the multiplications of {packet.__name__} in {self.paths[-1]}: write it as a product "
                    "of matrices"
                )
            if packet in _PRODUCTS:
                at = _PRODUCTS[packet]
                self._product(args[at], args[at + 1])
        result = func(*args, **(kwargs or {}))
        if packet is aten.convolution and not self.layers:
            self._convolution(args, result)
        return result

    def _product(self, a: Tensor, b: Tensor) -> None:
        """``[groups, positions, reduction] @ [groups, reduction, outputs]``."""
        a = a[None] if a.dim() == 1 else a
        b = b[:, None] if b.dim() == 1 else b
        if self._stored(b) is None and self._stored(a) is not None:
            a, b = b.mT, a.mT
        a, b = (x if x.dim() == 3 else x[None] for x in (a, b))
        stored = self._stored(b)
        if len(b) == 1 or (stored is not None and b.stride(0) == 0):  # one weight for all
            a, b = a.reshape(1, -1, a.shape[-1]), b[:1]
        (groups, positions, reduction), outputs = a.shape, b.shape[-1]
        kept = a != 0 if self.zeros else None
        turned = b.mT
        if stored is None:
            shapes = f"{groups} x " * (groups > 1) + f"[{positions}, {reduction}] @ [{reduction}, {outputs}]"
            name, parameter, whole = f"{self.paths[-1]}: {shapes}", None, turned
            weight = (turned if self.zeros else turned.to("meta")).flatten(0, 1)
            part: Callable[[Tensor], Tensor] = _as_it_is
        else:
            parameter, whole = stored
            weight = turned.flatten(0, 1)
            size, stride = tuple(turned.shape), turned.stride()
            offset = int(b.storage_offset() - whole.storage_offset())
            part = _Part(tuple(whole.shape), whole.stride(), size, stride, offset)
            name = parameter + _rows(whole, offset, turned.numel())
        self.calls.append(
            Call(
                name, parameter, weight, tuple(whole.shape), part, groups, (groups, positions, reduction),
                (groups, positions, outputs), positions, None, kept,
            )
        )  # fmt: skip

    def _convolution(self, args: Any, result: Tensor) -> None:
        inputs, weight, _, stride, padding, dilation, transposed, _, groups = args
        stored = self._stored(weight)
        parameter = None if stored is None else stored[0]
        whole = weight if stored is None else stored[1]
        if whole.shape != weight.shape:
            parameter = None
        shapes = f"{list(inputs.shape)} * {list(weight.shape)}"
        name = f"{self.paths[-1]}: {shapes}" if parameter is None else parameter
        nonzero = inputs != 0 if self.zeros else None
        if transposed:
            turned = partial(_of_transposed, groups=groups)
            self.calls.append(
                self._transposed(name, parameter, weight, turned, groups, inputs.shape, result.shape, nonzero)
            )
            return
        positions = prod(result.shape) // weight.shape[0]
        sliding = Sliding(tuple(stride), tuple(padding), tuple(dilation))
        self.calls.append(
            Call(
                name, parameter, weight, tuple(weight.shape), _as_it_is, groups, tuple(inputs.shape),
                tuple(result.shape), positions, sliding, nonzero,
            )
        )  # fmt: skip

    def _stored(self, tensor: Tensor) -> tuple[str, Tensor] | None:
        """The parameter in whose memory a tensor lies."""
        for name, whole in self.parameters.get(_memory(tensor), ()):
            if 0 <= tensor.storage_offset() - whole.storage_offset() < whole.numel():
                return name, whole
        return None


def _odd(path: str, module: nn.Module, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"cannot count the multiplications of {path or type(module).__name__}: it is a layer of PyTorch's, and {what}; "
        "derive it from nn.Module, with the layer inside"
    )


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _rows(whole: Tensor, offset: int, count: int) -> str:
    """Which rows of a parameter are meant, if not all: ``[64:128]``."""
    if count == whole.numel():
        return ""
    each = whole.stride(0) or 1
    return f"[{offset // each}:{-(-(offset + count) // each)}]"


@torch.no_grad()
def calls(model: nn.Module, inputs: Any, zeros: bool = False) -> tuple[Call, ...]:
    """Every matrix product and convolution of one forward pass, in order.

    Args:
        model: a plain network; runs once, in evaluation mode, and is left as it was.
        inputs: the shape of one sample, without the batch, which runs on zeros; or the inputs of a batch, of which
            the first sample runs.
        zeros: keep where inputs of products were not zero; then the whole batch runs.

    Raises:
        UnsupportedError: the network does not take such a sample, or multiplications that cannot be counted.
    """
    training = {module: module.training for module in model.modules()}
    watch = _Watch(model, zeros)
    parameter = next(model.parameters(), torch.zeros(()))
    given = send_to_device(inputs, parameter.device) if zeros else sample_of(inputs, parameter)
    args, named = called(given)
    model.eval()
    try:
        with watch.watching(model):
            model(*args, **named)
    except FewbitsError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UnsupportedError(
            f"cannot count multiplications: the network does not take a sample of {told(inputs)} "
            f"({' '.join(str(error).split())})"
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode
    return tuple(watch.calls)
