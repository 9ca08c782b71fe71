"""A linear readout of frozen features: the network's own last linear layer, trained alone.

In closed form it is ridge regression of one-hot targets, from sums over the batches (normal equations)::

    W = (X^T X + lambda)^-1 X^T T,   b = mean(T) - W mean(X)          X, T without their means

lambda is the one with the smallest leave-one-out error, exactly and without training again::

    e_i = (t_i - y_i) / (1 - h_i),   h_i = 1/n + x_i^T (X^T X + lambda)^-1 x_i

Hoerl and Kennard 1970; leave-one-out after Allen 1974 (PRESS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError, UnsupportedError
from fewbits.task import Classification, Task, main_output, run
from fewbits.task.batches import described, input_of
from fewbits.task.named import Regression, SoftLabels
from fewbits.train.moments import Moments
from fewbits.weights import shared

LAMBDAS = tuple(10.0**k for k in range(-6, 5))
"""Candidates for lambda, relative to the mean variance of a feature times the number of samples."""

SCALES = tuple(10.0 ** (k / 8) for k in range(-8, 25))
"""By what a readout of one-hot targets may be multiplied, so that a softmax of it is calibrated."""

LARGEST = 16_384
"""Features: their squares are held in float64, 2 GB of them here."""


class Ridge(NamedTuple):
    """What was found: ``lam`` relative to the mean variance of the features, and the mean squared error left out."""

    lam: float
    error: float


def head_of(network: nn.Module, inputs: Any) -> tuple[str, nn.Linear]:
    """The linear layer that gives the network's outputs, and its name.

    Args:
        inputs: of one batch, which is run through the network once.

    Raises:
        UnsupportedError: the outputs are not those of a linear layer; the message names the last one.
    """
    last: list[tuple[str, nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: last.append((name, m, out)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with evaluating(network):
            outputs = main_output(run(network, inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if not last or outputs.dim() != 2 or not torch.equal(outputs, last[-1][2]):
        found = f"its last linear layer {last[-1][0]!r} gives something else" if last else "it has no linear layer"
        raise UnsupportedError(
            f"a readout trains the linear layer that gives the outputs [samples, classes] of {type(network).__name__}, "
            f"and {found}: leave the readout out (readout: none)"
        )
    return last[-1][:2]


def check_own(network: nn.Module, name: str, head: nn.Linear) -> None:
    """UnsupportedError for a layer whose weights are frozen, or another layer's as well."""
    for attribute, parameter in head.named_parameters(recurse=False):
        why = "frozen" if not parameter.requires_grad else "shared" if (head, attribute) in shared(network) else ""
        if why:
            raise UnsupportedError(
                f"a readout would train {name}.{attribute}, which is {why}: leave the readout out (readout: none)"
            )


def check_size(head: nn.Linear) -> None:
    """UnsupportedError for more features than normal equations can be held of."""
    if head.in_features > LARGEST:
        gigabytes = head.in_features**2 * 8 / 2**30
        raise UnsupportedError(
            f"a ridge readout of {head.in_features:,} features would hold {gigabytes:.0f} GB of their products; "
            "take readout: sgd"
        )


def features_once(
    network: nn.Module, head: nn.Linear, epoch: Iterable[Any], task: Task | None = None
) -> tuple[Tensor, Tensor]:
    """What a network's last linear layer is given over an epoch, and the targets: on the processor, in their own types.

    Args:
        network: taken in evaluation mode. head: of :func:`head_of`. epoch: batches ``(inputs, targets)``.
        task: default: classification.

    Returns:
        features ``[samples, features]`` and targets ``[samples, ...]``.

    Raises:
        DataError: no samples, or targets that do not fit. UnsupportedError: targets that are not one for each sample.
    """
    task = task or Classification()
    features, targets = list[Tensor](), list[Tensor]()
    with evaluating(network), _features_of(head) as seen:
        for batch in epoch:
            batch = send_to_device(batch, head.weight.device)
            task.check(task.forward(network, batch), batch)
            features.append(seen.pop().cpu())
            if not isinstance(batch[1], Tensor) or len(batch[1]) != len(features[-1]):
                raise UnsupportedError(
                    f"features are kept with one target for each sample, and the targets are {described(batch[1])}: "
                    "leave once out of the readout"
                )
            targets.append(batch[1].cpu())
    if not features:
        raise DataError("a readout needs samples: the training data is empty")
    return torch.cat(features), torch.cat(targets)


@contextmanager
def _features_of(head: nn.Linear) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(input_of(args, kwargs)), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


