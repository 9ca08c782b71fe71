"""What only moves elements, or asks for shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewbits.int8.affine_grid import LEVELS
from fewbits.int8.alone.mode import Alone, OnGrid, every, on_grid, real, tagged
from fewbits.int8.alone.table import ahead, carried, levels_of, of
from fewbits.int8.alone.tape import factors


@of(
    "size dim numel ndimension is_floating_point is_complex len stride is_contiguous get_device zeros_like ones_like "
    "empty_like full_like new_zeros new_ones new_full new_empty new_tensor element_size has_names is_same_size repr str"
)
def asked(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """Shapes, and constants of a shape."""
    return func(*args, **kwargs)


@of("to float type type_as detach dropout dropout1d alpha_dropout feature_dropout requires_grad")
def same(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """The same levels. Dropout leaves out nothing."""
    x = args[0] if args else kwargs["input"]
    return tagged(x.detach() if func is Tensor.detach else x, carried(x))


@of(
    "contiguous clone view reshape flatten unflatten permute transpose swapaxes swapdims squeeze unsqueeze t expand "
    "narrow movedim moveaxis chunk split tensor_split unbind getitem select repeat expand_as view_as reshape_as roll "
    "flip tile repeat_interleave index_select broadcast_to adjoint split_with_sizes unsafe_chunk unsafe_split"
)
def move(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """Elements moved or chosen."""
    soft = func(*args, **kwargs)
    x = next(value for value in every(args, kwargs) if on_grid(value) is not None)
    if any(on_grid(value) is not None for value in every(args, kwargs) if value is not x):
        raise mode.unsupported(f"{func.__name__} by what was computed")
    found = carried(x)
    mode.unmasked(found)
    several = isinstance(soft, tuple | list)
    if mode.measuring:
        made = [tagged(one, found) for one in (soft if several else [soft])]
    else:

        def moved(numbers: Tensor) -> Any:
            own = {name: numbers if value is x else value for name, value in kwargs.items()}
            return func(*(numbers if value is x else value for value in args), **own)

        places = mode.tape.take([levels_of(x)], moved)
        softs = soft if several else [soft]
        made = [tagged(s, replace(found, levels=levels)) for s, levels in zip(softs, places, strict=True)]
    return tuple(made) if several else made[0]


@of("pad")
def pad(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """With zeros."""
    _, _, how, value = ahead(args, kwargs, "input pad mode value", None, None, "constant", None)
    if how != "constant" or value:
        raise mode.unsupported("padding with anything but zeros")
    return move(mode, func, args, kwargs)


@of("cat concat concatenate stack")
def join(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Several values on one grid."""
    parts = list(args[0] if args else kwargs["tensors"])
    rest, named = args[1:], {name: value for name, value in kwargs.items() if name != "tensors"}
    shapes = [tuple(part.shape) for part in parts]
    flat = [part if on_grid(part) is not None else part.detach() for part in parts]

    def soft() -> Tensor:
        found: Tensor = func(flat, *rest, **named)
        return found

    if mode.measuring:
        return mode.place(func.__name__, soft, [(OnGrid(None), real())])
    # One place for all: each part is brought to it, and then they are moved together.
    quantized, scale, zero, name = mode.on_place(func.__name__, soft)
    made = []
    for part, shape in zip(flat, shapes, strict=True):
        found = on_grid(part)
        if found is None:
            numbers = (part.double() / scale).round().clamp(-zero, LEVELS - zero).to(torch.int64)
            made.append(mode.tape.constant(numbers.expand(shape)))
        else:
            mode.unmasked(found)
            whole, start, shift = factors([real(found.scale / scale)])
            made.append(mode.tape.rescale([levels_of(part)], whole, start, shift, -zero, LEVELS - zero))
    levels = mode.tape.take(made, lambda *numbers: func(list(numbers), *rest, **named))[0]
    mode.tape.named(levels, name, scale, zero)
    return mode.valued(quantized, OnGrid(levels, scale))
