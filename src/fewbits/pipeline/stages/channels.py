"""The channel stage of a recipe: measure, choose, remove, and train what is left, before the main job."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from torch import Tensor, nn

from fewbits import codec
from fewbits.attach import evaluating, plan_of
from fewbits.channel_masks import ChannelMasks, channels_of
from fewbits.channels import Dependencies, criterion, dependencies, first_samples, measured
from fewbits.channels.load import load_plan
from fewbits.channels.select import ChannelChoice, Sizes, choose, unit_scores
from fewbits.channels.surgery import prune_channels, zero_channels
from fewbits.errors import RecipeError, UnsupportedError
from fewbits.hardware import count
from fewbits.pipeline.stages._limit import Limit
from fewbits.pipeline.stages._work import Context, Work
from fewbits.recipe.pruning import ChannelPruning
from fewbits.task import Task, fed, first_of, main_output, run
from fewbits.task.batches import run_apart
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.learning import learning, settled
from fewbits.train.loop import batches_of, endless, fit, optimizer_of, parameter_groups
from fewbits.train.objectives import objective_of
from fewbits.train.recalibrate import recalibrate
from fewbits.train.told import Told

ADDITIVE = ("curvature", "output", "taylor")  # criteria that estimate a loss: those of channels that go together add up
RECALIBRATED = 2048  # samples, at least: statistics of fewer are noisy
TOLERANCE = 1e-3  # of outputs after surgery, relative to the largest: float32 sums in another order


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A network without the channels that matter least, and what was chosen in each round."""

    model: nn.Module
    choices: tuple[ChannelChoice, ...]


def remove_channels(
    model: nn.Module,
    train: Any,
    part: ChannelPruning,
    *,
    seed: int = 0,
    accelerator: Accelerator | None = None,
    kept: KeptTraining | None = None,
    task: Task | None = None,
) -> Narrowed:
    """Remove channels from a trained network and train it on. The model given is not changed.

    In each of ``part.rounds`` the scores are measured anew, channels go until the target (of the first rounds:
    geometrically on the way to it) is met, be it a share or a cost on a machine, normalisations are recalibrated
    relative to the network before, and a share of the epochs follows.

    Args:
        model: a float network. train: batches of the task, with a length.
        part: criterion, target and training. seed: of what is drawn.
        kept: accompanies the training, keeps its state, and has what an interrupted one left; that round and those
            before are not in the result's ``choices``.

    Returns:
        The smaller network, in evaluation mode: the same class, and the same names of smaller tensors. ``plan_of`` and
        the files made from it know which channels they are.

    Raises:
        UnsupportedError, SelectionError: the structure cannot be read, or depends on fixed sizes. BudgetError: the cap
            does not allow the target, or nothing that fits the machine does. DataError: no batches.
    """
    accelerator = accelerator or Accelerator()
    full = copy.deepcopy(model).to(accelerator.device).eval()
    small = copy.deepcopy(full)
    train = fed(full, train)
    shape = _sample(train)
    whole = sizes_of(full, shape, part.over)
    limit = Limit(full, shape, part) if part.quantity is not None else None
    choices = []
    kept = kept or KeptTraining(Store(None, "", accelerator), "channels.training")
    gone_on = None if kept.saved is None else kept.saved["notes"]
    for done in range(1 if gone_on is None else gone_on["round"], part.rounds + 1):
        if gone_on is not None and done == gone_on["round"]:
            load_plan(small, codec.decode(gone_on["network"], like=small))
        else:
            way = done / part.rounds
            choice = _chosen(small, train, part, whole, limit, way, shape, seed + done - 1, task)
            before = full if done == 1 else copy.deepcopy(small)
            _remove(small, choice.channels, train)
            choices.append(choice)
            some = first_samples(_epoch(train), max(part.samples, RECALIBRATED))
            recalibrate(small, some, before, channels=choice.channels)
            del before
        if part.train is not None:
            settings = settled(part.train)
            settings = settings.model_copy(update={"epochs": settings.epochs / part.rounds})
            objective = objective_of(settings, full, task)
            optimizer = optimizer_of(parameter_groups(small, settings), settings)
            if kept.store.path is not None:
                kept.notes = {"round": done, "network": codec.encode(plan_of(small, floats=torch.float32))}
            start = kept.begin(small, optimizer)
            fit(
                small, train, objective, optimizer, settings, callback=kept, accelerator=accelerator, start=start,
                task=task, rule=learning(settings),
            )  # fmt: skip
    return Narrowed(small.eval(), tuple(choices))


