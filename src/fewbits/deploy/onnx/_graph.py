"""A network as an ONNX graph: what torch exports, with QuantizeLinear and DequantizeLinear for quantizers."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.deploy.onnx.runtime import onnx
from fewbits.errors import ExportError
from fewbits.int8.quantizer import Quantizer

OPSET = 21  # the first with 4-bit integers
INPUT, OUTPUT = "input", "output"


class _Pair(nn.Module):
    """What stands for a quantizer while torch exports."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero_point", quantizer.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        grid = (self.scale, self.zero_point)
        levels = torch.onnx.ops.symbolic("QuantizeLinear", (x, *grid), dtype=torch.uint8, shape=x.shape, version=OPSET)
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (levels, *grid), dtype=torch.float32, shape=x.shape, version=OPSET
        )


def graph_of(network: nn.Module, inputs: Tensor, *, optimize: bool = True) -> Any:
    """The ModelProto of a network in evaluation mode; any batch size goes.

    Args:
        network: takes one tensor, gives one. inputs: an example, [N, ...].
        optimize: let torch's exporter fuse and fold; not where weights must come out as they are.

    Raises:
        MissingExtraError: no ONNX. ExportError: torch cannot export the network.
    """
    onnx()
    network = copy.deepcopy(network).cpu().eval()
    for path, module in list(network.named_modules()):
        if isinstance(module, Quantizer):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, _Pair(module))
    example = inputs.cpu() if len(inputs) > 1 else torch.cat([inputs.cpu()] * 2)  # a batch of one would stay one
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                optimize=optimize,
                verbose=False,
            )
    except Exception as error:  # many types, depending on what the forward does
        reason = str(error.__cause__ or error).strip().partition("\n")[0]  # torch adds pages of advice
        raise ExportError(f"torch cannot export {type(network).__name__} to ONNX: {reason}") from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages that no network here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def without_notes(model: Any) -> bytes:
    """The serialized model without what torch noted at its nodes (stack traces and the like)."""
    model = copy.deepcopy(model)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.value_info[:]  # shapes of values between nodes, which a runtime infers
    return bytes(model.SerializeToString())


def layer_outputs(model: Any) -> dict[str, str]:
    """``{path of a module: name of its output value}`` in the order of computation, from what torch notes at nodes."""
    import ast

    found: dict[str, str] = {}
    for node in model.graph.node:
        for note in node.metadata_props:
            if note.key == "pkg.torch.onnx.name_scopes":
                scopes = ast.literal_eval(note.value)
                path = scopes[-2] if len(scopes) > 1 else ""
                if path:
                    found.pop(path, None)  # the last operation of a module gives its value
                    found[path] = node.output[0]
    return found
