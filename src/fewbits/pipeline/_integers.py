"""How clusters are written where activations become integers: the network trains as it is, and its file does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate.utils import send_to_device
from torch import nn

from fewbits.attach import Floats
from fewbits.int8.clusters import clustered_plan, is_range, ranges_of
from fewbits.pipeline.restore import network_of
from fewbits.plan import Plan


class Integers:
    """Turns plans of one network into plans of its integer form.

    Args:
        original: the network, for its class. batches: inputs, from which ranges of activations are taken.
        floats: how biases are kept.
    """

    def __init__(self, original: nn.Module, batches: Sequence[Any], floats: Floats) -> None:
        self.original, self.batches, self.floats = original, batches, floats
        self._last: tuple[Plan, Plan] | None = None

    def calibrated(self, plan: Plan) -> Plan:
        """The plan with the ranges that its network's activations have now; plans made of it keep them."""
        net = network_of(plan, self.original)
        device = next(net.parameters()).device
        return plan.updated(ranges_of(net, (send_to_device(inputs, device) for inputs in self.batches)))

    def written(self, plan: Plan) -> Plan:
        """The integer form of a calibrated plan: the same for the same plan."""
        if self._last is None or self._last[0] is not plan:
            ranges = {name: entry for name, entry in plan.items() if is_range(name)}
            left = {n: e for n, e in plan.items() if n not in ranges}
            bare = Plan(left, plan.channels, plan.aliases, plan.approximations)
            net, floats = network_of(bare, self.original), self.floats
            made = clustered_plan(net, bare, ranges, floats=floats.dtype, significand=floats.significand)  # type: ignore[arg-type]
            self._last = plan, made
        return self._last[1]
