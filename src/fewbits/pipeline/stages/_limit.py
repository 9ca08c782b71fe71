"""How much may be left of a network that is to take no more time or energy than is allowed on a machine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import inf, isinf
from typing import Any

from torch import nn

from fewbits.attach import plan_of
from fewbits.channels.select import ChannelChoice
from fewbits.channels.surgery import prune_channels
from fewbits.errors import BudgetError
from fewbits.hardware import cost_of, layers, machine_of, price
from fewbits.recipe.pruning import ChannelPruning

HALVINGS = 12  # a share of the multiplications to 1/4096: less than one channel of most networks


class Limit:
    """Latency or energy of one sample on a machine, of dense weights: what is compressed further takes no more.

    Args:
        full: the network at the start; every cost is counted against it.
        shape: of one sample, or the inputs of a batch. part: has a ``machine``.

    Raises:
        RecipeError: no such machine, or one without energies.
    """

    def __init__(self, full: nn.Module, shape: Any, part: ChannelPruning) -> None:
        assert part.quantity is not None
        assert part.machine is not None
        self.quantity, self.machine, self.most = part.quantity, part.machine, part.most
        self._full, self._shape = full, shape
        self._cost = cost_of(f"{part.quantity}@{part.machine}", full, shape)
        self.whole = self._of(full)

    def allowed(self, done: float) -> float:
        """What may be spent after a share of all rounds: geometrically from the whole network's cost to the limit."""
        if isinf(self.whole) or self.whole <= self.most:
            return self.most
        return float(self.whole * (self.most / self.whole) ** done)

    def choice(self, model: nn.Module, chosen: Callable[[float], ChannelChoice], done: float) -> ChannelChoice:
        """The choice that leaves most multiplications and costs no more than is allowed.

        Args:
            model: the present network. chosen: from a share of multiplications that may be left of it to a choice, as
                :func:`fewbits.channels.select.choose`. done: share of all rounds, 0 to 1.

        Raises:
            BudgetError: no choice is cheap enough; with the least that was found. UnsupportedError: none fits the
                machine; with the layer.
        """
        allowed = self.allowed(done)
        low, high, best, least = 0.0, 1.0, None, inf
        share = 1.0
        for _ in range(HALVINGS):
            try:
                choice = chosen(share)
            except BudgetError:  # the caps keep more than this
                low = share
            else:
                cost = self._after(model, choice)
                least = min(least, cost)
                if cost <= allowed:
                    best, low = choice, share
                    if share == 1.0:
                        break
                else:
                    high = share
            share = (low + high) / 2
        if best is None and isinf(least):
            price(layers(self._full, self._shape, plan_of(model)), machine_of(self.machine))  # says why it does not fit
        if best is None:
            unit = "ms" if self.quantity == "latency" else "uJ"
            raise BudgetError(
                f"channels: {self.most:.4g} {unit} on {self.machine} cannot be reached: the least that was found is "
                f"{least:.4g} {unit}; allow more, or a larger channels.cap"
            )
        return best

    def _after(self, model: nn.Module, choice: ChannelChoice) -> float:
        smaller = copy.deepcopy(model)
        prune_channels(smaller, choice.channels)
        return self._of(smaller)

    def _of(self, model: nn.Module) -> float:
        return self._cost(plan_of(model))
