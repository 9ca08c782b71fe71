"""What a network's outputs are for: loss, metric, and what a batch is."""

from fewbits.task._task import Task
from fewbits.task.batches import laid_out
from fewbits.task.classification import Classification, accuracy, check_targets, start_relevance

__all__ = ["Classification", "Task", "accuracy", "check_targets", "laid_out", "start_relevance"]
