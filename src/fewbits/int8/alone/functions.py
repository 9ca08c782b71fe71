"""The functions of torch that have a form in integers alone, by the names that they have however they are called."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import RecipeError
from fewbits.int8.alone.kernels import LOWEST
from fewbits.int8.alone.mode import Alone, OnGrid, every, on_grid, real, scaled, tagged
from fewbits.int8.alone.tape import SUMS, Levels, factors
from fewbits.ops._calls import called
from fewbits.ops._module import check_row

Function = Callable[[Alone, Any, Any, Any], Any]
FUNCTIONS: dict[str, Function] = {}
FAR = -1e4  # what is added to a score below which nothing is left of its share


def call(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """A function of at least one tensor on a grid."""
    name = getattr(func, "__name__", str(func)).strip("_")
    if name == "get":  # an attribute
        found = func(*args, **kwargs)
        return move(mode, func, args, kwargs) if isinstance(found, Tensor) and found.is_floating_point() else found
    known = called(func, args, kwargs)
    if known is not None:
        return approximated(mode, func, args, kwargs, *known)
    if name not in FUNCTIONS:
        raise mode.unsupported(name)
    return FUNCTIONS[name](mode, func, args, kwargs)


def of(names: str) -> Callable[[Function], Function]:
    """Register under names without the underscores around them."""

    def register(function: Function) -> Function:
        FUNCTIONS.update(dict.fromkeys(names.split(), function))
        return function

    return register


def carried(x: Tensor) -> OnGrid:
    """What a tensor carries that does carry something."""
    found = on_grid(x)
    assert found is not None
    return found


def levels_of(x: Tensor) -> Levels:
    """Its levels, where ranges are no longer measured."""
    found = carried(x).levels
    assert found is not None
    return found


def ahead(args: Any, kwargs: Any, names: str, *defaults: Any) -> list[Any]:
    """Arguments by place or name."""
    order = names.split()
    given = dict(zip(order, args, strict=False)) | kwargs
    return [given.get(name, default) for name, default in zip(order, defaults, strict=True)]


# -- what asks for nothing ---------------------------------------------------------------------------------------


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


# -- what moves elements -----------------------------------------------------------------------------------------


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
            numbers = (part.double() / scale).round().clamp(-zero, 255 - zero).to(torch.int64)
            made.append(mode.tape.constant(numbers.expand(shape)))
        else:
            mode.unmasked(found)
            whole, start, shift = factors([real(found.scale / scale)])
            made.append(mode.tape.rescale([levels_of(part)], whole, start, shift, -zero, 255 - zero))
    levels = mode.tape.take(made, lambda *numbers: func(list(numbers), *rest, **named))[0]
    mode.tape.named(levels, name, scale, zero)
    return mode.valued(quantized, OnGrid(levels, scale))


# -- sums and products -------------------------------------------------------------------------------------------


@of("add radd iadd")
def add(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A sum, of activations or with constants."""
    return _sum(mode, func, args, kwargs, 1)


