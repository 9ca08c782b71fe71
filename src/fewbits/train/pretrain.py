"""Training of a float network, the one that is compressed afterwards."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fewbits.attach import evaluating
from fewbits.recipe.sections import Readout
from fewbits.recipe.training import Pretraining, Training
from fewbits.task import Classification, Fed, Task, fed
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.learning import learning, settled
from fewbits.train.loop import batches_of, endless, fit, optimizer_of, own_share, parameter_groups
from fewbits.train.objectives import plain
from fewbits.train.readout import check_own, check_size, features_once, head_of, ridge, wanted
from fewbits.train.rules import Rule, backprop
from fewbits.train.whitening import Whitened


def pretrain(
    model: nn.Module,
    loader: Any,
    training: Training,
    *,
    seed: int,
    kept: KeptTraining | None = None,
    task: Task | None = None,
    rule: Rule | None = None,
    accelerator: Accelerator | None = None,
) -> None:
    """Train a float network from where it is, in place: by its rule, and then, if asked for, its readout.

    A :class:`~fewbits.train.whitening.Whitened` network's first layer is fitted before.

    Args:
        loader: ``(inputs, targets)`` batches with a length.
        training: of a :class:`~fewbits.recipe.Pretraining` the readout as well.
        kept: accompanies the training, keeps its state, and has what an interrupted one left.
        task: what the outputs are for; default: classification.
        rule: of one's own, in place of the one that ``training`` names.

    Raises:
        RecipeError: no such rule or option. UnsupportedError: a layer that the rule cannot train, or a network whose
            outputs are not those of a linear layer, and a readout. DataError: no batches, or targets that do not fit
            the network. NonFiniteError: the loss is not finite.
    """
    accelerator = accelerator or Accelerator()
    training = settled(training)
    rule = rule or learning(training)
    kept = kept or KeptTraining(Store(None, "", accelerator), "pretrain")
    after = KeptTraining(kept.store, f"{kept.key}.readout", times=kept.times, callback=kept.callback)
    set_seed(seed)
    model.to(accelerator.device)
    reads = isinstance(training, Pretraining) and training.readout is not None and training.readout.name != "none"
    if reads:
        _head(model, loader, training, accelerator, task)  # refused now rather than after the training
    if after.saved is None:  # else what comes first was over before the interruption
        if isinstance(model, Whitened) and kept.saved is None:
            data = fed(model, loader)
            model.fit(islice(endless(data), batches_of(data)))
        optimizer = optimizer_of(parameter_groups(model, training), training)
        start = kept.begin(model, optimizer)
        objective = plain(task, training.label_smoothing)
        fit(
            model, loader, objective, optimizer, training, callback=kept, accelerator=accelerator, start=start,
            task=task, rule=rule,
        )  # fmt: skip
    if reads:
        assert isinstance(training, Pretraining)
        read_out(model, loader, training, kept=after, task=task, accelerator=accelerator)


def read_out(
    model: nn.Module,
    loader: Any,
    training: Pretraining,
    *,
    kept: KeptTraining,
    task: Task | None = None,
    accelerator: Accelerator,
) -> None:
    """Train the last linear layer alone, in place, as ``training.readout`` says.

    Raises:
        UnsupportedError: the outputs are not those of a linear layer. DataError: targets that do not fit.
    """
    part = training.readout
    assert part is not None
    data = fed(model, loader)
    head = _head(model, loader, training, accelerator, task)
    if part.name == "ridge":
        shared = data.over(own_share(data.loader, accelerator))

        def epoch() -> Any:
            return islice(endless(shared), batches_of(shared))

        ridge(model, head, epoch, lam=part.penalty, task=task, accelerator=accelerator)
        return
    if part.once:
        _read_out_once(model, head, data, training, part, kept=kept, task=task, accelerator=accelerator)
        return
    own = {id(p) for p in head.parameters()}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for p in frozen:
        p.requires_grad_(False)
    try:
        settings = Training(epochs=part.epochs, lr=part.lr, precision=training.precision)
        optimizer = optimizer_of([{"params": list(head.parameters())}], settings)
        start = kept.begin(model, optimizer)
        objective = plain(task, training.label_smoothing)
        fit(
            model, loader, objective, optimizer, settings, callback=kept, accelerator=accelerator, start=start,
            task=task, rule=Rule(_features_stay, backprop.update),
        )  # fmt: skip
    finally:
        for p in frozen:
            p.requires_grad_(True)


def _read_out_once(
    model: nn.Module,
    head: nn.Linear,
    data: Fed,
    training: Pretraining,
    part: Readout,
    *,
    kept: KeptTraining,
    task: Task | None,
    accelerator: Accelerator,
) -> None:
    """As above, on features that are computed once. Processes each compute all of them, and train on their share."""
    settings = Training(epochs=part.epochs, lr=part.lr, precision=training.precision)
    optimizer = optimizer_of([{"params": list(head.parameters())}], settings)
    start = kept.begin(model, optimizer)
    with torch.random.fork_rng():  # an interrupted training draws them again, and nothing of the training's chance
        features, targets = features_once(model, head, islice(endless(data), batches_of(data)), task)
    size = part.batch_size or -(-len(targets) // batches_of(data))
    order = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    batches = DataLoader(TensorDataset(features, targets), size, shuffle=True, generator=order)
    fit(
        nn.Sequential(nn.Dropout(part.dropout), head), batches, plain(task, training.label_smoothing), optimizer,
        settings, callback=kept, accelerator=accelerator, start=start, task=task,
    )  # fmt: skip


def _head(model: nn.Module, loader: Any, training: Training, accelerator: Accelerator, task: Task | None) -> nn.Linear:
    """The layer that a readout trains."""
    assert isinstance(training, Pretraining)
    batch = send_to_device(next(endless(fed(model, loader))), accelerator.device)
    name, head = head_of(model, batch[0])
    check_own(model, name, head)
    if training.readout is not None and training.readout.name == "ridge":
        check_size(head)
        task = task or Classification()
        with evaluating(model):
            task.check(task.forward(model, batch), batch)
        wanted(task, batch[1], head.out_features)
    return head


def _features_stay(network: nn.Module) -> None:
    """Statistics of normalisation stay as they are; dropout drops."""
    for module in network.modules():
        module.training = isinstance(module, nn.modules.dropout._DropoutNd)
