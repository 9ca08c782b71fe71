"""Gradient surgery: a learning rule under which tasks do not pull against each other (PCGrad)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.multitask._mixed import joined
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._tasks import numbers_among
from fewbits.task.batches import called
from fewbits.train import Batch, Rule

Gradient = dict[str, Tensor]
"""By the name of a parameter; those that a task does not reach are left out."""


def without_conflicts(gradients: list[Gradient]) -> list[Gradient]:
    """Each task's gradient without what points against another one's.

    For every other task in an order drawn at random, where the scalar product with its gradient is below zero, the
    part along that gradient is taken away (Yu et al., arXiv 2001.06782, algorithm 1). Products are over the parameters
    that both tasks reach, so the heads of others and segments off a path do not count.

    Args:
        gradients: of each task. They are not changed.
    """
    found = []
    for i, own in enumerate(gradients):
        left = dict(own)
        for j in torch.randperm(len(gradients)).tolist():
            common = [] if i == j else [name for name in left if name in gradients[j]]
            along = sum(float((left[name] * gradients[j][name]).sum()) for name in common)
            if along < 0:
                size = sum(float(gradients[j][name].square().sum()) for name in common)
                left |= {name: left[name] - along / size * gradients[j][name] for name in common}
        found.append(left)
    return found


def _update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
    if not isinstance(network, SegmentNet):
        raise UnsupportedError(
            f"gradient surgery is for a SegmentNet, a network of many tasks, and {type(network).__name__} is none: "
            "take backprop"
        )
    (x, *_), ids = called(batch.inputs)[0], numbers_among(batch.inputs)
    present = [int(number) for number in ids.unique()]
    rows = [(ids == number).nonzero().flatten() for number in present]
    with batch.computing():
        given = [network(x[own], number) for number, own in zip(present, rows, strict=True)]
    ends = [part.detach().requires_grad_() for part in given]
    outputs = joined(dict(zip((network.tasks[number] for number in present), ends, strict=True)), rows)
    loss = batch.loss_of(outputs)
    batch.backward(loss)  # to the ends, and of what the loss has besides outputs to the parameters
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = []
    for part, end in zip(given, ends, strict=True):
        if not part.requires_grad:  # all that this task uses is frozen
            continue
        own = torch.autograd.grad(part, list(named.values()), end.grad, allow_unused=True)
        gradients.append({name: g for name, g in zip(named, own, strict=True) if g is not None})
    for left in without_conflicts(gradients):
        for name, gradient in left.items():
            p = named[name]
            p.grad = gradient if p.grad is None else p.grad + gradient
    network.last = [network.tasks[number] for number in present]
    return outputs, loss, state


pcgrad = Rule(lambda network: None, _update)
"""Backpropagation with gradient surgery between the tasks of each batch (PCGrad, arXiv 2001.06782).

For batches that mix tasks: ``train_tasks(..., order="together", rule=pcgrad)``. The gradient is that of backpropagation
wherever no two tasks conflict. Numbers of a head that tasks share count as what they share.
"""
