"""A recipe, from files to files."""

from fewbits.job._job import Job, explain, prepare, run, skeleton
from fewbits.job._own_data import OwnData
from fewbits.job._sweeps import Swept, sweep
from fewbits.job._training import Trained, train

__all__ = ["Job", "OwnData", "Swept", "Trained", "explain", "prepare", "run", "skeleton", "sweep", "train"]
