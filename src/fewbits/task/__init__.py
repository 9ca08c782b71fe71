"""What a network's outputs are for: loss, metric, and what a batch is."""

from fewbits.task.batches import laid_out
from fewbits.task.classification import check_targets

__all__ = ["check_targets", "laid_out"]
