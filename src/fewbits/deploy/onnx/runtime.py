"""ONNX and ONNX Runtime, imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fewbits.errors import ExportError, MissingExtraError

Array = NDArray[Any]


def onnx() -> Any:
    """The ``onnx`` package, once it is known that torch can export with it.

    Raises:
        MissingExtraError: ``onnx``, ``onnxscript`` or ``onnxruntime`` is not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnx, onnxruntime and onnxscript", "onnx", "ONNX") from error
    return onnx


def session(model: bytes, *, threads: int = 1, optimized: bool = True) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: a serialized ModelProto. threads: that one operation may use.
        optimized: whether the runtime may fuse operations, as it does by default.

    Raises:
        MissingExtraError: no ONNX Runtime. ExportError: it does not take the model.
    """
    onnx()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Products of 4-bit weights in float32; by default the runtime rounds their activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # On x86 without VNNI sums of two products of 8 bits are held in 16, which is too few; this option takes wider ones.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if b"QuantizeLinear" in model:  # which has another first letter than DequantizeLinear
        model = _weights_apart(model)
    else:
        # Clusters without integer activations: else the runtime makes floats of them anew at every call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own types, which share no public parent
        raise ExportError(f"ONNX Runtime does not take this model: {error}") from error


def _weights_apart(model: bytes) -> bytes:
    """A model in which each use of integer weights has its own copy of them, for the runtime alone.

    ``session.x64quantprecision`` writes weights and zero points anew, once for each use under one name, and so fails on
    layers that are called twice.
    """
    made = onnx().load_from_string(model)
    graph, constants = made.graph, {each.name: each for each in made.graph.initializer}
    uses: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, place))
    copies = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        for number, (user, place) in enumerate(uses.get(node.output[0], [])[1:]):
            again = type(node)()
            again.CopyFrom(node)
            again.name = again.output[0] = user.input[place] = f"{node.output[0]}.apart{number}"
            for at, name in enumerate(node.input):
                own = graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = again.input[at] = f"{again.name}.{at}"
            copies.append(again)
    if not copies:
        return model
    nodes = [*copies, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    found: bytes = made.SerializeToString()
    return found


def run(model: bytes, feeds: Mapping[str, Array], *, optimized: bool = True) -> list[Array]:
    """All outputs of a model for its inputs by name.

    Raises:
        ExportError: the runtime fails.
    """
    made = session(model, optimized=optimized)
    taken = {value.name for value in made.get_inputs()}  # a graph leaves out what changes nothing
    try:
        return list(made.run(None, {name: value for name, value in feeds.items() if name in taken}))
    except Exception as error:
        raise ExportError(f"ONNX Runtime fails on this model: {error}") from error
