"""A network trained by a learning rule, in one call."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewbits import recipe as recipes
from fewbits.attach.plain import plain_copy
from fewbits.errors import UnsupportedError
from fewbits.pipeline._bar import Shown, telling
from fewbits.pipeline._run import check_kinds
from fewbits.task import Task, fed, task_of
from fewbits.task.feed import Given
from fewbits.task.modes import forget_modes
from fewbits.task.stream import for_steps
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.learning import learning, settled
from fewbits.train.pretrain import pretrain
from fewbits.train.rules import Rule
from fewbits.train.told import Told
from fewbits.train.whitening import Whitened

Whiten = int | Literal["whole"] | None


def train(
    model: nn.Module,
    train: Any,
    *,
    rule: Rule | Mapping[str, Any] | str = "backprop",
    readout: Mapping[str, Any] | str | None = None,
    whiten: Whiten = None,
    task: Task | Mapping[str, Any] | str | None = None,
    inputs: Given = None,
    targets: Given = None,
    steps: int | None = None,
    seed: int = 0,
    state_file: str | Path | None = None,
    progress: Shown = "bar",
    accelerator: Accelerator | None = None,
    **settings: Any,
) -> nn.Module:
    """Train a network from where it is, by backpropagation or another learning rule. The model given is not changed.

    ::

        net = fb.train(Net(), loader, rule="soft-hebb", epochs=1)
        small = fb.compress(net, loader, evaluate=validation, target="200 KB")

    Args:
        model: any network that the rule can train; what it cannot, it refuses by the layer's name.
        train: batches with a length, as of :func:`fewbits.compress`.
        rule: the name of a rule (``fewbits.train.RULES``), a dict with ``name`` and ``options``, or a
            :class:`fewbits.train.Rule` of one's own.
        readout: of the last linear layer afterwards: ``"ridge"``, ``"sgd"``, ``"none"``, or a dict of
            :class:`fewbits.recipe.Readout`; default: ``ridge`` for rules whose hidden layers learn without targets.
        whiten: a fixed first layer that whitens the inputs: the side of its patch, odd, or ``"whole"``. The network
            then comes back as a :class:`fewbits.train.Whitened` one.
        task, inputs, targets, accelerator: as of :func:`fewbits.compress`.
        steps: training steps, in place of epochs; needed for loaders without a length.
        seed: of what the training draws, such as dropout.
        state_file: where the state is kept, twenty times in a training. If the file exists, the training goes on from
            there. Removed at the end.
        progress: called twenty times as ``progress(steps done, steps in total, a line)``; default: a bar, on a
            terminal.
        settings: keys of :class:`fewbits.recipe.Training`: ``epochs``, ``optimizer``, ``lr`` and others. Rules with
            steps of their own set what is left open.

    Returns:
        The trained network, plain, in evaluation mode, on the device of the one given.

    Raises:
        RecipeError: no such rule, option or setting. UnsupportedError: a layer that the rule cannot train; the message
            names it. DataError: no batches, or one that does not fit; the message names it. NonFiniteError: the loss
            is not finite.
    """
    check_kinds(state_file, progress, accelerator)
    own = rule if isinstance(rule, Rule) else None
    named = {} if own is not None else {"rule": rule}
    chosen = recipes.make({"pretrain": settings | named | {"readout": readout}, **_task_section(task)})
    assert chosen.pretrain is not None
    wanted = settled(chosen.pretrain)
    if own is None:
        learning(wanted)  # refused before anything is copied
    if steps is not None:
        train, epochs = for_steps(train, steps)
        wanted = wanted.model_copy(update={"epochs": epochs})
    aim = task if isinstance(task, Task) else task_of(chosen.task.name, chosen.task.options)
    accelerator = accelerator or Accelerator()
    net: nn.Module = plain_copy(model)
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    data = fed(net, train, inputs=inputs, targets=targets)
    if whiten is not None:
        net = whitened(net, data, whiten)
        data = fed(net, train, inputs=inputs, targets=targets)
    learns = "" if own is None else f" rule {_named(own)}"
    told_of = chosen.task.model_dump_json() if not isinstance(task, Task) else type(task).__name__
    words = f"{type(model).__name__} {wanted.model_dump_json()} seed {seed} task {told_of} whiten {whiten}{learns}"
    store = Store(Path(state_file) if state_file is not None else None, words, accelerator)
    with telling(progress, accelerator) as told, _callers_random_numbers():
        kept = KeptTraining(store, "train", callback=Told(told, times=20) if told is not None else None)
        pretrain(net, data, wanted, seed=seed, kept=kept, task=aim, rule=own, accelerator=accelerator)
    store.forget()
    forget_modes(net)
    return net.to(home).eval()


def _named(rule: Rule) -> str:
    """By what a rule of one's own is known again: where its code stands."""
    line = getattr(getattr(rule.update, "__code__", None), "co_firstlineno", "")
    return f"{rule.update.__module__}.{getattr(rule.update, '__qualname__', type(rule.update).__name__)}:{line}"


@contextmanager
def _callers_random_numbers() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been drawn inside."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def whitened(net: nn.Module, data: Any, whiten: Whiten) -> Whitened:
    """A network behind a layer that is to whiten its inputs.

    Raises:
        UnsupportedError: it takes something else than one tensor of numbers. RecipeError: an impossible patch.
    """
    first = next(iter(data))[0]
    if not isinstance(first, Tensor) or not first.is_floating_point():
        raise UnsupportedError(f"whiten is for one tensor of numbers, and {type(net).__name__} takes something else")
    return Whitened(net, tuple(first.shape[1:]), None if whiten == "whole" else whiten)


def _task_section(task: Any) -> dict[str, Any]:
    return {} if task is None or isinstance(task, Task) else {"task": task}
