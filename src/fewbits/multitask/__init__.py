"""Many tasks, one network: segments that tasks share, paths through them, and training in parallel (PaRT)."""

from fewbits.multitask._affinity import affinity_paths, gradient_agreement
from fewbits.multitask._choosing import PathChoice, learn_paths
from fewbits.multitask._cka import CKA, cka
from fewbits.multitask._ewc import EWC
from fewbits.multitask._family import ExtractedMember, MemberInFile, extract_member, family, is_family, members_in
from fewbits.multitask._feeding import ORDERS, TaskBatches, all_batches, with_task
from fewbits.multitask._file import Extracted, TaskInFile, extract, load_task, paths_in, read_task, tasks_in
from fewbits.multitask._heads import SharedHead
from fewbits.multitask._keeping import Keeping, Replay
from fewbits.multitask._labels import ClassMap
from fewbits.multitask._network import MERGES, SegmentNet
from fewbits.multitask._norms import NormPerTask
from fewbits.multitask._optimizers import TaskOptimizers
from fewbits.multitask._over_time import OverTime, ScoredTraining
from fewbits.multitask._packnet import PackNet
from fewbits.multitask._paths import (
    RELEASED,
    RELEASED_SEEDS,
    Paths,
    Released,
    branched_paths,
    random_paths,
    released_paths,
)
from fewbits.multitask._searching import SEARCHES, PathSearch, search_paths
from fewbits.multitask._sequence import KEEPING, keeping_of, train_in_sequence
from fewbits.multitask._sharing import (
    Permuted,
    Sharing,
    attribution,
    relevance_by_task,
    sharing,
    sharing_predicts,
    similarity,
)
from fewbits.multitask._surgery import pcgrad, without_conflicts
from fewbits.multitask._tasks import Tasks
from fewbits.multitask._training import OPTIMIZERS, train_tasks
from fewbits.multitask._transfer import Transfer, leave_one_out
from fewbits.multitask._view import paths_view, view

__all__ = [
    "CKA",
    "EWC",
    "KEEPING",
    "MERGES",
    "OPTIMIZERS",
    "ORDERS",
    "RELEASED",
    "RELEASED_SEEDS",
    "SEARCHES",
    "ClassMap",
    "Extracted",
    "ExtractedMember",
    "Keeping",
    "MemberInFile",
    "NormPerTask",
    "OverTime",
    "PackNet",
    "PathChoice",
    "PathSearch",
    "Paths",
    "Permuted",
    "Released",
    "Replay",
    "ScoredTraining",
    "SegmentNet",
    "SharedHead",
    "Sharing",
    "TaskBatches",
    "TaskInFile",
    "TaskOptimizers",
    "Tasks",
    "Transfer",
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
    "keeping_of",
    "learn_paths",
    "leave_one_out",
    "load_task",
    "members_in",
    "paths_in",
    "paths_view",
    "pcgrad",
    "random_paths",
    "read_task",
    "released_paths",
    "relevance_by_task",
    "search_paths",
    "sharing",
    "sharing_predicts",
    "similarity",
    "tasks_in",
    "train_in_sequence",
    "train_tasks",
    "view",
    "with_task",
    "without_conflicts",
]
