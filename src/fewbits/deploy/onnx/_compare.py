"""Whether an exported graph computes what the network does; if not, from which layer on it does not."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.approximation import approximations_of
from fewbits.deploy.onnx import runtime
from fewbits.deploy.onnx._graph import feeds_of, layer_outputs
from fewbits.deploy.onnx.runtime import Array
from fewbits.errors import ExportError
from fewbits.task import run
from fewbits.task.batches import run_apart, tensors_in

FLOAT = 1e-4  # of a layer's root mean square: rounding of float32, summed up over the layers
INTEGER = 0.03  # one level here and there: a level is 1/255 of a range, of which the root mean square may be a tenth


SWAPPED = 3e-3  # where lines meet, an approximation may jump, and rounding decides to which side


@dataclass(frozen=True)
class Agreement:
    """How far an exported graph is from its network.

    Attributes:
        difference: root mean square of the outputs' difference over that of the network's outputs.
        layers: layers that can be compared one by one.
        same_class: share of samples whose highest score is the same one's, 0 to 1.
    """

    difference: float
    layers: int
    same_class: float


def distance(expected: Array, found: Array) -> float:
    """Root mean square of the difference over that of the expected numbers; infinite for another shape or NaN."""
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    off = float(np.sqrt(np.mean(np.square(expected.astype(np.float64) - found))))
    return off / size if size else off


def allowed(network: nn.Module) -> float:
    """How far rounding may move the outputs of a network with float activations."""
    swapped = approximations_of(network).values()
    if any(found.kind == "integer" for found in swapped):
        return INTEGER
    return SWAPPED if swapped else FLOAT


def compare(network: nn.Module, model: Any, inputs: Any, *, integer: bool) -> Agreement:
    """Run a network and its ModelProto on ``inputs``.

    Args:
        network: what was exported, in evaluation mode. integer: whether it quantizes activations, where the runtime's
            rounding may differ by one level.

    Raises:
        ExportError: they differ by more than rounding; the message names the first layer that does, and both sides.
    """
    limit = INTEGER if integer else allowed(network)
    with torch.no_grad():
        expected = [tensor.cpu().numpy() for tensor in tensors_in(run_apart(network, inputs))]
    feeds = {name: value.numpy() for name, value in feeds_of(network, inputs).items()}
    found = runtime.run(model.SerializeToString(), feeds)
    if len(found) != len(expected):
        raise ExportError(f"the network gives {len(expected)} tensors, and its exported graph {len(found)}")
    off = max(distance(mine, other) for mine, other in zip(expected, found, strict=True))
    paths = layer_outputs(model)
    if off > limit:
        raise ExportError(_first(network, model, inputs, feeds, paths, limit, off))
    return Agreement(off, len(paths), same_class(expected[0], found[0]))


def same_class(expected: Array, found: Array) -> float:
    """Share of samples, 0 to 1, whose highest number along the last dimension is the same one's."""
    if not expected.ndim:
        return float(expected == found)
    return float((expected.argmax(-1) == found.argmax(-1)).mean())


def _first(
    network: nn.Module,
    model: Any,
    inputs: Any,
    feeds: dict[str, Array],
    paths: dict[str, str],
    limit: float,
    off: float,
) -> str:
    """The sentence on the first layer that diverges."""
    mine = _torch_outputs(network, inputs)
    paths = {path: value for path, value in paths.items() if path in mine}
    exposed = copy.deepcopy(model)
    outputs = {output.name for output in exposed.graph.output}
    exposed.graph.output.extend(
        runtime.onnx().ValueInfoProto(name=value) for value in paths.values() if value not in outputs
    )
    names = [output.name for output in exposed.graph.output]
    values = dict(zip(names, runtime.run(exposed.SerializeToString(), feeds, optimized=False), strict=True))
    for path, value in paths.items():
        if mine[path].shape != values[value].shape:  # the graph has that layer in another place
            continue
        here = distance(mine[path], values[value])
        if here > limit:
            return (
                f"the exported network computes something else from layer {path!r} on: its output has the root mean "
                f"square {_size(mine[path])} in torch and {_size(values[value])} in ONNX Runtime, and they differ by "
                f"{100 * here:.3g} % (at most {100 * limit:g} % are rounding)"
            )
    return (
        f"the outputs of torch and ONNX Runtime differ by {100 * off:.3g} % (at most {100 * limit:g} % are rounding), "
        "yet every layer that can be compared agrees while the runtime fuses nothing: its own optimizations change them"
    )


def _size(values: Array) -> str:
    return f"{float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))):.4g}"


def _torch_outputs(network: nn.Module, inputs: Any) -> dict[str, Array]:
    """What every module without children gives in its last call."""
    found: dict[str, Array] = {}
    handles = []
    for path, module in network.named_modules():
        if path and not any(True for _ in module.children()):

            def note(_module: nn.Module, _inputs: object, output: object, path: str = path) -> None:
                if isinstance(output, Tensor):
                    found[path] = output.detach().cpu().numpy().copy()

            handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            run(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
