"""A network as an ONNX graph: what torch exports, with QuantizeLinear and DequantizeLinear for quantizers."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.deploy.onnx.runtime import onnx
from fewbits.errors import ExportError
from fewbits.int8.quantizer import Quantizer
from fewbits.ops.swap import inline
from fewbits.task import Inputs, samples_in
from fewbits.task.batches import called, described, tensors_in
from fewbits.task.signature import Signature

OPSET = 21  # the first with 4-bit integers
INPUT, OUTPUT = "input", "output"  # where there is one; several have names of their own, or numbers


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


def feeds_of(network: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The tensors that a network is called with, by the names that they have in its graph.

    Raises:
        ExportError: there is something else than tensors among them.
    """
    args, kwargs = called(inputs)
    if len(args) + len(kwargs) == 1:
        named = {INPUT: next(iter((*args, *kwargs.values())))}
    else:
        names = Signature.of(network).names
        named = {names[n] if n < len(names) else f"{INPUT}_{n}": x for n, x in enumerate(args)} | kwargs
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ExportError(f"{name} is {described(value)}; ONNX export takes networks whose inputs are tensors")
    return {name: value.detach().cpu() for name, value in named.items()}


def graph_of(
    network: nn.Module, inputs: Any, *, outputs: int = 1, only_tensors: bool = False, optimize: bool = True
) -> Any:
    """The ModelProto of a network in evaluation mode; any batch size goes.

    Args:
        network: what is exported. inputs: an example: one tensor ``[N, ...]``, or :class:`~fewbits.task.Inputs`.
        outputs: how many tensors it gives. only_tensors: leave out what else it gives, such as a cache of keys.
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
    network = inline(network)
    if only_tensors:
        network.forward = _tensors_of(network.forward)
    samples, batch = samples_in(inputs), torch.export.Dim("batch")
    args, kwargs = called(_twice(inputs, samples) if samples == 1 else inputs)  # a batch of one would stay one

    def shape(value: Any) -> Any:
        return {0: batch} if isinstance(value, Tensor) and value.dim() and len(value) == max(samples, 2) else None

    shapes: Any = tuple(map(shape, args))
    if kwargs:
        names = Signature.of(network).names
        shapes = dict(zip(names, shapes, strict=False)) | {name: shape(x) for name, x in kwargs.items()}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(feeds_of(network, inputs)),
                output_names=[OUTPUT] if outputs == 1 else [f"{OUTPUT}_{n}" for n in range(outputs)],
                opset_version=OPSET,
                optimize=optimize,
                verbose=False,
            )
    except Exception as error:  # many types, depending on what the forward does
        reason = str(error.__cause__ or error).strip().partition("\n")[0]  # torch adds pages of advice
        raise ExportError(f"torch cannot export {type(network).__name__} to ONNX: {reason}") from error
    assert program is not None
    return program.model_proto


def _tensors_of(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that gives nothing but the tensors, in order."""

    @wraps(forward)
    def bare(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple(tensors_in(forward(*args, **kwargs)))

    return bare


def _twice(inputs: Any, samples: int) -> Any:
    """Inputs with every sample twice."""
    if isinstance(inputs, Inputs):
        args = tuple(_twice(x, samples) for x in inputs.args)
        return Inputs(args, {name: _twice(x, samples) for name, x in inputs.kwargs.items()})
    if isinstance(inputs, Tensor):
        return torch.cat([inputs.cpu()] * 2) if inputs.dim() and len(inputs) == samples else inputs.cpu()
    return inputs


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
