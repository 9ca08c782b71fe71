"""A training whose state is kept on disk, so that it can go on after an interruption."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.train.checkpoint import Store, random_state, set_random_state
from fewbits.train.loop import Callback


class KeptTraining(Callback):
    """Keeps the state of a training now and then, and takes it up again.

    Args:
        store: where. key: under which it is kept there.
        times: how often in a whole training.
        callback: accompanies the training as well.

    Attributes:
        saved: what an interrupted training left, until it is taken up.
        notes: plain data and tensors that are kept along, and come back in ``saved["notes"]``.
    """

    def __init__(self, store: Store, key: str, *, times: int = 20, callback: Callback | None = None) -> None:
        self.store, self.key, self.times = store, key, times
        self.callback = callback or Callback()
        self.saved = store.get(key)
        self.notes: dict[str, Any] = {}
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Before a training: the steps of it that were done, with model and optimizer as they were then."""
        self.model, self.optimizer = model, optimizer
        saved, self.saved = self.saved, None
        self.rule_state = None if saved is None else saved["rule"]
        if saved is None:
            return 0
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        set_random_state(saved["random"])
        return int(saved["steps"])

    def watch(self) -> AbstractContextManager[Any]:
        return self.callback.watch()

    def before_update(self, outputs: Tensor, batch: Any) -> None:
        self.callback.before_update(outputs, batch)

    def after_update(self, done: int, total: int, loss: float) -> None:
        due = done * self.times // total > (done - 1) * self.times // total
        if due and done < total and self.store.path is not None:
            value = {
                "steps": done,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rule": self.rule_state,
                "random": random_state(),
                "notes": self.notes,
            }
            self.store.put(self.key, value)
        self.callback.after_update(done, total, loss)  # last: it may be where the user interrupts
