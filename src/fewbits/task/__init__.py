"""What a network's outputs are for: loss, metric, and what a batch is."""

from fewbits.task.batches import laid_out
from fewbits.task.classification import Classification, accuracy, check_targets, start_relevance
from fewbits.task.task import Task

__all__ = ["Classification", "Task", "accuracy", "check_targets", "laid_out", "start_relevance"]
