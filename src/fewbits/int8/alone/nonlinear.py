"""ReLU, and what the recipe's ops put in place of softmax, normalisation and other functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import RecipeError
from fewbits.int8.alone.kernels import LOWEST
from fewbits.int8.alone.mode import Alone, OnGrid, real
from fewbits.int8.alone.table import carried, levels_of, of
from fewbits.int8.alone.tape import SUMS, factors
from fewbits.ops._module import check_row


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
