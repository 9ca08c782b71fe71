"""Repair without training: statistics of a pruned network, corrected or matched to the float network's."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.channel_masks import ChannelMasks, channels_of
from fewbits.errors import DataError, MismatchError
from fewbits.task import run
from fewbits.task.structure import structure_of
from fewbits.train._norm_statistics import ChannelMoments, FloatStatistics, moments_of, norms_of, watching
from fewbits.weights import NORMS, layers

Batches = Iterable[tuple[Any, Any]]


@torch.no_grad()
def recalibrate(
    model: nn.Module,
    batches: Batches,
    original: nn.Module | FloatStatistics,
    *,
    channels: ChannelMasks | None = None,
) -> int:
    """Correct the running statistics of every batch normalisation by what pruning changed, in place.

    Pruning changes what goes into a normalisation; the statistics of the float network then scale it wrongly. Both
    networks run on the same batches, and each channel's statistics become the float network's own, moved by the
    difference: ``mean + mean_new - mean_float`` and ``var * var_new / var_float``. Statistics taken anew would also
    take over how these batches differ from the training's (augmentation, dropout, their number), so a network that was
    not touched would lose accuracy; here it comes out as it was, to the bit.

    Both networks are in evaluation mode, and a normalisation is corrected before it hands on what later ones are
    measured on. A channel that is constant or not finite in either network keeps its variance, one whose means are
    not finite its mean.

    Args:
        model: the pruned network. batches: of them only the inputs count; each is run once.
        original: the float network, of the same class; or what was seen of it before, on the same batches.
        channels: what ``model`` lost of ``original``; default: what it lost of the whole network.

    Returns:
        The number of normalisations.

    Raises:
        DataError: no batches. MismatchError: ``original`` has other normalisations, or of other widths. The statistics
            are as they were then, as with any other error.
    """
    norms = norms_of(model)
    if not norms:
        return 0
    before = original if isinstance(original, FloatStatistics) else FloatStatistics(original)
    masks = _masks(norms, before, channels_of(model) if channels is None else channels)
    sums: dict[str, list[ChannelMoments]] = {path: [] for path in norms}

    def correct(path: str, norm: Any, x: Tensor) -> None:
        mine, theirs, mask = sums[path], before.seen[path], masks[path]
        mine.append(mine[-1].and_then(moments_of(x)) if mine else moments_of(x))
        if theirs:  # after as many calls; a network may call it more often than the other
            there = theirs[min(len(mine), len(theirs)) - 1].of(mask)
            mean, variance = (kept if mask is None else kept[mask] for kept in before.kept[path])
            mean, variance = _moved(mean, variance, mine[-1], there)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)

    place = next(model.parameters()).device
    seen = 0
    with evaluating(model), _unless_done(list(norms.values())), watching(norms, correct):
        for batch in batches:
            before.see(seen, batch[0])
            run(model, send_to_device(batch[0], place))
            seen += 1
        if not seen:
            raise DataError("the calibration data is empty: the loader yields no batch")
    return len(norms)


def _moved(mean: Tensor, variance: Tensor, new: ChannelMoments, old: ChannelMoments) -> tuple[Tensor, Tensor]:
    """Running statistics moved from what ``old`` are the moments of to what ``new`` are."""
    shifted = mean + (new.mean - old.mean).to(mean.device)
    ratio = torch.where(new.varies & old.varies, new.variance / old.variance, 1.0).to(variance.device)
    scaled = (variance * ratio).to(variance.dtype)
    shifted = shifted.to(mean.dtype)
    return torch.where(torch.isfinite(shifted), shifted, mean), torch.where(torch.isfinite(scaled), scaled, variance)


def _masks(
    norms: Mapping[str, Any], before: FloatStatistics, channels: ChannelMasks | None
) -> dict[str, Tensor | None]:
    """For each normalisation, which channels of the float network's are left; ``None``: all."""
    if norms.keys() != before.kept.keys():
        raise MismatchError(
            f"the networks have different normalisations: {list(norms)} and, of the float one, {list(before.kept)}"
        )
    found: dict[str, Tensor | None] = {}
    for path, norm in norms.items():
        width, whole = len(norm.running_mean), len(before.kept[path][0])
        name, mask = f"{path}.running_mean".lstrip("."), None
        if width != whole:
            (mask,) = (channels.kept if channels is not None else {}).get(name, (None,))
            if mask is None or (len(mask), int(mask.sum())) != (whole, width):
                raise MismatchError(
                    f"{path} has {width} channels, and {whole} in the float network: give the network that they were "
                    "removed from, or channels="
                )
            mask = mask.to(before.kept[path][0].device)
        found[path] = mask
    return found


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
        MismatchError: the networks have different layers.
    """
    mine, theirs = layers(pruned), layers(dense)
    if list(mine) != list(theirs):
        raise MismatchError(f"the networks have different layers: {list(mine)} and {list(theirs)}")
    with evaluating(pruned), evaluating(dense):
        skipped = set() if normalised else _normalised(pruned, inputs)
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


def _normalised(model: nn.Module, inputs: Tensor) -> set[str]:
    """Paths of modules whose every output goes into a batch normalisation and nowhere else."""
    behind: dict[str, bool] = {}
    for node in structure_of(model, inputs).nodes:
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
