"""A recipe, from files to files."""

from fewbits.job._job import Job, explain, prepare, run, skeleton
from fewbits.job._own_data import OwnData
from fewbits.job._sweeps import Swept, sweep

__all__ = ["Job", "OwnData", "Swept", "explain", "prepare", "run", "skeleton", "sweep"]
