"""A training whose state is kept on disk, so that it can go on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewbits.train import checkpoint
from fewbits.train.loop import Callback


class KeptTraining(Callback):
    """Writes the state of a training now and then, and takes it up again.

    Args:
        path: where; ``None`` keeps nothing.
        recipe: the words that the state is recognised by.
        times: how often in a whole training.
        companion: accompanies the training as well.
        agree: makes what each process has from its own batches the same in all; called at those times, kept or not.

    Attributes:
        saved: what an interrupted training left, until it is taken up.
        notes: plain data and tensors that are kept along, and come back in ``saved["notes"]``.

    Raises:
        DataError: the file is damaged, or belongs to another recipe or number of processes.
    """

    def __init__(
        self,
        path: Path | None,
        recipe: str,
        accelerator: Accelerator,
        *,
        times: int = 20,
        callback: Callback | None = None,
        agree: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.recipe, self.accelerator, self.times = path, recipe, accelerator, times
        self.agree = agree
        self.callback = callback or Callback()
        self.saved = checkpoint.load_shared(path, recipe, accelerator)
        self.notes: dict[str, Any] = {}
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Before a training: the steps of it that were done, with model and optimizer as they were then."""
        self.model, self.optimizer = model, optimizer
        saved, self.saved = self.saved, None
        if saved is None:
            return 0
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        checkpoint.set_random_state(saved["random"])
        return int(saved["steps"])

    def watch(self) -> AbstractContextManager[Any]:
        return self.callback.watch()

    def before_update(self, logits: Tensor, targets: Tensor) -> None:
        self.callback.before_update(logits, targets)

    def after_update(self, done: int, total: int, loss: float) -> None:
        due = done * self.times // total > (done - 1) * self.times // total
        if due:
            self.agree()
        if due and done < total and self.path is not None and self.accelerator.is_main_process:
            checkpoint.save(
                self.path,
                {
                    "recipe": self.recipe,
                    "processes": self.accelerator.num_processes,
                    "steps": done,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": checkpoint.random_state(),
                    "notes": self.notes,
                },
            )
        self.callback.after_update(done, total, loss)  # last: it may be where the user interrupts

    def forget(self) -> None:
        """Remove the file: what was trained is safe elsewhere."""
        if self.path is not None and self.accelerator.is_main_process:
            self.path.unlink(missing_ok=True)
