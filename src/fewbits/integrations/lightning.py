"""For Lightning: a callback that compresses what a Trainer fits (``pip install 'fewbits[lightning]'``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fewbits.errors import MissingExtraError
from fewbits.integrations._job import CallbackJob
from fewbits.pipeline import Compressed

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingExtraError("lightning", "lightning", "the Lightning callback") from error


class CompressCallback(Callback):
    """Compresses a module, or a network in it, while it is fitted.

    ::

        callback = CompressCallback(network=lambda module: module.net, target="200 KB")
        Trainer(max_epochs=5, callbacks=[callback]).fit(module, loader)
        callback.compressed.save("net.few")

    The network is the compressed one afterwards. A checkpoint holds the float weights by their own names, and the state
    of the compression: ``fit(..., ckpt_path=...)`` goes on with both. One without that state begins it with the steps
    that are left.

    Args:
        network: which part of the module is compressed; default: the module itself, by its own ``forward``.
        targets: of a batch, for relevance; default: the last part of a tuple or list.
        evaluate: how good the network is, as of :func:`fewbits.compress`, at the end.
        options: of :func:`fewbits.compressing`: recipe, target, max_drop, task and so on.

    Attributes:
        compressed: the result, once the fit is over.
    """

    def __init__(
        self,
        *,
        network: Callable[[Any], nn.Module] | None = None,
        targets: Callable[[Any], Any] | None = None,
        evaluate: Any = None,
        **options: Any,
    ) -> None:
        self._work, self._network, self._targets = CallbackJob(evaluate, options), network, targets
        self._batch: Any = None
        self._steps = 0
        self._saved: dict[str, Any] | None = None

    @property
    def compressed(self) -> Compressed | None:
        return self._work.compressed

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        model = pl_module if self._network is None else self._network(pl_module)
        self._steps = trainer.global_step
        self._work.begin(model, int(trainer.estimated_stepping_batches) - trainer.global_step, self._saved)
        self._saved = None

    def state_dict(self) -> dict[str, Any]:
        return self._work.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        batch = self._batch
        if self._targets is not None:
            self._work.before_step(self._targets(batch))
        else:
            self._work.before_step(batch[-1] if isinstance(batch, tuple | list) else None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > self._steps:  # else gradients are accumulated
            self._steps = trainer.global_step
            self._work.after_step(outputs["loss"] if isinstance(outputs, dict) else float("nan"))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._work.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._work.close()
