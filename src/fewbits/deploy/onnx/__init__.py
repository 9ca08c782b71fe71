"""Networks as ONNX files for ONNX Runtime and others (extra ``onnx``)."""

from fewbits.deploy.onnx._compare import Agreement
from fewbits.deploy.onnx._export import Exported, to_onnx

__all__ = ["Agreement", "Exported", "to_onnx"]
