"""A network in integer form as a ``.tflite`` file that was run and compared before it is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fewbits import files
from fewbits.approximation import approximations_of
from fewbits.deploy.onnx._compare import INTEGER, distance
from fewbits.deploy.tflite import _layers, _pools, _shapes  # noqa: F401  # they fill the table of operations
from fewbits.deploy.tflite._graph import Looking, Lowering
from fewbits.deploy.tflite._lut import Decoding, with_tables
from fewbits.deploy.tflite._package import Array, interpreter, run
from fewbits.errors import ExportError, UnsupportedError
from fewbits.int8.alone import refuse_alone
from fewbits.int8.form import is_integer
from fewbits.plan import Affine, Plan
from fewbits.task import Feed
from fewbits.task import run as run_network
from fewbits.task.batches import called, tensors_in
from fewbits.weights import layers


@dataclass(frozen=True)
class TfliteExport:
    """What :func:`to_tflite` wrote.

    Attributes:
        bytes: of the file. equal, near: shares of output levels that are those of torch, or next to them, 0 to 1.
        same_class: share of samples whose highest score is the same one's.
        operations: by the names of the schema, how often. notes: sentences on what is not as in the plan.
        tables: what look-up tables made of the file; ``None`` without them.
    """

    bytes: int
    equal: float
    near: float
    same_class: float
    operations: dict[str, int]
    notes: tuple[str, ...]
    tables: Decoding | None = None


def to_tflite(
    model: nn.Module, inputs: Any, path: str | os.PathLike[str], *, plan: Plan, lut: bool = False
) -> TfliteExport:
    """Write a network in integer form as ``.tflite`` (int8, one sample at a time, channels last), after torch and
    LiteRT agreed on ``inputs``.

    Weights are the levels of the plan, so clusters stay clusters; biases are int32 in the accumulator's unit. Inputs
    and outputs are int8 as well, with the scale and zero point that the file says.

    Args:
        model: as :func:`fewbits.load` gives it. inputs: what both are run on; they also give ranges to values without
            a grid (outputs of ``int8``). plan: what the network was loaded from.
        lut: weights are look-up tables, which only TFLite-Micro unpacks (its operator DECODE), into RAM. The file is
            compared without them, and its tables are decoded again by NumPy.

    Raises:
        MissingExtraError: no ``ai-edge-litert``. UnsupportedError: the network is not in integer form, or an operation
        cannot be written; the message names it. ExportError: outputs differ. FileError: the file cannot be written.
    """
    refuse_alone(model, "TFLite operators")
    if swapped := approximations_of(model):
        which = ", ".join(f"{name} by {found.kind}" for name, found in swapped.items())
        raise UnsupportedError(
            f"no int8 .tflite of {type(model).__name__}: it computes {which}, for which there are no int8 operators; "
            "export --to onnx has them, and without the section ops there are files of what else has operators"
        )
    if is_integer(model) and not isinstance(model, fx.GraphModule):
        raise UnsupportedError(
            f"{type(model).__name__} has integers in its layers and floats between them, since torch.fx cannot trace "
            "it, and .tflite files of integers have nothing else: export it to onnx"
        )
    if not (isinstance(model, fx.GraphModule) and is_integer(model)):
        raise UnsupportedError(
            f"{type(model).__name__} computes with floats, and .tflite files of integers with integers: compress it "
            "with activations: int8, or assign.method int8"
        )
    inputs = Feed(model).arranged(inputs)
    data, lowering = written(model, inputs, plan)
    found = compared(data, model, inputs, lowering)
    if lut:
        data, tables = with_tables(lowering.file)
        found = replace(found, bytes=len(data), tables=tables)
    files.write(path, data)
    return found


@torch.no_grad()
def written(model: fx.GraphModule, inputs: Any, plan: Plan) -> tuple[bytes, Lowering]:
    """The file of a network, and how it was made."""
    args, named = called(inputs)
    if named:
        raise UnsupportedError("a .tflite file has its inputs by place: give them without names")
    looking = Looking(model.eval())
    looking.run(*args)
    lowering = Lowering(model, plan, looking.seen, type(model).__name__)
    return lowering.written(), lowering


@torch.no_grad()
def compared(data: bytes, model: nn.Module, inputs: Any, lowering: Lowering) -> TfliteExport:
    """Run a file and its network.

    Raises:
        ExportError: they differ by more than rounding.
    """
    made = interpreter(data)
    args, _ = called(inputs)
    levels = [to_levels(value, detail) for value, detail in zip(args, made.get_input_details(), strict=True)]
    expected = list(tensors_in(run_network(model, inputs)))
    equal = near = total = off_most = 0.0
    same = 1.0
    for mine, other, detail in zip(expected, run(data, levels), made.get_output_details(), strict=True):
        wanted = to_levels(mine, detail).astype(int)
        off = np.abs(wanted - other)
        equal, near, total = equal + float((off == 0).sum()), near + float((off <= 1).sum()), total + off.size
        scale, zero = detail["quantization"]
        off_most = max(off_most, distance(scale * (wanted - zero), scale * (other.astype(int) - zero)))
        same = min(same, float((wanted.argmax(-1) == other.argmax(-1)).mean()))
    if off_most > INTEGER:
        raise ExportError(
            f"LiteRT computes something else than torch: outputs differ by {100 * off_most:.3g} % (at most "
            f"{100 * INTEGER:g} % are rounding)"
        )
    return TfliteExport(len(data), equal / total, near / total, same, _counted(lowering), _notes(model, lowering))


def to_levels(value: Tensor, detail: Any) -> Array:
    """A tensor of torch's on the grid and in the order of a file's input or output: int8."""
    scale, zero = detail["quantization"]
    values = value.detach().cpu().numpy()
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    return np.clip(np.round(values / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def _counted(lowering: Lowering) -> dict[str, int]:
    s, model = lowering.file.schema, lowering.file.model
    names = {code: name for name, code in vars(s.BuiltinOperator).items() if isinstance(code, int)}
    found: dict[str, int] = {}
    for operator in lowering.file.graph.operators:
        name = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        found[name] = found.get(name, 0) + 1
    return found


def _notes(model: nn.Module, lowering: Lowering) -> tuple[str, ...]:
    notes = []
    floats = [path for path in layers(model) if not isinstance(lowering.plan.named(f"{path}.weight"), Affine)]
    if floats:
        notes.append(f"{len(floats)} weights were floats in the file, and became INT8")
    if lowering.loose:
        several = "value" if len(lowering.loose) == 1 else "values"
        notes.append(f"{len(lowering.loose)} {several} without a grid got the range of the inputs given")
    return tuple(notes)
