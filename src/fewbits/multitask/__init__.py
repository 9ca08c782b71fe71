"""Many tasks, one network: segments that tasks share, paths through them, and training in parallel (PaRT)."""

from fewbits.multitask._heads import SharedHead
from fewbits.multitask._norms import NormPerTask
from fewbits.multitask.feeding import ORDERS, TaskBatches, all_batches, with_task
from fewbits.multitask.labels import ClassMap
from fewbits.multitask.network import MERGES, SegmentNet
from fewbits.multitask.optimizers import TaskOptimizers
from fewbits.multitask.paths import (
    RELEASED,
    RELEASED_SEEDS,
    Paths,
    Released,
    branched_paths,
    random_paths,
    released_paths,
)
from fewbits.multitask.tasks import Tasks
from fewbits.multitask.training import OPTIMIZERS, train_tasks

__all__ = [
    "MERGES",
    "OPTIMIZERS",
    "ORDERS",
    "RELEASED",
    "RELEASED_SEEDS",
    "ClassMap",
    "NormPerTask",
    "Paths",
    "Released",
    "SegmentNet",
    "SharedHead",
    "TaskBatches",
    "TaskOptimizers",
    "Tasks",
    "all_batches",
    "branched_paths",
    "random_paths",
    "released_paths",
    "train_tasks",
    "with_task",
]
