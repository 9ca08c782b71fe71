"""A recipe, from files to files."""

from fewbits.job._job import Job, explain, prepare, run, skeleton
from fewbits.job._sweeps import Swept, sweep

__all__ = ["Job", "Swept", "explain", "prepare", "run", "skeleton", "sweep"]
