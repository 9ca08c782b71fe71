"""A network's steps before they have slots, and how many primes are dropped on the way to each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fewbits.hardware.packing import summed_cells
from fewbits.private.form import Form
from fewbits.private.read import INPUT, Node, Reading

OUTPUT = "output"


@dataclass(frozen=True)
class Op:
    """A step before it has slots: an affine map, a square or product, or a source with an offset."""

    target: str
    kind: str  # "map", "square", "offset"
    sources: tuple[str, ...]
    where: str = ""
    form: Form | None = None
    bare: bool = False  # not rescaled
    like: str | None = None
    other: str | None = None  # the second factor of a product
    shape: tuple[int, ...] = ()


def ops_of(reading: Reading, profile: str) -> tuple[Op, ...]:
    ops: list[Op] = []
    fast = profile == "fast"

    def value(name: str, node: Node, form: Form, bare: bool, like: str | None = None) -> str:
        carried = _carried(form)
        if carried is not None and carried != INPUT and not bare:
            if not bool(form.bias.any()):
                return carried
            ops.append(Op(name, "offset", (carried,), node.where, form))
        else:
            ops.append(Op(name, "map", tuple(form.terms), node.where, form, bare, like, shape=node.shape))
        return name

    for node in reading.nodes:
        if node.other is not None:
            first = value(f"{node.name}.a", node, node.form, fast)
            second = value(f"{node.name}.b", node, node.other, fast, like=first)
            ops.append(Op(node.name, "square", (first, second), node.where, other=second))
        elif node.squared:
            ops.append(Op(node.name, "square", (value(f"{node.name}.x", node, node.form, fast),), node.where))
        else:
            ops.append(Op(node.name, "map", tuple(node.form.terms), node.where, node.form, shape=node.shape))
    ops.append(Op(OUTPUT, "map", tuple(reading.output.terms), "the output", reading.output, fast))
    return tuple(ops)


def _carried(form: Form) -> str | None:
    """The source that a form is, but for its bias."""
    if len(form.terms) != 1:
        return None
    (name, matrix), *_ = form.terms.items()
    same = matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype))
    return name if same else None


def drops(op: Op) -> int:
    return int(op.kind == "square" or (op.kind == "map" and not op.bare))


def used_of(ops: tuple[Op, ...]) -> dict[str, int]:
    """How many primes have been dropped when each value is there."""
    used = {INPUT: 0}
    for op in ops:
        used[op.target] = max(used[source] for source in op.sources) + drops(op)
    return used


def depth_of(ops: tuple[Op, ...]) -> int:
    return used_of(ops)[OUTPUT]


def halved_of(ops: tuple[Op, ...], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bool]:
    """Of which values cells of 2 by 2 pixels are all that maps read, themselves or their squares."""
    read = {op.target: False for op in ops}
    for op in ops:
        if op.form is not None and op.kind == "map":
            for name, term in op.form.terms.items():
                read[name] = summed_cells(term.numpy().T, shapes.get(name, ())) is not None
    for op in reversed(ops):
        if op.kind == "square" and op.other is None:
            read[op.sources[0]] = read[op.target]
    return read
