"""A network, plain or compressed, as an ONNX file that was run and compared before it is written."""

from __future__ import annotations

import copy
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from fewbits import files
from fewbits.deploy.onnx._compare import Agreement, allowed, compare, distance
from fewbits.deploy.onnx._graph import graph_of, without_notes
from fewbits.deploy.onnx._network import OnnxNetwork, serialized
from fewbits.deploy.onnx._rewrite import agreement, rewritten
from fewbits.deploy.onnx._weights import Integers, marked, misplaced, put, smallest_width
from fewbits.errors import ExportError, UnsupportedError
from fewbits.int8.alone import refuse_alone
from fewbits.int8.folding import folded
from fewbits.int8.form import bias_units, is_integer
from fewbits.int8.places import repeated
from fewbits.plan import Affine, Clustered, Masked, Plan
from fewbits.task import Feed
from fewbits.task.batches import called, described, run_apart, tensors_in
from fewbits.weights import aliases, layers, places


@dataclass(frozen=True)
class Exported:
    """What :func:`to_onnx` wrote.

    Attributes:
        bytes: of the file. agreement: of its outputs with the network's.
        notes: sentences on what the format cannot hold in the bits that the plan has.
    """

    bytes: int
    agreement: Agreement
    notes: tuple[str, ...]


def to_onnx(model: nn.Module, inputs: Any, path: str | os.PathLike[str], *, plan: Plan | None = None) -> Exported:
    """Write a network as ONNX (opset 21, any batch size), after torch, its folded form and ONNX Runtime agreed on
    ``inputs``.

    Normalisation is folded into the layer before it. INT8 weights and activations become QuantizeLinear and
    DequantizeLinear, which runtimes fuse into integer operations; clustered weights of at most 4 bits become 4-bit
    integers with a scale per channel (the step times the folded normalisation), of more bits 8 or 16; all else is
    float32.

    Args:
        model: as :func:`fewbits.load` gives it, or any float network. Its inputs are tensors. Those that it returns, in
            whatever tuples or dicts, are the graph's outputs in order.
        inputs: what both are run on: one tensor ``[N, ...]``, or what a batch of the network has for inputs.
        plan: what the network was loaded from; without it all weights are float32.

    Raises:
        MissingExtraError: no ONNX. ExportError: torch cannot export it, or the outputs differ by more than rounding;
        the
            message names the first layer. FileError: the file cannot be written.

    A network that came from an ONNX file keeps its graph: its weights are replaced, and nothing is folded.
    """
    entries = plan if plan is not None else Plan({})
    if isinstance(model, OnnxNetwork):
        return _own_graph(model, inputs, path, entries)
    refuse_alone(model, "ONNX operators")
    inputs = Feed(model).arranged(inputs)
    with torch.no_grad():
        returned = run_apart(model.eval(), inputs)
    expected = list(tensors_in(returned))
    if not expected:
        raise ExportError(f"{type(model).__name__} returns {described(returned)}, no tensor")
    parts = [part for part in tree_leaves(returned) if part is not None]  # as torch's exporter sees them
    more = [id(part) for part in parts] != [id(tensor) for tensor in expected]
    make = partial(graph_of, outputs=len(expected), only_tensors=more)
    integer = is_integer(model)
    network: nn.Module = model
    # What is as the user wrote it may have normalisation, which torch would fold, and weights in two roles.
    factors: dict[str, Tensor] | None = {} if isinstance(model, fx.GraphModule) else None
    if not integer:
        network, factors = _folded(model)
        with torch.no_grad():
            again = list(tensors_in(run_apart(network, inputs)))
            pairs = zip(expected, again, strict=True)
            off = max(distance(first.cpu().numpy(), second.cpu().numpy()) for first, second in pairs)
        if off > allowed(model):
            name = type(model).__name__
            raise ExportError(f"folding normalisation changes the outputs of {name} by {100 * off:.3g} %")
    tensors, notes = _integers(network, entries, factors)
    source = repeated(network) if isinstance(network, fx.GraphModule) else network
    to_trace, marks = marked(source, tensors)
    graph = make(to_trace, inputs, optimize=factors is not None)
    changed = misplaced(graph, marks, aliases(to_trace))
    idle = {name for name in changed if _is_idle(network, inputs, name)}
    if idle:
        tensors = {name: integers for name, integers in tensors.items() if name not in idle}
        notes.append(f"left out, as no output depends on it: {', '.join(sorted(idle))}")
    changed -= idle | {f"{path}.weight" for path in layers(network)}
    if changed:  # of recurrent layers and attention, which runtimes have in an order of their own
        tensors = {name: integers for name, integers in tensors.items() if name not in changed}
        to_trace, marks = marked(source, tensors)
        graph = make(to_trace, inputs, optimize=factors is not None)
        several = f"{len(changed)} tensor{'s' * (len(changed) > 1)}"
        notes.append(f"{several} became float32: torch's exporter rearranges the weights of {_modules(changed)}")
    put(graph, tensors, marks, aliases(to_trace))
    agreed = compare(network, graph, inputs, integer=integer)
    data = without_notes(graph)
    files.write(path, data)
    return Exported(len(data), agreed, tuple(notes))


