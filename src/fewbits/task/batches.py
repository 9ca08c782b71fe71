"""What a batch is, and how it is handed to a network."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakSet

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.errors import DataError, FewbitsError, UnsupportedError


class Inputs(NamedTuple):
    """What a network's ``forward`` is called with, where that is not a single tensor."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Batch(NamedTuple):
    """A batch as every room knows it; a plain pair does as well.

    Attributes:
        inputs: one tensor ``[n, ...]``, or :class:`Inputs`.
        targets: what only the task reads.
    """

    inputs: Any
    targets: Any


def laid_out(inputs: Any, order: torch.memory_format = torch.channels_last) -> Any:
    """Images channels-last, which convolutions are fastest in (ResNet-20 evaluates in half the time)."""
    if isinstance(inputs, Inputs):
        named = {name: laid_out(x, order) for name, x in inputs.kwargs.items()}
        return Inputs(tuple(laid_out(x, order) for x in inputs.args), named)
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        return inputs
    return inputs.contiguous(memory_format=order)


_AS_GIVEN: WeakSet[nn.Module] = WeakSet()


def run_laid_out(model: nn.Module, inputs: Any) -> Any:
    """As :func:`run`, on images channels-last; but not where the network takes a ``view`` of what is laid out so."""
    if model not in _AS_GIVEN:
        try:
            return run(model, laid_out(inputs))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            _AS_GIVEN.add(model)
    return run(model, laid_out(inputs, torch.contiguous_format))


def run(model: nn.Module, inputs: Any) -> Any:
    """What a network gives for the inputs of a batch."""
    return model(*inputs.args, **inputs.kwargs) if isinstance(inputs, Inputs) else model(inputs)


def run_apart(model: nn.Module, inputs: Any) -> Any:
    """As :func:`run`, on a copy: some networks change their inputs in place, and another is to run on the same."""
    return run(model, copy.deepcopy(inputs))


def called(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as arguments by place and by name."""
    return (inputs.args, inputs.kwargs) if isinstance(inputs, Inputs) else ((inputs,), {})


def sample_of(given: Any, like: Tensor) -> Any:
    """One sample: zeros of a shape ``(C, H, W)`` in the type of ``like``, or the first of the inputs of a batch."""
    if isinstance(given, Tensor | Inputs):
        return first_of(send_to_device(given, like.device), 1)
    return torch.zeros(1, *given, dtype=like.dtype, device=like.device)


def told(given: Any) -> str:
    """Inputs, or the shape of one sample, in words."""
    return described(given) if isinstance(given, Tensor | Inputs) else f"shape {tuple(given)}"


def targets_of(batch: Any) -> Tensor:
    """The targets of a batch, where a task needs one tensor of them.

    Raises:
        DataError: there are none, or they are something else.
    """
    found = batch[1]
    if not isinstance(found, Tensor):
        told = "has no targets" if found is None else f"has targets of {described(found)}, not one tensor"
        raise DataError(
            f"a batch {told}: give tuples (inputs, targets), say targets=, or give a task with a loss of your own"
        )
    return found


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of a nested structure of tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def samples_in(inputs: Any) -> int:
    """Samples of a batch: the length of its first tensor."""
    return next((len(x) for x in tensors_in(inputs) if x.dim()), 0)


def samples_of(batch: Any) -> int:
    """Samples of ``(inputs, targets)``.

    One tensor of inputs has them in front. Of other inputs, such as lists of images or the nodes of graphs, there are
    as many as targets: as one tensor of these is long, or a list that is as long as that of the inputs, or of mappings.
    """
    inputs, targets = batch[0], batch[1]
    (alone,) = inputs.args if isinstance(inputs, Inputs) and len(inputs.args) == 1 else (inputs,)
    if not isinstance(alone, Tensor):
        if isinstance(targets, Tensor) and targets.dim():
            return len(targets)
        if isinstance(targets, tuple | list) and targets:
            one_each = isinstance(alone, tuple | list) and not isinstance(alone, Inputs)
            listed = one_each and len(alone) == len(targets)
            if listed or all(isinstance(part, Mapping) for part in targets):
                return len(targets)
    return samples_in(inputs)


def first_of(inputs: Any, count: int) -> Any:
    """The first ``count`` samples of inputs, where every tensor of them has the samples in front; else all.

    Sparse tensors cannot be cut.
    """
    total = samples_in(inputs)
    if any(not x.dim() or len(x) != total or x.layout != torch.strided for x in tensors_in(inputs)):
        return inputs

    def cut(value: Any) -> Any:
        if isinstance(value, Inputs):
            return Inputs(cut(value.args), cut(value.kwargs))
        if isinstance(value, Tensor):
            return value[:count]
        if isinstance(value, Mapping):
            return {key: cut(part) for key, part in value.items()}
        return type(value)(map(cut, value)) if type(value) in (tuple, list) else value

    return cut(inputs)


def check_gradient(model: nn.Module, loss: Tensor) -> None:
    """Raise UnsupportedError unless a loss depends on a network through autograd."""
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise outside_autograd(model)


def outside_autograd(model: nn.Module) -> UnsupportedError:
    """What is said of a network that no gradient reaches."""
    inner = getattr(model, "module", model)
    trained = [p.requires_grad for p in inner.parameters()]
    if trained and not any(trained):
        return UnsupportedError(
            f"no gradient of the loss reaches {type(inner).__name__}: all of its parameters are frozen (requires_grad "
            "is False); set requires_grad_() on those to train"
        )
    return UnsupportedError(
        f"no gradient of the loss reaches {type(inner).__name__}: it computes outside of autograd (ONNX Runtime, "
        "torch.no_grad, detach); ecq, and pruning by magnitude, do without: leave train out (in a recipe train: null)"
    )


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer of one input was called with, by place or by name."""
    return args[0] if args else next(iter(kwargs.values()))


def described(value: Any) -> str:
    """Shapes and types, for an error: ``[8, 3, 32, 32] float32``."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Inputs):
        named = [f"{name}={described(part)}" for name, part in value.kwargs.items()]
        return ", ".join([*map(described, value.args), *named])
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {described(part)}" for name, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        parts = [described(part) for part in value[:4]] + (["..."] if len(value) > 4 else [])
        return f"{type(value).__name__} ({', '.join(parts)})"
    return type(value).__name__


HINTS = (
    ("more than 1 value per channel", "batch normalisation has no statistics of one sample: drop_last=True"),
    ("Byte", "bytes are no floats: x.float() / 255"),
    ("unsigned char", "bytes are no floats: x.float() / 255"),
    ("embedding", "look-up tables take integers below their number of rows"),
)
"""What helps, by words in PyTorch's errors."""


@contextmanager
def handing(model: nn.Module, inputs: Any, place: str) -> Iterator[None]:
    """Around a forward pass: an error of the network's on these inputs is one that names the batch.

    Args:
        place: where the batch stands, such as ``"batch 3 of 10 of the training data"``.

    Raises:
        DataError: the network does not take the inputs. Errors of fewbits, and a lack of memory, pass.
    """
    try:
        yield
    except (FewbitsError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        words = " ".join(str(error).split())
        words = words if len(words) < 300 else f"{words[:300]} ..."
        hint = next((f"; {help}" for sign, help in HINTS if sign in words), "")
        inner = getattr(model, "module", model)
        raise DataError(
            f"{place}: {type(inner).__name__} does not take inputs of {described(inputs)}: "
            f"{type(error).__name__}: {words}{hint}"
        ) from error
