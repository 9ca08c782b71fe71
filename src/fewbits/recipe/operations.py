"""The section of a recipe that says which operations a network gets in place of its own. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fewbits.recipe.sections import Part


class Operation(Part):
    """What is computed in place of an operation; give an error, or a size.

    Attributes:
        kind: ``lines`` between free knots, a ``polynomial``, a ``table`` with interpolation, ``integer``, or a
            replacement that has to be trained: ``squared-relu``, and ``relu`` for softmax. Default: the cheapest that
            keeps the error.
        error: the largest that is allowed on the domain; of ``exp``, ``reciprocal``, ``rsqrt`` and normalisation a
            share.
        pieces: of lines or a table.
        degree: of a polynomial.
        bits: of integers.
        domain: where the bound holds; default: what is measured on the training data, or the usual one without any.
        outside: beyond it ``continue`` on the line that the function approaches, ``clamp``, or ``error``.
    """

    kind: Literal["lines", "polynomial", "table", "integer", "squared-relu", "relu"] | None = None
    error: Annotated[float, Field(gt=0)] | None = None
    pieces: Annotated[int, Field(ge=1, le=4096)] | None = None
    degree: Annotated[int, Field(ge=1, le=15)] | None = None
    bits: Annotated[int, Field(ge=2, le=16)] | None = None
    domain: tuple[float, float] | None = None
    outside: Literal["continue", "clamp", "error"] | None = None
