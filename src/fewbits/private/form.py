"""A value of a network as an affine function of other values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 64  # samples that go through an operation together
MOST_WEIGHTS = 2**27  # of the matrices of one value, a gigabyte


@dataclass(eq=False)
class Form:
    """A value as an affine function of others: by source a float64 tensor [its numbers, *shape], and a bias."""

    terms: dict[str, Tensor]
    bias: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.bias.shape)


class TooLargeError(Exception):
    """A value of more numbers than can be computed with; where it is, is said by who knows."""


class MixedError(Exception):
    """A sample's values that depend on other samples; where, is said by who knows."""


def mapped(form: Form, run: Callable[[Tensor], Tensor]) -> Form:
    """A form behind an affine operation on samples ``[CHUNK, *shape]``.

    Raises:
        TooLargeError: matrices of more than ``MOST_WEIGHTS`` numbers. MixedError: see there.
    """
    zeros = torch.zeros_like(form.bias).expand(CHUNK, *form.shape)
    zero = _alone(zeros, run)
    weights = zero.numel() * sum(len(unit) for unit in form.terms.values())
    if weights > MOST_WEIGHTS:
        raise TooLargeError(f"its matrix of {weights:,} weights is more than {MOST_WEIGHTS:,}")
    terms = {name: _chunked(unit, run) - zero for name, unit in form.terms.items()}
    terms = {name: matrix for name, matrix in terms.items() if matrix.any()}
    return Form(terms, _chunked(form.bias[None], run)[0])


def _alone(zeros: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """What becomes of a sample of zeros, ``[*new shape]``, whatever another sample is."""
    found = run(zeros.clone())
    other = zeros.clone()
    other[0] = torch.rand(zeros.shape[1:], generator=torch.Generator().manual_seed(0), dtype=zeros.dtype) + 0.5
    beside = run(other)
    if found.dim() == 0 or len(found) != CHUNK or not torch.allclose(beside[1:], found[1:], equal_nan=True):
        raise MixedError
    return found[0]


def _chunked(rows: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """An operation on samples, some at a time, always as many as ``CHUNK``: shapes in the graph count on it."""
    found = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        padded = torch.cat([part, part.new_zeros(CHUNK - len(part), *part.shape[1:])]) if len(part) < CHUNK else part
        found.append(run(padded)[: len(part)])
    return torch.cat(found)


def added(left: Form, right: Form, sign: float) -> Form:
    terms = dict(left.terms)
    for name, term in right.terms.items():
        terms[name] = terms[name] + sign * term if name in terms else sign * term + torch.zeros_like(left.bias)
    bias = left.bias + sign * right.bias
    return Form({name: term.expand(len(term), *bias.shape) for name, term in terms.items() if term.any()}, bias)


def flat(form: Form) -> Form:
    return Form({name: term.reshape(len(term), -1) for name, term in form.terms.items()}, form.bias.reshape(-1))
