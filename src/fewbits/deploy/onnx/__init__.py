"""Networks as ONNX files for ONNX Runtime and others (extra ``onnx``)."""

from fewbits.deploy.onnx._compare import Agreement
from fewbits.deploy.onnx._export import Exported, to_onnx
from fewbits.deploy.onnx._network import OnnxNetwork, from_onnx

__all__ = ["Agreement", "Exported", "OnnxNetwork", "from_onnx", "to_onnx"]
