"""The one training loop. Every way in which fewbits trains goes through :func:`fit`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewbits.errors import DataError, FewbitsError
from fewbits.recipe.training import Training
from fewbits.task import Classification, Fed, Task, fed
from fewbits.task.modes import train_mode
from fewbits.task.stream import Stream
from fewbits.train._sparing import Sparing, plain
from fewbits.train.objectives import Objective
from fewbits.train.optimizers import SGD, Adam
from fewbits.train.rules import Rule, backprop, blocks_of
from fewbits.train.step import Step, out_of_place
from fewbits.train.unmerge import unmerge_statistics

STATISTICS = 16
"""Batches that normalisations of a loaded network get their statistics from."""


class Callback:
    """What accompanies training: looks at each step, and acts between backward and update, and after it.

    This base does nothing; it is what plain training uses.

    Attributes:
        rule_state: what the learning rule remembers. :func:`fit` begins with it if it is not ``None``, and the next
            one is here before :meth:`after_update`, so that it can be kept.
    """

    rule_state: Any = None

    def watch(self) -> AbstractContextManager[Any]:
        """Wraps each forward pass."""
        return nullcontext()

    def watches(self) -> bool:
        """Whether this step needs a forward pass of the whole network inside :meth:`watch`."""
        return False

    def alone(self) -> Iterable[nn.Parameter]:
        """Parameters of which this step needs nothing but their own gradient: they may be updated before the others."""
        return ()

    def unused(self) -> Iterable[nn.Parameter]:
        """Parameters that stay as they are, whatever their gradients."""
        return ()

    def keeps_graph(self) -> bool:
        """Whether :meth:`before_update` needs the autograd graph of the outputs, which backward else frees."""
        return False

    def before_update(self, outputs: Tensor, batch: Any) -> None:
        """Gradients are there (and synchronised), but for those that :meth:`alone` and :meth:`unused` may have spared;
        the optimizer has not stepped yet."""

    def after_update(self, done: int, total: int, loss: float) -> None:
        """The optimizer has stepped; ``done`` of ``total`` steps are over."""


def batches_of(loader: Iterable[Any]) -> int:
    """Number of batches of one epoch.

    Raises:
        DataError: the loader is empty or has no length.
    """
    try:
        count = len(loader)  # type: ignore[arg-type]
    except FewbitsError:
        raise
    except Exception as error:
        if not isinstance(error, TypeError):
            raise DataError(f"the length of the training data fails: {type(error).__name__}: {error}") from error
        name = type(loader.loader if isinstance(loader, Fed) else loader).__name__
        raise DataError(
            f"{name} has no length; give a list of batches or a DataLoader, or say steps=, the batches that are taken "
            "of a stream"
        ) from None
    if count == 0:
        raise DataError("the training data is empty: the loader yields no batch")
    return count


def total_steps(loader: Iterable[Any], training: Training) -> int:
    """Optimizer steps of a run: epochs times batches, at least one. Without epochs no batch is asked for."""
    return 1 if not training.epochs else max(1, round(training.epochs * batches_of(loader)))


def optimizer_of(groups: list[dict[str, Any]], training: Training) -> torch.optim.Optimizer:
    """The optimizer of a run over parameter groups (each may have its own ``lr`` and ``weight_decay``)."""
    groups = [g for g in groups if g["params"]]
    if training.optimizer == "sgd":
        return SGD(groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0)
    # Of all tensors at once a step needs their memory once more; only a GPU is quicker so.
    together = any(parameter.device.type != "cpu" for group in groups for parameter in group["params"])
    return Adam(groups, lr=training.lr, foreach=together, decoupled_weight_decay=training.optimizer == "adamw")


def factor(training: Training, done: int, total: int) -> float:
    """Learning rate relative to its peak after ``done`` of ``total`` steps."""
    if training.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(done, total) / total))


def endless(loader: Any, skip: int = 0) -> Iterator[Any]:
    """Batches for ever, epoch after epoch; ``skip`` steps in, as a run that is resumed there would see them.

    Raises:
        DataError: an epoch has other batches than the loader's length says.
    """
    length = batches_of(loader)
    epoch, offset = divmod(skip, length)
    while True:
        begin_epoch(loader.loader if isinstance(loader, Fed) else loader, epoch)
        state = torch.get_rng_state()
        batches = iter(loader)
        seen = sum(1 for _ in islice(batches, offset))
        if offset:  # what the beginning of this epoch draws was drawn before the interruption
            torch.set_rng_state(state)
        for batch in batches:
            seen += 1
            if seen > length:
                break
            yield batch
        if seen != length:
            more = f"{seen} or more" if seen > length else str(seen)
            raise DataError(
                f"the length of the training data is {length} batches, but it yields {more} in epoch {epoch + 1}; an "
                "iterator that is read only once is no DataLoader: give a list or a DataLoader"
            )
        epoch, offset = epoch + 1, 0


def first_inputs(loader: Any, count: int) -> Iterator[Any]:
    """Inputs of the first batches, of the first epoch at most."""
    for batch in islice(endless(loader), min(count, batches_of(loader))):
        yield batch[0]


def begin_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader which epoch it is in, so that an interrupted run sees the order that an uninterrupted one sees.

    A generator of the loader's own is seeded anew, with its first seed plus the epoch.
    """
    # accelerate's loader passes the epoch on to its sampler; a plain one has to be told through the sampler
    for place in (loader, getattr(loader, "sampler", None)):
        set_epoch = getattr(place, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
            break
    samplers = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    generators = {id(g): g for g in (getattr(place, "generator", None) for place in (loader, *samplers))}
    for generator in generators.values():
        if isinstance(generator, torch.Generator):
            first = _first_seeds.setdefault(generator, generator.initial_seed())
            generator.manual_seed(first + epoch)


_first_seeds: WeakKeyDictionary[torch.Generator, int] = WeakKeyDictionary()
"""Seeds of users' generators, before they were seeded anew for an epoch."""


def own_share(batches: Any, accelerator: Accelerator) -> Any:
    """This process's batches: of a list every n-th; of loaders what accelerate deals out.

    Raises:
        DataError: fewer batches than processes.
    """
    processes = accelerator.num_processes
    if isinstance(batches, Stream):
        return batches.over(own_share(batches.loader, accelerator))
    if not isinstance(batches, Sequence):
        return accelerator.prepare(batches)
    if processes == 1:
        return batches
    each = len(batches) // processes  # all must take equally many steps, or they wait for each other for ever
    if each == 0:
        raise DataError(f"{len(batches)} batches cannot be shared by {processes} processes")
    return batches[accelerator.process_index :: processes][:each]


@torch.no_grad()
def sync_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's running statistics, which each has from its own batches since the step."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(broadcast(buffer.contiguous()))


def leave_unsent(model: nn.Module) -> None:
    """Let ``DistributedDataParallel`` leave the levels and masks of a held plan alone.

    Every process derives the same ones, and no backend sends 16-bit integers.
    """
    unsent = [name for name, buffer in model.named_buffers() if buffer.dtype in (torch.int16, torch.bool)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, unsent)


def fit(
    model: nn.Module,
    loader: Any,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    training: Training,
    *,
    callback: Callback | None = None,
    accelerator: Accelerator | None = None,
    start: int = 0,
    task: Task | None = None,
    rule: Rule = backprop,
) -> None:
    """Train a model in place. One that was loaded from a file first gets its statistics again.

    Args:
        model: the network. It is wrapped for the accelerator's processes; the caller's object is trained.
        loader: batches of the task, with a length, of any kind that :class:`~fewbits.task.Feed` reads.
        objective: loss of ``(outputs, batch)``.
        optimizer: over the model's parameters; learning rates follow the schedule from their present values.
        training: epochs, schedule and clipping.
        callback: what accompanies each step.
        accelerator: where to run; default: one made from the environment (``accelerate launch`` sets it).
        start: steps that were done before, when resuming.
        task: what the outputs are for; default: classification. rule: how the network learns.

    Raises:
        DataError: no batches, or targets that do not fit the network. NonFiniteError: the loss is not finite.
    """
    accelerator = accelerator or Accelerator()
    callback, task = callback or Callback(), task or Classification()
    data = fed(model, loader)
    batches_of(data)
    leave_unsent(model)
    if start == 0:  # before processes are given the main one's network
        with torch.random.fork_rng():
            unmerge_statistics(model, first_inputs(data, STATISTICS))
    # accelerate would load the parts of torch for distributed tensors, and hold the network as long as itself
    wrapped, prepared = (model, optimizer) if plain(accelerator) else accelerator.prepare(model, optimizer)
    data = data.over(own_share(data.loader, accelerator))
    total = total_steps(data, training)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    train_mode(model)
    stream = endless(data, start)
    blocks = cache(partial(blocks_of, model))
    if callback.rule_state is None:
        callback.rule_state = rule.init(model)
    callback.rule_state = send_to_device(callback.rule_state, accelerator.device)
    sparing = Sparing(model, optimizer, training, accelerator, rule)
    sparing.over()
    for done in range(start, total):
        batch = send_to_device(next(stream), accelerator.device)
        for group in optimizer.param_groups:  # a callback may change the peak
            group["lr"] = group["initial_lr"] * factor(training, done, total)

        step = Step(
            model, wrapped, batch, data, objective, training, task, accelerator, callback.watch, callback.keeps_graph(),
            blocks, done, first=done == start,
        )  # fmt: skip
        with out_of_place(model), sparing.step(callback.alone(), callback.unused()):
            outputs, loss, callback.rule_state = rule.update(model, step.as_batch(), callback.rule_state)
            step.synchronise()
            if callback.watches() and not step.watched(outputs):
                outputs, _ = step.forward()
        value = float(loss.detach())
        callback.before_update(outputs, batch)
        if training.clip is not None:
            accelerator.clip_grad_norm_(model.parameters(), training.clip)
        prepared.step()
        prepared.zero_grad(set_to_none=True)
        del outputs, loss, step
        callback.after_update(done + 1, total, value)
        sparing.over()
    sync_buffers(model, accelerator)
    accelerator.wait_for_everyone()


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Plain training: weights (two and more dimensions) with weight decay, everything else without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
