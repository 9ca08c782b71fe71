"""Many tasks, one network: segments that tasks share, paths through them, and training in parallel (PaRT)."""

from fewbits.multitask._affinity import affinity_paths, gradient_agreement
from fewbits.multitask._choosing import PathChoice, learn_paths
from fewbits.multitask._cka import CKA, cka
from fewbits.multitask._family import ExtractedMember, MemberInFile, extract_member, family, is_family, members_in
from fewbits.multitask._feeding import ORDERS, TaskBatches, all_batches, with_task
from fewbits.multitask._file import Extracted, TaskInFile, extract, load_task, read_task, tasks_in
from fewbits.multitask._heads import SharedHead
from fewbits.multitask._labels import ClassMap
from fewbits.multitask._network import MERGES, SegmentNet
from fewbits.multitask._norms import NormPerTask
from fewbits.multitask._optimizers import TaskOptimizers
from fewbits.multitask._paths import (
    RELEASED,
    RELEASED_SEEDS,
    Paths,
    Released,
    branched_paths,
    random_paths,
    released_paths,
)
from fewbits.multitask._sharing import (
    Permuted,
    Sharing,
    attribution,
    relevance_by_task,
    sharing,
    sharing_predicts,
    similarity,
)
from fewbits.multitask._tasks import Tasks
from fewbits.multitask._training import OPTIMIZERS, train_tasks

__all__ = [
    "CKA",
    "MERGES",
    "OPTIMIZERS",
    "ORDERS",
    "RELEASED",
    "RELEASED_SEEDS",
    "ClassMap",
    "Extracted",
    "ExtractedMember",
    "MemberInFile",
    "NormPerTask",
    "PathChoice",
    "Paths",
    "Permuted",
    "Released",
    "SegmentNet",
    "SharedHead",
    "Sharing",
    "TaskBatches",
    "TaskInFile",
    "TaskOptimizers",
    "Tasks",
    "affinity_paths",
    "all_batches",
    "attribution",
    "branched_paths",
    "cka",
    "extract",
    "extract_member",
    "family",
    "gradient_agreement",
    "is_family",
    "learn_paths",
    "load_task",
    "members_in",
    "random_paths",
    "read_task",
    "released_paths",
    "relevance_by_task",
    "sharing",
    "sharing_predicts",
    "similarity",
    "tasks_in",
    "train_tasks",
    "with_task",
]
