"""What a network's outputs are for: loss, metric, and what a batch is."""

from fewbits.task._fed import Fed, fed, measured_over
from fewbits.task._task import Task, main_output
from fewbits.task.batches import Batch, Inputs, first_of, handing, laid_out, run, run_laid_out, samples_in
from fewbits.task.classification import Classification, accuracy, check_targets, start_relevance
from fewbits.task.feed import Feed
from fewbits.task.metric import METRICS, Metric, metric_of
from fewbits.task.named import TASKS, task_of

__all__ = [
    "METRICS",
    "TASKS",
    "Batch",
    "Classification",
    "Fed",
    "Feed",
    "Inputs",
    "Metric",
    "Task",
    "accuracy",
    "check_targets",
    "fed",
    "first_of",
    "handing",
    "laid_out",
    "main_output",
    "measured_over",
    "metric_of",
    "run",
    "run_laid_out",
    "samples_in",
    "start_relevance",
    "task_of",
]
