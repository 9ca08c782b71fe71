"""Training and evaluation mode, module by module: some may stay in one, as normalisation that is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_STAYS = "_fewbits_stays_in_evaluation"


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; every module has its own mode again behind it."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def keep_modes(model: nn.Module) -> None:
    """Where a network trains and modules of it do not, let these never do, in no copy either: see :func:`train_mode`.

    A network in evaluation mode as a whole says nothing of its modules.
    """
    if model.training:
        forget_modes(model)
        for module in model.modules():
            if not module.training:
                setattr(module, _STAYS, True)


def forget_modes(model: nn.Module) -> None:
    """Take away what :func:`keep_modes` found: whoever gets the network may let everything train."""
    for module in model.modules():
        vars(module).pop(_STAYS, None)


def stays(module: nn.Module) -> bool:
    """Whether :func:`keep_modes` found a module."""
    return getattr(module, _STAYS, False)


def train_mode(model: nn.Module) -> None:
    """Training mode, but for the modules that :func:`keep_modes` found."""
    model.train()
    for module in model.modules():
        if stays(module):
            module.eval()
