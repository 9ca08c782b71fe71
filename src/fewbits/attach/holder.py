"""How a plan lives in a network while it trains: the seam, and its plain form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fewbits.attach._base import plus_in
from fewbits.attach._normalisation import merge_statistics
from fewbits.attach.attach import attach, held, plan_of
from fewbits.plan import Plan


@dataclass(frozen=True)
class Floats:
    """How what is no integer is kept in a file.

    Attributes:
        dtype: of the numbers. significand: bits that each keeps; ``None``: all that the type has.
        merge: whether normalisation is written as scale and shift, without running statistics.
        biases: of :func:`fewbits.graph.biased`: biases that then move into the shift.
        bases: of another network: what differs from them is kept, see :func:`fewbits.attach.plan_of`.
    """

    dtype: torch.dtype = torch.float32
    significand: int | None = None
    merge: bool = False
    biases: Mapping[str, str] | None = None
    bases: Mapping[str, Tensor] | None = None


class Holder(Protocol):
    """A way to hold a plan. A network that it was attached to trains as usual."""

    def attach(self, net: nn.Module, plan: Plan, *, learn: bool) -> None:
        """Hold the compressed entries on ``net``, in place; with ``learn`` grids are trained parameters."""

    def update(self, net: nn.Module, plan: Plan) -> None:
        """Hold the entries of another plan for the same weights from now on."""

    def plan(self, net: nn.Module, floats: Floats) -> Plan:
        """The plan of everything that ``net`` computes with, until it holds another one. ``net`` is not changed."""


class Parametrized:
    """Weights held by ``torch.nn.utils.parametrize``; the network keeps its class and its forward."""

    def attach(self, net: nn.Module, plan: Plan, *, learn: bool) -> None:
        """See :func:`fewbits.attach.attach`."""
        attach(net, plan, learn=learn)

    def update(self, net: nn.Module, plan: Plan) -> None:
        """Take the entries of ``plan``, in place.

        Raises:
            MismatchError: an entry of another shape or kind of grid.
        """
        entries = plan.compressed
        for name, holder in held(net).items():
            holder.update(entries[name])  # type: ignore[arg-type]  # an assigner gives one kind

    def plan(self, net: nn.Module, floats: Floats) -> Plan:
        """See :func:`fewbits.attach.plan_of`."""
        if floats.merge:
            # Only normalisation and biases change: weights, and what holds them, are left where they are.
            same = [*held(net).values(), *plus_in(net), *(p for p in net.parameters() if p.dim() > 1)]
            net = copy.deepcopy(net, {id(part): part for part in same})
            merge_statistics(net, floats.biases)
        return plan_of(net, floats=floats.dtype, significand=floats.significand, shared=True, bases=floats.bases)
