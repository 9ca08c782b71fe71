"""Networks in integer form as int8 ``.tflite`` files, written directly (extra ``tflite``)."""

from fewbits.deploy.tflite._export import TfliteExport, to_tflite
from fewbits.deploy.tflite._lut import Decoding

__all__ = ["Decoding", "TfliteExport", "to_tflite"]