def sizes_of(model: nn.Module, input_shape: Any, over: str = "macs") -> Sizes:
    """Shapes of all parameters, and (for ``over="macs"``) how often each weight is used for one sample."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if over != "macs":
        return Sizes(shapes, {})
    try:
        counted = count(model, input_shape).layers
        others = sum(layer.macs for layer in counted if layer.name not in shapes)
        return Sizes(shapes, {layer.name: layer.uses for layer in counted if layer.name in shapes}, others)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error}; with channels.parameters in place of channels.macs none are counted"
        ) from error


def _chosen(
    model: nn.Module,
    train: Any,
    part: ChannelPruning,
    whole: Sizes,
    limit: Limit | None,
    way: float,
    shape: Any,
    seed: int,
    task: Task | None,
) -> ChannelChoice:
    found = dependencies(model, shape)
    scores = criterion(part.criterion, model, first_samples(_epoch(train), part.samples), seed=seed, task=task)
    reduce = part.reduce or ("sum" if part.criterion in ADDITIVE else "mean")
    units = unit_scores(found, scores, reduce=reduce)
    if part.measured:
        units = measured(model, first_samples(_epoch(train), part.samples), found, units)
    sizes = sizes_of(model, shape, part.over)
    outputs = {name: whole.shapes[name][found.axis(name)] for name in found.outputs if name in whole.shapes}

    def chosen(left: float) -> ChannelChoice:
        return choose(
            found,
            units,
            sizes,
            left=left,
            over=part.over,
            cap=part.cap,
            full=outputs,
            per_saving=part.per_saving,
            exclude=part.exclude,
            multiple=part.multiple,
        )

    if limit is not None:
        choice = limit.choice(model, chosen, way)
    else:  # a share of the network at the start; of the present one it is as much larger
        present, start = (_amount(s, part.over, found) for s in (sizes, whole))
        choice = chosen(min(1.0, part.left**way * start / present))
    agreed = [choice]
    broadcast_object_list(agreed)  # rounding must not lead to different networks
    return agreed[0]


def _amount(sizes: Sizes, over: str, found: Dependencies) -> int:
    numel = {name: torch.Size(shape).numel() for name, shape in sizes.shapes.items()}
    if over == "macs":
        return sizes.macs
    outputs = (sizes.shapes[name][found.axis(name)] for name in found.outputs)
    return sum(numel.values()) if over == "parameters" else sum(outputs)


def _remove(model: nn.Module, channels: ChannelMasks, train: Any) -> None:
    """Narrow in place, and find out at once whether the network still computes, and computes the same."""
    inputs = send_to_device(first_of(_first(train), 8), next(model.parameters()).device)
    expected = copy.deepcopy(model)
    zero_channels(expected, channels)
    prune_channels(model, channels)
    name = type(model).__name__
    with evaluating(expected), evaluating(model):
        wanted = main_output(run_apart(expected, inputs))
        try:
            found = main_output(run(model, inputs))
        except RuntimeError as error:
            raise UnsupportedError(f"{name} relies on sizes that channels were removed from: {error}") from error
    if found.shape != wanted.shape or float((found - wanted).abs().max()) > TOLERANCE * float(
        wanted.abs().max() + 1e-6
    ):
        raise UnsupportedError(f"{name} computes something else once channels are removed: it relies on their number")


def _epoch(train: Any) -> Iterator[Any]:
    """The batches of the first epoch, whichever epoch a loader was left in."""
    return islice(endless(train), batches_of(train))


def _first(train: Any) -> Any:
    return next(_epoch(train))[0]


def _sample(train: Any) -> Any:
    """The shape of a sample, of networks of one input; else the inputs of a batch."""
    inputs = _first(train)
    return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs


class RemoveChannels:
    """What a recipe's section ``channels`` asks for; what is left is kept for a run that goes on."""

    def run(self, work: Work, context: Context) -> Work:
        """The work on the smaller network.

        Raises:
            RecipeError: the network has lost channels already. Else as :func:`remove_channels`.
        """
        recipe, store = work.recipe, context.store
        assert recipe.channels is not None
        if channels_of(work.full) is not None:
            raise RecipeError(
                f"this {type(work.full).__name__} has lost channels already; start from the whole network (rounds "
                "takes several steps), or leave out the section channels"
            )
        known = store.get("channels")
        if known is not None:
            left = copy.deepcopy(work.full)
            load_plan(left, codec.decode(known, like=left))
            return replace(work, model=left.eval())
        what = "training without the removed channels, "
        told = Told(context.progress, what, times=20) if context.progress else None
        kept = KeptTraining(store, "channels.training", callback=told)
        left = remove_channels(
            work.full, work.train, recipe.channels, seed=recipe.seed, accelerator=context.accelerator, kept=kept,
            task=work.task,
        ).model  # fmt: skip
        store.put("channels", codec.encode(plan_of(left, floats=torch.float32)), drop=["channels.training"])
        return replace(work, model=left)
