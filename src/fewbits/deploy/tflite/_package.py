"""The schema of TFLite's files, and its interpreter, imported only when asked for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fewbits.errors import ExportError, MissingExtraError

Array = NDArray[Any]


def schema() -> Any:
    """The generated classes of a ``.tflite`` file.

    Raises:
        MissingExtraError: ``ai-edge-litert`` is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "tflite", "TFLite") from error
    return schema_py_generated


def interpreter(data: bytes, *, reference: bool = False) -> Any:
    """An interpreter with memory for one sample.

    Args:
        reference: whether it has the reference kernels, and not the fast ones (XNNPACK).

    Raises:
        MissingExtraError: ``ai-edge-litert`` is not installed. ExportError: it does not take the file.
    """
    schema()
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    try:
        made = Interpreter(model_content=data, experimental_op_resolver_type=kind, num_threads=1)
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"LiteRT does not take this file: {error}") from error
    return made


def run(data: bytes, inputs: list[Array], *, reference: bool = False) -> list[Array]:
    """The integer outputs of a file, each ``[N, ...]``.

    Args:
        inputs: int8 ``[N, ...]`` for each input, in the file's layout; samples run one by one.

    Raises:
        As :func:`interpreter`.
    """
    import numpy as np

    made = interpreter(data, reference=reference)
    places = [entry["index"] for entry in made.get_input_details()]
    outputs = [entry["index"] for entry in made.get_output_details()]
    found: list[list[Array]] = [[] for _ in outputs]
    for sample in zip(*inputs, strict=True):
        for place, value in zip(places, sample, strict=True):
            made.set_tensor(place, value[None])
        made.invoke()
        for values, place in zip(found, outputs, strict=True):
            values.append(made.get_tensor(place)[0].copy())
    return [np.stack(values) for values in found]
