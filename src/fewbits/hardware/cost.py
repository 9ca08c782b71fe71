"""What a plan costs, as one number that a search can make smaller.

A cost is a plain function ``cost(plan) -> float``; less is better. Its maker binds it to a network and to the shape
of one sample, so that whatever is the same for all plans (the graph, a machine's tables) is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType

from torch import nn

from fewbits.errors import MismatchError, RecipeError, UnsupportedError, did_you_mean
from fewbits.hardware.calls import calls
from fewbits.hardware.count import layers_of
from fewbits.hardware.layers import records_of
from fewbits.hardware.machine import Machine
from fewbits.hardware.price import price
from fewbits.hardware.reading import machine_of
from fewbits.plan import Plan

Cost = Callable[[Plan], float]
"""``cost(plan)``: what the network costs with that plan; less is better."""

CostMaker = Callable[[nn.Module, tuple[int, ...]], Cost]
"""``maker(model, input_shape)``: the cost of plans of this network on samples of this shape, without the batch."""


def parameters(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Trainable numbers that are not zero; of an INT8 network, whose normalisation is folded, weights and biases."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def cost(plan: Plan) -> float:
        wanted = set(shapes)
        if plan.affine:  # layers without a bias have got one
            stayed = {n for n, shape in shapes.items() if n in plan or len(shape) > 1}  # not folded into a layer
            wanted = stayed | {n for n in plan if n.endswith(".bias")}
        missing = sorted(wanted - set(plan))
        if missing:
            raise MismatchError(
                f"the plan lacks {missing[0]!r}, a parameter of the network{did_you_mean(missing[0], plan)}"
            )
        return float(sum(int(plan[name].values().count_nonzero()) for name in wanted))

    return cost


def macs(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Multiply-accumulate operations for one sample with weights that are not zero (see :func:`count`)."""
    found = calls(model, input_shape)

    def cost(plan: Plan) -> float:
        return float(sum(layer.nonzero_macs for layer in layers_of(found, plan, narrow=True)))

    return cost


def flops(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Floating-point operations: two for each of :func:`macs`."""
    multiplied = macs(model, input_shape)
    return lambda plan: 2 * multiplied(plan)


COSTS: Mapping[str, CostMaker] = MappingProxyType({"parameters": parameters, "macs": macs, "flops": flops})
"""The costs that a recipe can name, beside those of :data:`MACHINE_COSTS` on a machine."""

MACHINE_COSTS: Mapping[str, str] = MappingProxyType(
    {
        "latency": "milliseconds for one sample",
        "energy": "microjoules for one sample, of the parts that the machine has figures for",
        "traffic": "bytes that pass the outermost memory for one sample",
    }
)
"""Costs on a machine, and what they are in: a recipe names them as ``latency@eyeriss-v2`` or ``energy@mine.yaml``."""


def on_machine(quantity: str, machine: Machine) -> CostMaker:
    """The maker of a cost on a machine. A plan that does not fit it costs infinitely much.

    Raises:
        RecipeError: the machine has no figures of energy.
    """
    if quantity == "energy" and not machine.array.has_energy:
        raise RecipeError(f"{machine.name} has no energy of a multiplication: it can have a latency, or traffic")

    def maker(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
        found = calls(model, input_shape)

        def cost(plan: Plan) -> float:
            records = records_of(found, plan)
            try:
                priced = price(records, machine)
            except UnsupportedError:
                return inf
            if quantity == "latency":
                return 1e3 * priced.seconds
            return 1e6 * (priced.joules or 0.0) if quantity == "energy" else priced.bytes_by_memory[machine.outer.name]

        return cost

    return maker


def cost_of(
    name: str, model: nn.Module, input_shape: tuple[int, ...], more: Mapping[str, CostMaker] | None = None
) -> Cost:
    """The cost of that name for a network.

    Args:
        more: further makers by name, such as a machine's latency; they go before those that come along.

    Raises:
        RecipeError: no such cost. UnsupportedError: its figures cannot be had for this network.
    """
    return maker_of(name, more)(model, input_shape)


def maker_of(name: str, more: Mapping[str, CostMaker] | None = None) -> CostMaker:
    """The maker of that name.

    Raises:
        RecipeError: no such cost.
    """
    makers = {**COSTS, **(more or {})}
    quantity, at, machine = name.partition("@")
    if name not in makers and at and quantity in MACHINE_COSTS:
        return on_machine(quantity, machine_of(machine))
    if name not in makers:
        known = ", ".join([*sorted(makers), *(f"{quantity}@MACHINE" for quantity in MACHINE_COSTS)])
        raise RecipeError(f"no cost named {name!r}{did_you_mean(name, [*makers, *MACHINE_COSTS])}; there are {known}")
    return makers[name]