@of("sub subtract isub")
def subtract(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A difference."""
    return _sum(mode, func, args, kwargs, -1)


@of("rsub")
def subtract_from(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A difference the other way round."""
    return _sum(mode, operator.sub, (args[1], args[0]), {}, -1)


def _sum(mode: Alone, func: Any, args: Any, kwargs: Any, sign: int) -> Tensor:
    a, b, alpha = ahead(args, kwargs, "input other alpha", None, None, 1)
    mask = next((m for x, y in ((a, b), (b, a)) if on_grid(x) is not None and (m := _far(mode, y)) is not None), None)
    if mask is not None and sign == 1:
        return masked(mode, a if on_grid(a) is not None else b, mask)
    terms, offset = [], None
    for value, factor in ((a, 1), (b, sign * alpha)):
        found = on_grid(value)
        if found is not None:
            terms.append((found, real(found.scale * factor)))
        else:
            offset = torch.as_tensor(value, dtype=torch.float64) * factor
    return mode.place("sum", lambda: _plain(func, args, kwargs), terms, offset)


def _plain(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Out of place, whatever was asked for: what is on a grid is not changed."""
    name = func.__name__.strip("_")
    if name.startswith("i") and name in ("iadd", "isub", "imul", "itruediv"):
        return getattr(operator, name[1:])(*args)
    found: Tensor = func(*args, **kwargs)
    return found


def _far(mode: Alone, value: Any) -> Tensor | None:
    """The mask of a constant that adds nothing, or so much that nothing is left."""
    if not isinstance(value, Tensor) or on_grid(value) is not None:
        return None
    if value.dtype == torch.bool or not value.is_floating_point():
        return None
    low = value <= FAR
    if not bool(low.any()):
        return None
    if bool((value[~low] != 0).any()):
        raise mode.unsupported("a mask with other numbers than zero and minus infinity")
    return low


@of("masked_fill")
def fill_mask(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Scores that get no share."""
    x, mask, value = ahead(args, kwargs, "input mask value", None, None, None)
    if on_grid(x) is None or on_grid(mask) is not None or float(value) > FAR:
        raise mode.unsupported("masked_fill with anything but minus infinity")
    return masked(mode, x, mask)


def masked(mode: Alone, x: Tensor, mask: Tensor) -> Tensor:
    """With a mask that a softmax will see."""
    found = carried(x)
    both = mask if found.mask is None else mask | found.mask
    return tagged(x.masked_fill(mask, -math.inf), replace(found, mask=both))


@of("mul multiply rmul imul")
def multiply(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """By a number, a constant or an activation."""
    a, b = ahead(args, kwargs, "input other", None, None)
    x, other = (a, b) if on_grid(a) is not None else (b, a)
    soft = lambda: _plain(func, args, kwargs)  # noqa: E731
    if on_grid(other) is None:
        return _times(mode, x, other, soft)
    return _product(mode, mode.eight(a, "product"), mode.eight(b, "product"), soft)


def _product(mode: Alone, a: Tensor, b: Tensor, soft: Callable[[], Tensor]) -> Tensor:
    mode.unmasked(carried(a), carried(b))
    return mode.computed(
        soft, lambda: OnGrid(mode.tape.product(levels_of(a), levels_of(b)), carried(a).scale * carried(b).scale, False)
    )


@of("div truediv true_divide itruediv divide")
def divide(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """By a number or a constant."""
    a, b = ahead(args, kwargs, "input other", None, None)
    if on_grid(b) is not None or kwargs.get("rounding_mode"):
        raise mode.unsupported("division by what was computed")
    inverse = 1 / b.detach().double() if isinstance(b, Tensor) else 1 / b
    return _times(mode, a, inverse, lambda: _plain(func, args, kwargs))


@of("neg negative")
def negate(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """The other sign."""
    return _times(mode, args[0], -1.0, lambda: func(*args, **kwargs))


def _times(mode: Alone, x: Tensor, other: Any, soft: Callable[[], Tensor]) -> Tensor:
    found = carried(x)
    if isinstance(other, Tensor) and other.numel() > 1:
        return mode.place("product", soft, [(found, real(found.scale, other))])
    number = float(other)
    if number > 0 or mode.measuring:
        return tagged(soft(), scaled(found, number if number > 0 else 1.0))
    if number == 0:
        raise mode.unsupported("a product with zero")
    mode.unmasked(found)
    return mode.computed(
        soft, lambda: replace(found, levels=_negative(mode, x), scale=found.scale * -number), eight=found.eight
    )


def _negative(mode: Alone, x: Tensor) -> Levels:
    return mode.tape.rescale([levels_of(x)], [torch.tensor(-1)], 0, 0, -SUMS, SUMS)


@of("pow rpow")
def power(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Squares."""
    x, exponent = ahead(args, kwargs, "input exponent", None, None)
    if on_grid(x) is None or exponent != 2:
        raise mode.unsupported("a power other than the square")
    x = mode.eight(x, "square")
    return _product(mode, x, x, lambda: func(x, 2))


@of("mean sum")
def average(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Over dimensions."""
    x, dims, keep = ahead(args, kwargs, "input dim keepdim", None, None, False)
    if dims is None:
        raise mode.unsupported(f"a {func.__name__} over all dimensions, samples included,")
    axes = tuple(sorted(d if d < 0 else d - x.dim() for d in ((dims,) if isinstance(dims, int) else dims)))
    return _total(mode, x, axes, keep=bool(keep), mean=func.__name__ == "mean", func=func)


@of("adaptive_avg_pool1d adaptive_avg_pool2d")
def pooled(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """The mean of everything, place by place no more."""
    x, size = ahead(args, kwargs, "input output_size", None, None)
    if any(one not in (1,) for one in ((size,) if isinstance(size, int) else size)):
        raise mode.unsupported("adaptive pooling to more than one place")
    axes = (-1,) if func.__name__.endswith("1d") else (-2, -1)
    return _total(mode, x, axes, keep=True, mean=True, func=torch.mean)


def _total(mode: Alone, x: Tensor, axes: tuple[int, ...], *, keep: bool, mean: bool, func: Any) -> Tensor:
    x = mode.eight(x, "mean")
    count = math.prod(x.shape[axis] for axis in axes)
    mode.bounded(count * 255)
    return mode.computed(
        lambda: func(x, axes, keepdim=keep),
        lambda: OnGrid(
            mode.tape.total(levels_of(x), axes, keep=keep), carried(x).scale / (count if mean else 1), False
        ),
    )


@of("matmul rmatmul bmm mm")
def matmul(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Of two activations, or with a constant on the right."""
    a, b = args if func.__name__.strip("_") != "rmatmul" else (args[1], args[0])
    if on_grid(b) is None:
        return _weighted(mode, a, b.transpose(-2, -1), None, lambda: torch.matmul(a, b))
    if on_grid(a) is None:
        raise mode.unsupported("a product with a constant on its left")
    if min(a.dim(), b.dim()) < 2:
        raise mode.unsupported("a product with a vector")
    a, b = mode.eight(a, "left"), mode.eight(b, "right")
    mode.bounded(a.shape[-1] * 255 * 255)
    return mode.computed(
        lambda: torch.matmul(a, b),
        lambda: OnGrid(mode.tape.matmul(levels_of(a), levels_of(b)), carried(a).scale * carried(b).scale, False),
    )


@of("baddbmm")
def matmul_plus(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A product of matrices, and a sum."""
    if kwargs.keys() - {"out"} and (kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1):
        raise mode.unsupported("baddbmm with factors")
    with mode:
        found: Tensor = torch.bmm(args[1], args[2]) + args[0]
    return found


@of("linear")
def linear(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A linear layer."""
    x, weight, bias = ahead(args, kwargs, "input weight bias", None, None, None)
    if on_grid(weight) is not None or on_grid(bias) is not None:
        raise mode.unsupported("a layer with a computed weight")
    return _weighted(mode, x, weight, bias, lambda: torch.nn.functional.linear(x, weight, bias))


def _weighted(mode: Alone, x: Tensor, weight: Tensor, bias: Tensor | None, soft: Callable[[], Tensor]) -> Tensor:
    if weight.dim() != 2:
        raise mode.unsupported("a product with a constant that is no matrix")
    x = mode.eight(x, "layer")
    mode.unmasked(carried(x))
    if mode.measuring:
        return mode.place("layer", soft, [(OnGrid(None), real())])
    levels, scales = mode.grids.weight(mode.net, weight)
    mode.bounded(weight.shape[1] * 255 * 127)
    sums = OnGrid(mode.tape.matmul(levels_of(x), levels.t()), 1.0, False)
    return mode.place("layer", soft, [(sums, real(carried(x).scale, scales))], bias)


@of("conv2d")
def conv2d(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A convolution of images, without groups."""
    x, weight, bias, stride, padding, dilation, groups = ahead(
        args, kwargs, "input weight bias stride padding dilation groups", None, None, None, 1, 0, 1, 1
    )
    if groups != 1 or isinstance(padding, str) or x.dim() != 4:
        raise mode.unsupported("a convolution with groups, or padded by a word,")
    x = mode.eight(x, "layer")
    soft = lambda: func(x, weight, bias, stride, padding, dilation, groups)  # noqa: E731
    if mode.measuring:
        return mode.place("layer", soft, [(OnGrid(None), real())])
    levels, scales = mode.grids.weight(mode.net, weight)
    mode.bounded(weight[0].numel() * 255 * 127)
    rows = mode.tape.windows(levels_of(x), weight.shape[2:], dilation, padding, stride)
    sums = mode.tape.matmul(rows, levels.flatten(1).t())
    high, wide = torch.empty(x.shape, device="meta"), torch.empty(weight.shape, device="meta")
    shape = func(high, wide, None, stride, padding, dilation, groups).shape
    image = mode.tape.take([sums], lambda numbers: numbers.transpose(1, 2).reshape(len(numbers), *shape[1:]))[0]
    reals, offset = real(carried(x).scale, scales)[:, None, None], None if bias is None else bias[:, None, None]
    return mode.place("layer", soft, [(OnGrid(image, 1.0, False), reals)], offset)


# -- functions ---------------------------------------------------------------------------------------------------


@of("relu")
def relu(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Nothing below zero."""
    x = args[0] if args else kwargs["input"]
    mode.unmasked(carried(x))
    return mode.computed(
        lambda: torch.relu(x),
        lambda: replace(carried(x), levels=mode.tape.clip(levels_of(x), 0, SUMS)),
        eight=carried(x).eight,
    )


def approximated(mode: Alone, func: Any, args: Any, kwargs: Any, name: str, x: Any, options: dict[str, Any]) -> Any:
    """Softmax, normalisation and functions of one number, by what the recipe's ops put in their place."""
    evaluator = mode.evaluators.get(name)
    if evaluator is None or evaluator.approximation.kind != "integer":
        asked = "gelu" if name == "gelu_tanh" else name
        raise mode.unsupported(name, f"add ops: {{{asked}: {{kind: integer, bits: 8}}}}")
    unit, step = evaluator.approximation.units
    found = carried(x)
    soft = lambda: func(*args, **kwargs)  # noqa: E731
    if name == "softmax":
        return _softmax(mode, x, options["dim"], soft)
    mode.unmasked(found)
    if mode.measuring:
        return mode.place(name, soft, [(OnGrid(None), real())])
    factor, offset, epsilon, most = real(step), None, 0, 2**15 - 1
    if name in ("layer_norm", "rms_norm"):
        shape, eps = options["shape"], options["eps"]
        if len(shape) != 1:
            raise mode.unsupported(f"{name} over several dimensions")
        _checked(mode, shape[0])
        epsilon = round((2.0**-23 if eps is None else eps) / unit**2)
        if options.get("weight") is not None:
            factor = real(step, options["weight"])
        offset = options.get("bias")
    whole, start, shift = factors([real(found.scale / unit)])
    inner = mode.tape.rescale([levels_of(x)], whole, start, shift, -most, most)
    outer = OnGrid(mode.tape.approximate(inner, evaluator, epsilon), 1.0, False)
    return mode.place(name, soft, [(outer, factor)], offset)


def _checked(mode: Alone, size: int) -> None:
    try:
        check_row(size)
    except RecipeError as error:
        raise mode.unsupported(f"a row of {size} numbers", str(error)) from None


def _softmax(mode: Alone, x: Tensor, dim: int, soft: Callable[[], Tensor]) -> Tensor:
    evaluator, found = mode.evaluators["softmax"], carried(x)
    bits = evaluator.approximation.bits
    if dim not in (-1, x.dim() - 1):
        raise mode.unsupported("a softmax along another dimension than the last")
    if bits > 8:
        raise mode.unsupported(f"a softmax of {bits} bits", "give ops.softmax.bits of at most 8")
    unit, step = evaluator.approximation.units

    def shares() -> OnGrid:
        whole, start, shift = factors([real(found.scale / unit)])
        inner = mode.tape.rescale([levels_of(x)], whole, start, shift, -SUMS, SUMS)
        if found.mask is not None:
            inner = mode.tape.fill(inner, found.mask, LOWEST)
        levels = mode.tape.approximate(inner, evaluator)
        if found.mask is not None:
            levels = mode.tape.fill(levels, found.mask, 0)  # a row that is masked as a whole attends to nothing
        return OnGrid(mode.tape.clip(levels, 0, 255), step)

    return mode.computed(soft, shares, eight=True)