def ridge(
    network: nn.Module,
    head: nn.Linear,
    epoch: Callable[[], Iterable[Any]],
    *,
    lam: float | None = None,
    task: Task | None = None,
    accelerator: Accelerator | None = None,
) -> Ridge:
    """Fit a network's last linear layer in closed form, in place, in two passes over the data.

    Args:
        network: taken in evaluation mode, so dropout is off and statistics stay. head: of :func:`head_of`.
        epoch: gives the batches ``(inputs, targets)`` of an epoch, each time it is called: class indices, or numbers
            ``[samples, outputs]``. The outputs of classes are scaled, so that a softmax of them is calibrated.
        lam: relative to the mean variance of a feature; ``None``: by leave-one-out.
        task: says whether targets are classes or numbers; default: classification.
        accelerator: of several processes each gives its share of the data; sums are taken over all.

    Raises:
        UnsupportedError: more features than normal equations can be held of. DataError: no samples, or other targets.
    """
    check_size(head)
    accelerator = accelerator or Accelerator()
    features, place = head.in_features, head.weight.device
    task = task or Classification()
    classes = True

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal classes
        with evaluating(network), _features_of(head) as seen:
            for batch in epoch():
                batch = send_to_device(batch, place)
                task.check(task.forward(network, batch), batch)
                classes = classes_of(task, batch[1])
                yield seen.pop().double(), wanted(task, batch[1], head.out_features)

    moments = Moments(torch.zeros(features + head.out_features, device=place))
    for x, t in rows():
        moments.add(torch.cat([x, t], 1))
    count = float(moments.over(accelerator).count)
    if not count:
        raise DataError("a readout needs samples: the training data is empty")
    means, products = moments.mean_and_covariance()
    if head.bias is None:  # nothing takes the means off then
        products, means = products + torch.outer(means, means), torch.zeros_like(means)
    mean_x, mean_t = means[:features], means[features:]
    values, vectors = torch.linalg.eigh(products[:features, :features])
    values = values.clamp_min(0)
    rotated = vectors.T @ products[:features, features:]
    lams = torch.tensor(LAMBDAS if lam is None else (lam,), dtype=torch.float64, device=place)
    inverse = 1 / (values + lams[:, None] * values.mean() + 1e-30)  # [lambdas, features]

    scales = torch.tensor(SCALES, dtype=torch.float64, device=place)
    errors = torch.zeros(len(lams), 1 + len(SCALES), dtype=torch.float64, device=place)
    for x, t in rows():
        z = (x - mean_x) @ vectors
        leverage = z.square() @ inverse.T / count + (0.0 if head.bias is None else 1 / count)  # [n, lambdas]
        for k in range(len(lams)):
            fitted = (z * inverse[k]) @ rotated + mean_t
            left_out = t - (t - fitted) / (1 - leverage[:, k, None]).clamp_min(1e-9)
            errors[k, 0] += (t - left_out).square().sum()
            if classes:
                logs = F.log_softmax(left_out * scales[:, None, None], dim=-1)
                errors[k, 1:] -= (logs * t).sum((1, 2))
    if accelerator.num_processes > 1:
        errors = accelerator.reduce(errors, reduction="sum")
    best = int(errors[:, 0].argmin())
    scale = float(scales[errors[best, 1:].argmin()]) if classes else 1.0
    weight = (vectors @ (inverse[best][:, None] * rotated)).T
    with torch.no_grad():
        head.weight.copy_(scale * weight)
        if head.bias is not None:
            head.bias.copy_(scale * (mean_t - weight @ mean_x))
    return Ridge(float(lams[best]), float(errors[best, 0]) / count)


def classes_of(task: Task, targets: Tensor) -> bool:
    """Whether targets are classes. Of a task with a loss of one's own nothing else is known than their type."""
    return (isinstance(task, Classification) or _own(task)) and not targets.is_floating_point()


def _own(task: Task) -> bool:
    return type(task) is Task


def wanted(task: Task, targets: Any, outputs: int) -> Tensor:
    """Targets as numbers, float64 ``[n, outputs]``.

    Raises:
        UnsupportedError: the task has neither classes nor numbers for each sample.
    """
    if isinstance(targets, Tensor):
        if classes_of(task, targets) and targets.dim() == 1:
            return F.one_hot(targets.long(), outputs).double()
        numbers = isinstance(task, Regression | SoftLabels) or (_own(task) and targets.is_floating_point())
        if numbers and targets.numel() == len(targets) * outputs:
            return targets.reshape(len(targets), outputs).double()
    raise UnsupportedError(
        f"a ridge readout fits classes [samples] or numbers [samples, {outputs}], and the task "
        f"{type(task).__name__.lower()} has targets of {described(targets)}: take readout: sgd, or none"
    )
