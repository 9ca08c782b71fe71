"""The main job: a trained network in, a small file that decodes out."""

from fewbits.pipeline._before import check_network
from fewbits.pipeline._candidates import Evaluate
from fewbits.pipeline._compressed import Compressed, load
from fewbits.pipeline._own_loop import Compressing, compressing
from fewbits.pipeline._pilot import PilotChoice
from fewbits.pipeline._run import compress, stages_of
from fewbits.pipeline._sources import Opened, opened
from fewbits.pipeline._train import train
from fewbits.pipeline._verbs import Source, Verified, cost, explain, export, inspect, layers_of, operations_of, verify
from fewbits.pipeline.check import check
from fewbits.pipeline.methods import METHODS, Method
from fewbits.pipeline.pruners import PRUNERS, Pruner
from fewbits.pipeline.stages._work import Context, Progress, Stage, Work

__all__ = [
    "METHODS",
    "PRUNERS",
    "Compressed",
    "Compressing",
    "Context",
    "Evaluate",
    "Method",
    "Opened",
    "PilotChoice",
    "Progress",
    "Pruner",
    "Source",
    "Stage",
    "Verified",
    "Work",
    "check",
    "check_network",
    "compress",
    "compressing",
    "cost",
    "explain",
    "export",
    "inspect",
    "layers_of",
    "load",
    "opened",
    "operations_of",
    "stages_of",
    "train",
    "verify",
]
