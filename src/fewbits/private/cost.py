"""Predicted encrypted latency of a plan, for whatever makes a cost smaller: sweeps, searches, channels."""

from __future__ import annotations

import copy
from math import inf

import torch
from torch import nn

from fewbits.errors import UnsupportedError
from fewbits.hardware import Cost, CostMaker
from fewbits.plan import Plan
from fewbits.private.compile import compile_network
from fewbits.private.price import estimated, predicted

SAMPLES = 8


def encrypted_latency(profile: str = "fast", error: float | None = None, degree: int | None = None) -> CostMaker:
    """The maker of a cost: estimated milliseconds of one thread for one encrypted sample.

    Ranges are those of standard normal inputs, so parameters may differ from those of a program on real ones. A plan
    that no program can be made of costs infinitely much.

    Args:
        profile, error, degree: as for :func:`compile_network`.
    """

    def maker(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
        samples = torch.randn(SAMPLES, *input_shape, generator=torch.Generator().manual_seed(0))
        network = copy.deepcopy(model).eval()
        named = dict(network.named_parameters()) | dict(network.named_buffers())

        @torch.no_grad()
        def cost(plan: Plan) -> float:
            for name, entry in plan.items():
                if name in named:
                    named[name].copy_(entry.values().reshape(named[name].shape))
            try:
                program = compile_network(network, samples, profile=profile, error=error, degree=degree)
            except UnsupportedError:
                return inf
            return 1000 * predicted(program.counts, estimated(program.profile.parameters))

        return cost

    return maker
