"""Networks in integer form as int8 ``.tflite`` files, written directly (extra ``tflite``)."""

from fewbits.deploy.tflite._export import TfliteExport, to_tflite

__all__ = ["TfliteExport", "to_tflite"]