def _own_graph(model: OnnxNetwork, inputs: Any, path: str | os.PathLike[str], plan: Plan) -> Exported:
    tensors, notes = _integers(model, plan, None)
    graph, floats = rewritten(model, tensors)
    args, named = called(Feed(model).arranged(inputs))
    found = agreement(model, graph, args, named)
    data = serialized(graph)
    files.write(path, data)
    return Exported(len(data), found, tuple(notes + floats))


def _is_idle(network: nn.Module, inputs: Any, name: str) -> bool:
    """Whether a weight could as well be another: that of a head, say, which only training reads."""
    other = copy.deepcopy(network)
    if (known := places(other).get(name)) is None:
        return False
    weight = known[0].tensor.data
    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        pairs = zip(tensors_in(run_apart(network, inputs)), tensors_in(run_apart(other, inputs)), strict=True)
        return all(torch.equal(first, second) for first, second in pairs)


def _modules(names: set[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[0] or name for name in names}))


def _folded(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """The folded network; itself, and no factors, where its structure cannot be read."""
    try:
        return folded(model)
    except UnsupportedError:
        return model, None


def _integers(
    network: nn.Module, plan: Plan, factors: dict[str, Tensor] | None
) -> tuple[dict[str, Integers], list[str]]:
    """The integer tensors of a plan as the exported network has them, and what is lost."""
    found: dict[str, Integers] = {}
    grown: Counter[tuple[int, int]] = Counter()
    floats: Counter[str] = Counter()
    state = network.state_dict()
    for name, entry in plan.items():
        if isinstance(entry, Affine):
            found[name] = Integers(entry.levels.numpy(), entry.scales.numpy(), 8, entry.axis)
        elif name not in state:
            continue  # a layer under two names, which is exported once
        elif isinstance(entry, Clustered):
            step = _step(entry)
            if step is None:
                floats["codebooks that are no grid"] += 1
                continue
            width = smallest_width(entry.bits)
            if width != entry.bits:
                grown[entry.bits, width] += 1
            factor = (factors or {}).get(name.removesuffix(".weight"))
            found[name] = _clustered(entry, step, factor, width)
            # The folded weight is rounded once, this product of integer and scale too: take the product for both.
            state[name].copy_(torch.from_numpy(found[name].values()))
        elif isinstance(entry, Masked):
            floats["pruned floats (zeros take as much as other numbers)"] += 1
    if plan.affine:
        for path, units in bias_units(network, plan).items():
            levels = (state[f"{path}.bias"].cpu() / units).round().numpy().astype(np.int32)
            found[f"{path}.bias"] = Integers(levels, units.numpy(), 32)
    notes = [
        f"ONNX has no {bits}-bit integers: {count} tensor{'s' * (count > 1)} of {bits} bits became int{width}"
        for (bits, width), count in sorted(grown.items())
    ]
    notes += [f"{count} tensor{'s' * (count > 1)} became float32: {what}" for what, count in floats.items()]
    return found, notes


def _step(entry: Clustered) -> float | None:
    """The step of a grid, also of a codebook that is one."""
    if entry.codebook is None:
        return entry.step
    last = entry.lowest + len(entry.codebook) - 1
    step = entry.codebook[-1] / last if last else 0.0
    grid = np.arange(entry.lowest, last + 1, dtype=np.float32) * np.float32(step)
    return step if step > 0 and np.array_equal(grid, np.array(entry.codebook, np.float32)) else None


def _clustered(entry: Clustered, step: float, factor: Tensor | None, width: int) -> Integers:
    levels = entry.levels.cpu().numpy()
    if factor is None:
        return Integers(levels, np.array([step], np.float32), width)
    scales = (factor.cpu().numpy() * np.float32(step)).astype(np.float32)
    sign = np.where(scales < 0, -1, 1).reshape([-1] + [1] * (levels.ndim - 1))
    return Integers(levels * sign, np.abs(scales), width)
