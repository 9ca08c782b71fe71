"""Where a compressed network runs or travels on: other formats, from a plan alone."""

from fewbits.deploy._nnc import Written, from_nnc, to_nnc
from fewbits.deploy._tensors import to_safetensors

__all__ = ["Written", "from_nnc", "to_nnc", "to_safetensors"]
