"""What a plan takes on several machines, and what an entropy decoder at the memory's edge would change there."""

from typing import Any

from torch import nn

import fewbits as fb
from benchmarks.unit import Row
from fewbits.hardware import Machine, machine_of
from fewbits.plan import Plan

DECISION_PJ = 3.1 + 3 * 0.1 + 2 * 16 * 0.15625
"""Of one binary decision at 45 nm: a multiplication and three additions of 32 bits, and a state of 16 bits that is read
from 8 KiB and written back (Horowitz 2014). What moves the stream's bits along is not in it."""
SOURCE = "counted: benchmarks/priced.py"


def priced(plan: Plan, model: nn.Module, sample: Any, machines: list[str]) -> Row:
    """Microjoules of a sample by machine: in all, in the outer memory, and both with a decoder and weights coded there.

    Args:
        model: a network of the class, as it was before. sample: the shape of one, or inputs.
    """
    found: Row = {}
    each = DECISION_PJ * decisions(plan)
    for name in machines:
        machine = machine_of(name)
        plain = fb.cost(plan, model, sample, machine=machine)
        coded = fb.cost(plan, model, sample, machine=with_decoder(machine, each))
        outer = machine.outer.name
        found |= {
            f"microjoules@{name}": 1e6 * (plain.joules or 0.0), f"cycles@{name}": plain.cycles,
            f"outer_microjoules@{name}": 1e-6 * plain.energy_by_part[outer],
            f"coded_microjoules@{name}": 1e6 * (coded.joules or 0.0),
            f"coded_outer_microjoules@{name}": 1e-6 * coded.energy_by_part[outer],
            f"decoder_microjoules@{name}": 1e-6 * coded.energy_by_part["decoder"],
        }  # fmt: skip
    return found


def decisions(plan: Plan) -> float:
    """Binary decisions of a weight, on average: whether it is zero, its sign, and whether it is larger still."""
    count = total = 0
    for entry in plan.clustered.values():
        size = entry.levels.abs()
        count, total = count + size.numel(), total + size.numel() + int((size + (size > 0)).sum())
    return total / count


def with_decoder(machine: Machine, pj_per_weight: float) -> Machine:
    """The machine with weights entropy-coded in its outer memory, and something that decodes them at its edge."""
    values: dict[str, Any] = machine.model_dump(mode="json")
    values["formats"] = {**values["formats"], machine.outer.name: "entropy-coded"}
    values["decoder"] = {"pj_per_weight": {"value": pj_per_weight, "source": "decoder"}}
    values["sources"] = {**values["sources"], "decoder": SOURCE}
    return machine_of(values)
