"""Repair without training: statistics of a pruned network, taken anew or matched to the float network's."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.errors import DataError, MismatchError
from fewbits.graph.traced import graph_of
from fewbits.task import run
from fewbits.weights import NORMS, layers

Batches = Iterable[tuple[Any, Any]]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Batches) -> int:
    """Take the running statistics of every batch normalisation anew, in place: the mean over ``batches``.

    Pruning changes what goes into a normalisation; the statistics of the float network then scale it wrongly. Only
    normalisations with running statistics run in training mode, everything else (dropout) in evaluation mode.

    Returns:
        The number of normalisations.

    Raises:
        DataError: no batches, or one that a normalisation cannot take the statistics of (a single number per
            channel). The statistics are as they were then, as with any other error.
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.running_mean is not None]
    if not norms:
        return 0
    place = next(model.parameters()).device
    seen = 0
    with _evaluating(model), _momenta(norms), _unless_done(norms):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for batch in batches:
            try:
                run(model, send_to_device(batch[0], place))
            except ValueError as error:  # torch's, of a normalisation with one value per channel
                raise DataError(f"batch {seen} of the calibration data gives no statistics: {error}") from None
            seen += 1
        if not seen:
            raise DataError("the calibration data is empty: the loader yields no batch")
    return len(norms)


@contextmanager
def _momenta(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Give the normalisations their momenta back."""
    momenta = [norm.momentum for norm in norms]
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def _unless_done(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Put the statistics back if anything goes wrong."""
    saved = [copy.deepcopy(list(norm.buffers())) for norm in norms]
    try:
        yield
    except BaseException:
        for norm, buffers in zip(norms, saved, strict=True):
            for buffer, before in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(before)
        raise


@torch.no_grad()
def match_variance(
    pruned: nn.Module, dense: nn.Module, inputs: Tensor, *, shrinkage: float = 0.0, normalised: bool = True
) -> None:
    """Give every output channel of every layer of ``pruned`` the variance and mean it has in ``dense``, in place.

    Layer by layer in the order of computation, so that each one sees inputs that are repaired already: a channel's
    weights are multiplied by ``s + (1 - s) sqrt(var_dense / var_pruned)``, s being the shrinkage, and its bias, if the
    layer has one, makes the means equal. Zeros stay zeros. (After ASR, arXiv 2605.21426, of which only the abstract was
    available: this is our reading.)

    With :func:`recalibrate`, recalibrate first and match the layers without a normalisation (``normalised=False``).
    The other way round, new statistics undo what was matched in front of them, and shift what was matched behind.

    Args:
        pruned, dense: two networks of one class, both plain. inputs: [N, ...], one batch; a forward of both per layer.
        shrinkage: 0 matches fully, 1 leaves the weights.
        normalised: whether to match layers, too, whose outputs go into a batch normalisation and nowhere else.

    Raises:
        MismatchError: the networks have different layers. UnsupportedError: ``normalised=False``, and the structure
            of the network cannot be read.
    """
    mine, theirs = layers(pruned), layers(dense)
    if list(mine) != list(theirs):
        raise MismatchError(f"the networks have different layers: {list(mine)} and {list(theirs)}")
    with _evaluating(pruned), _evaluating(dense):
        skipped = set() if normalised else _normalised(pruned)
        wanted = _moments(dense, {path: layer for path, layer in theirs.items() if path not in skipped}, inputs)
        for path in wanted:  # in the order of computation
            layer = mine[path]
            mean, variance = _moments(pruned, {path: layer}, inputs)[path]
            goal_mean, goal_variance = wanted[path]
            varies = variance > 1e-10 * (mean.square() + goal_variance)  # less is the rounding of a constant
            ratio = torch.where(varies, goal_variance / variance, 1.0).sqrt()
            factor = (shrinkage + (1 - shrinkage) * ratio).to(layer.weight.dtype)
            layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
            if layer.bias is not None:
                # y = f (W x) + b': the mean of W x is the old mean less the old bias
                moved = goal_mean - factor * (mean - layer.bias)
                layer.bias.copy_(shrinkage * layer.bias + (1 - shrinkage) * moved)


def _normalised(model: nn.Module) -> set[str]:
    """Paths of modules whose every output goes into a batch normalisation and nowhere else."""
    behind: dict[str, bool] = {}
    for node in graph_of(model).nodes:
        if node.op == "call_module":
            users = list(node.users)
            normed = bool(users) and all(
                user.op == "call_module" and isinstance(model.get_submodule(str(user.target)), NORMS) for user in users
            )
            behind[str(node.target)] = behind.get(str(node.target), True) and normed
    return {path for path, normed in behind.items() if normed}


def _moments(model: nn.Module, chosen: Mapping[str, nn.Module], inputs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each output channel of the layers, over samples, places and calls, in float64."""
    sums: dict[str, list[Tensor]] = {}
    handles = []
    for path, layer in chosen.items():

        def note(module: nn.Module, _: object, output: Tensor, path: str = path) -> None:
            channels = 1 if not isinstance(module, nn.Linear) else -1
            flat = output.double().movedim(channels, 0).flatten(1)
            new = [torch.tensor(flat.shape[1]), flat.sum(1), flat.square().sum(1)]
            sums[path] = [a + b for a, b in zip(sums[path], new, strict=True)] if path in sums else new

        handles.append(layer.register_forward_hook(note))
    try:
        model(inputs.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for path, (n, total, squares) in sums.items():
        mean = total / n
        found[path] = mean, (squares / n - mean.square()).clamp_min(0)
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
