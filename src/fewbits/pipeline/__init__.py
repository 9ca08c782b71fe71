"""The main job: a trained network in, a small file that decodes out."""

from fewbits.pipeline.compressed import Compressed, load
from fewbits.pipeline.run import Evaluate, Progress, compress

__all__ = ["Compressed", "Evaluate", "Progress", "compress", "load"]
