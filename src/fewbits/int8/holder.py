"""A plan held on the integer form of a network: activations on grids, weights on whatever grid the plan has."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewbits.attach.holder import Floats, Parametrized
from fewbits.channel_masks import channels_of
from fewbits.int8.form import affine_plan
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.plan import Plan


class IntegerForm(Parametrized):
    """As :class:`~fewbits.attach.holder.Parametrized`; ranges of activations are trained with ``learn``.

    Args:
        original: the float network that the form was made of.
    """

    def __init__(self, original: nn.Module) -> None:
        self.channels = channels_of(original)

    def attach(self, net: nn.Module, plan: Plan, *, learn: bool) -> None:
        """Hold the entries on a calibrated integer form, in place."""
        super().attach(net, plan, learn=learn)
        for module in net.modules() if learn else ():
            if isinstance(module, RangedQuantizer):
                module.learn()

    def plan(self, net: Any, floats: Floats) -> Plan:
        """See :func:`fewbits.int8.form.affine_plan`."""
        return affine_plan(net, channels=self.channels, floats=floats.dtype)
