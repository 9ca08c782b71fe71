"""The main job: a trained network in, a small file that decodes out."""

from fewbits.pipeline.candidates import Evaluate
from fewbits.pipeline.check import check
from fewbits.pipeline.compressed import Compressed, load
from fewbits.pipeline.methods import METHODS, Method
from fewbits.pipeline.pilot import PilotChoice
from fewbits.pipeline.pruners import PRUNERS, Pruner
from fewbits.pipeline.run import compress, stages_of
from fewbits.pipeline.stages.work import Context, Progress, Stage, Work

__all__ = [
    "METHODS",
    "PRUNERS",
    "Compressed",
    "Context",
    "Evaluate",
    "Method",
    "PilotChoice",
    "Progress",
    "Pruner",
    "Stage",
    "Work",
    "check",
    "compress",
    "load",
    "stages_of",
]
