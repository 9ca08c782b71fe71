"""For ``transformers.Trainer``: a callback that compresses what it trains (``pip install 'fewbits[transformers]'``)."""

from __future__ import annotations

from typing import Any

from fewbits.errors import MissingExtraError
from fewbits.integrations._job import CallbackJob
from fewbits.pipeline import Compressed

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError("transformers", "transformers", "the Trainer callback") from error


class CompressCallback(TrainerCallback):
    """Compresses the trainer's model while it trains.

    ::

        callback = CompressCallback(target="2 MB", task="classification")
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
        callback.compressed.save("net.few")

    The model is the compressed network afterwards. A training that is gone on with from a checkpoint begins anew.

    Args:
        evaluate: how good the network is, as of :func:`fewbits.compress`, at the end.
        options: of :func:`fewbits.compressing`: recipe, target, max_drop, task and so on.

    Attributes:
        compressed: the result, once training is over.
    """

    def __init__(self, *, evaluate: Any = None, **options: Any) -> None:
        self._work = CallbackJob(evaluate, options)

    @property
    def compressed(self) -> Compressed | None:
        return self._work.compressed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.begin(kwargs["model"], state.max_steps)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.before_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.after_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.end()
