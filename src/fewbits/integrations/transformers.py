"""For ``transformers.Trainer``: a callback that compresses what it trains (``pip install 'fewbits[transformers]'``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewbits.errors import DataError, MissingExtraError, RecipeError
from fewbits.integrations._job import CallbackJob
from fewbits.pipeline import Compressed
from fewbits.train import checkpoint

try:
    from transformers import TrainerCallback
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ImportError as error:
    raise MissingExtraError("transformers", "transformers", "the Trainer callback") from error

STATE = "fewbits.state"


class CompressCallback(TrainerCallback):
    """Compresses the trainer's model while it trains.

    ::

        callback = CompressCallback(target="2 MB", task="classification")
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
        callback.compressed.save("net.few")

    The model is the compressed network afterwards. A checkpoint holds the float weights by their own names, and the
    state of the compression in ``fewbits.state``: ``train(resume_from_checkpoint=True)`` goes on with both. One without
    that file begins it with the steps that are left.

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
        if args.load_best_model_at_end:
            raise RecipeError(
                "load_best_model_at_end loads a checkpoint's float weights before the compressed network is made, and "
                "would mix two networks: leave it out; max_drop keeps the accuracy instead"
            )
        saved = None
        if state.global_step:
            given = args.resume_from_checkpoint
            folder = Path(given) if isinstance(given, str) and Path(given).is_dir() else _folder(args, state)
            if not folder.is_dir():
                raise DataError(
                    f"training goes on from step {state.global_step}, but {folder} is not there: name the checkpoint's "
                    "folder as TrainingArguments(resume_from_checkpoint=...), too"
                )
            saved = checkpoint.read(folder / STATE) if (folder / STATE).exists() else None
        self._work.begin(kwargs["model"], state.max_steps - state.global_step, saved)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = self._work.state()
        if found and state.is_world_process_zero:
            checkpoint.save(_folder(args, state) / STATE, found)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.before_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.after_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work.end()


def _folder(args: Any, state: Any) -> Path:
    """Where the trainer writes its checkpoint of this step."""
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
