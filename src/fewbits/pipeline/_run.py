"""The main job: a float network in, stage by stage, a small file that decodes out."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fewbits import recipe as recipes
from fewbits.attach.plain import plain_copy, unwrapped
from fewbits.codec import Base
from fewbits.errors import RecipeError
from fewbits.pipeline._bar import Shown, telling
from fewbits.pipeline._candidates import Evaluate, evaluated
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._sources import FREE, Place, based
from fewbits.pipeline.check import check_based, check_call
from fewbits.pipeline.methods import integer_form_of, method_of
from fewbits.pipeline.stages._adjust import Adjust
from fewbits.pipeline.stages._calibrate import Calibrate, Collect
from fewbits.pipeline.stages._hold import Hold
from fewbits.pipeline.stages._pilots import Pilots
from fewbits.pipeline.stages._swap import Swap
from fewbits.pipeline.stages._work import Context, Stage, Work
from fewbits.pipeline.stages.channels import RemoveChannels
from fewbits.recipe import Activations, Recipe
from fewbits.task import Fed, Metric, Task, fed, metric_of, task_of
from fewbits.task.feed import Feed, Given
from fewbits.task.metric import check_percent, number
from fewbits.task.stream import NoBatches, for_steps
from fewbits.train.checkpoint import Store, digest_of
from fewbits.train.learning import settled
from fewbits.weights import select

VALIDATION = "the validation data"


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe asks for, in order."""
    stages: list[Stage] = [RemoveChannels()] if recipe.channels is not None else []
    if recipe.ops:
        stages.append(Swap())
    stages.append(Pilots(_again))
    if integer_form_of(recipe):
        part = recipe.activations or Activations()
        clusters = method_of(recipe).clusters
        stages.append(Collect(part.calibrate) if clusters else Calibrate(part.calibrate, alone=part.alone))
    adjusted = recipe.activations is not None and recipe.activations.train is not None
    return [*stages, Hold(), *([Adjust()] if adjusted else [])]


def compress(
    model: nn.Module,
    train: Any = None,
    *,
    evaluate: Evaluate | Iterable[Any] | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path = "ecq-4bit",
    target: str | int | None = None,
    max_drop: float | None = None,
    base: Place | Base | Compressed | None = None,
    task: Task | Mapping[str, Any] | str | None = None,
    metric: str | None = None,
    inputs: Given = None,
    targets: Given = None,
    steps: int | None = None,
    teacher: nn.Module | None = None,
    state_file: str | Path | None = None,
    keep_state: bool = False,
    progress: Shown = "bar",
    accelerator: Accelerator | None = None,
) -> Compressed:
    """Make a trained network as small as a budget asks for. The model given is not changed.

    Args:
        model: a float network, for whatever ``task`` says.
        train: batches with a length: a ``DataLoader`` or a list, of tuples ``(inputs, targets)``, of dicts, or of what
            else :class:`~fewbits.task.Feed` splits. Without any, nothing is trained, whatever the recipe says.
        evaluate: how good a network is on validation data: a function of the network, or batches, over which the task's
            own metric is taken. Needed for ``max_drop``, and for the accuracies in the report.
        recipe: a :class:`~fewbits.recipe.Recipe` or a dict of its keys, a YAML file, or the name of one that comes with
            fewbits.
        target: bytes of the file, for example ``"200 KB"``; overrides the recipe's.
        max_drop: points of accuracy (or of what ``metric`` says) that may be lost; overrides the recipe's.
        base: a ``.few`` file (a path, its bytes, or what :func:`compress` returned) of the network that this one was
            fine-tuned from; overrides the recipe's. The file then holds differences to it, and is read with it.
        task: what the outputs are for: a name of ``fewbits.task.TASKS``, such as ``"segmentation"``, a dict with
            ``name`` and ``options``, or a :class:`~fewbits.task.Task` with a loss of one's own; overrides the recipe's.
        metric: what ``evaluate`` returns: ``"percent"``, a ``"fraction"`` from 0 to 1, a ``"loss"``, of which less is
            better, or a ``"score"``, of which more is better. Of fractions ``max_drop`` counts hundredths, of losses
            and scores their own unit.
        inputs, targets: which parts of a batch they are: keys, places, or functions of the batch; default: read from
            the network's ``forward``.
        steps: training steps, in place of the recipe's epochs; needed for loaders without a length.
        teacher: a network whose answers are distilled (``train.distill``), with the same inputs and classes;
            default: the float network itself. An interrupted run must be given the same one.
        state_file: where the state is kept at every round. If the file exists, the run goes on from there (this
            needs a ``train`` whose order is reproducible, as fewbits' own loaders are). Removed at the end.
        keep_state: leave the state file at the end; whoever asks for this removes it once the result is safe.
        progress: called after every round as ``progress(steps done, steps in total, a line)``; default: a bar, on a
            terminal. ``None`` shows nothing.
        accelerator: where to run; default: made from the environment.

    Raises:
        SelectionError, NonFiniteError, UnsupportedError: the network cannot be compressed; the message names
            the layer. DataError: no batches, or one that does not fit; the message names it. RecipeError: an impossible
            option.
        BudgetError: the target cannot be reached whatever is given up. FileError: the base cannot be read, holds
            differences itself, or has none of the network's tensors.
    """
    chosen, aim = chosen_by(recipe, target, max_drop, task)
    if base is not None:
        chosen = chosen.updated(base=os.fspath(base) if isinstance(base, str | os.PathLike) else None)
    origin = base_for(base if base is not None else chosen.base, model)
    check_based(chosen, origin)
    check_kinds(state_file, progress, accelerator)
    if train is None:
        idle = {"steps": steps, "inputs": inputs, "targets": targets}
        for name in (name for name, value in idle.items() if value is not None):
            raise RecipeError(f"{name} is about batches of train: give train, or leave {name} out")
        train, chosen = NoBatches(), chosen.updated(train=None)
    check_call(chosen, evaluate, teacher)
    if steps is not None:
        train, epochs = for_steps(train, steps)
        chosen = chosen.updated(train={"epochs": epochs})
    accelerator = accelerator or Accelerator()
    place = Path(state_file) if state_file is not None else None
    known = "" if origin is None else f" base {origin.identity.hex()}"
    if place is not None:
        state = unwrapped(model).state_dict()
        known += f" network {digest_of(dict(_floats(state)))}"
    store = Store(place, chosen.model_dump_json() + known, accelerator)
    full = plain_copy(model, shared=True).to(accelerator.device).eval()
    select(full, chosen.select.include, chosen.select.exclude)  # refused before anything is trained
    listened = full if teacher is None else plain_copy(teacher, "the teacher", shared=True).to(accelerator.device)
    data = fed(full, train, inputs=inputs, targets=targets)
    score, scale = scoring(_in_own_type(evaluate, model), metric, aim, full, data.feed)
    with telling(progress, accelerator) as told:
        before = None
        if score is not None and store.get("run") is None:
            before = first_score(score, copy.deepcopy(full), checked=metric is None and callable(evaluate))
        work = Work(chosen, data, aim, score, full, full, listened, before=before, metric=scale, base=origin)
        compressed = _run(work, Context(store, accelerator, told))
    if not keep_state:
        store.forget()
    return replace(compressed, report=compressed.report.told(scale))


def base_for(base: Place | Base | Compressed | None, model: nn.Module) -> Base | None:
    """What differences are to; the network says about how many numbers that may have."""
    if base is None:
        return None
    numbers = sum(tensor.numel() for tensor in unwrapped(model).state_dict().values() if not is_lazy(tensor))
    return based(base.data if isinstance(base, Compressed) else base, 2 * numbers + FREE)


def _floats(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """What says which network it is, by name; counters of batches are not in every file."""
    for name, part in sorted(state.items()):
        if isinstance(part, Tensor) and not is_lazy(part) and part.is_floating_point():
            yield name, part


def check_kinds(state_file: Any, progress: Any, accelerator: Any) -> None:
    """Refuse before the work, not after a part of it, what cannot be told, kept or run."""
    if not (progress is None or progress == "bar" or callable(progress)):
        raise RecipeError(f"progress is a function (done, total, line), 'bar' or None, not {progress!r:.60}")
    if not (state_file is None or isinstance(state_file, str | os.PathLike)):
        raise RecipeError(f"state_file is the path of a file, not of type {type(state_file).__name__}")
    if not (accelerator is None or isinstance(accelerator, Accelerator)):
        raise RecipeError(f"accelerator is one of the package accelerate, not of type {type(accelerator).__name__}")


def chosen_by(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    target: str | int | None,
    max_drop: float | None,
    task: Task | Mapping[str, Any] | str | None,
) -> tuple[Recipe, Task]:
    """Recipe and task, with what the arguments of a call change."""
    if isinstance(recipe, Mapping):
        recipe = recipes.make(dict(recipe))
    if not isinstance(recipe, Recipe | str | os.PathLike):
        raise RecipeError(
            f"recipe is of type {type(recipe).__name__}: give a Recipe, a dict of its keys, a YAML file or a name"
        )
    chosen = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    if task is not None and not isinstance(task, Task):
        chosen = chosen.updated(task=task)
    if target is not None or max_drop is not None:
        steer: dict[str, Any] = {"target": target, "max_drop": max_drop}
        chosen = chosen.updated(**steer, assign=chosen.assign.model_dump() | {"lam": None})
    chosen = with_settled_training(chosen)
    return chosen, task if isinstance(task, Task) else task_of(chosen.task.name, chosen.task.options)


def with_settled_training(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its training's rule wants, where it has left them open."""
    train = settled(recipe.train)
    return recipe if train is recipe.train else recipe.updated(train=train.model_dump())


def _in_own_type(evaluate: Any, model: nn.Module) -> Any:
    """An evaluation that gets networks in the type of the user's, which its data has, too."""
    own = Feed(model).dtype
    if not callable(evaluate) or own == torch.float32:
        return evaluate
    return lambda network: evaluate(copy.deepcopy(network).to(own))


def scoring(
    evaluate: Evaluate | Iterable[Any] | None, metric: str | None, task: Task, model: nn.Module, feed: Feed
) -> tuple[Evaluate | None, Metric]:
    """How good a network is, higher is better, by a function or over batches; and the scale of that."""
    scale = metric_of(metric or "percent")
    if evaluate is None:
        return None, scale
    if callable(evaluate):
        _check_takes_a_network(evaluate)
        judge: Callable[[nn.Module], Any] = evaluate
    else:
        if metric is not None:
            raise RecipeError("metric is for an evaluate function; over batches the task's own metric is taken")
        scale = task.scale
        judge = partial(task.evaluate, batches=Fed(fed(model, evaluate, VALIDATION).loader, feed, VALIDATION))

    def score(network: nn.Module) -> float:
        return scale.score(number(judge(network)))

    return score, scale


def _check_takes_a_network(evaluate: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(evaluate)
    except (TypeError, ValueError):  # of what is written in C
        return
    try:
        signature.bind(None)
    except TypeError:
        name = getattr(evaluate, "__name__", type(evaluate).__name__)
        raise RecipeError(
            f"evaluate is called with one network, and {name}{signature} takes something else: give a function of the "
            "network, or batches"
        ) from None


def first_score(score: Evaluate, model: nn.Module, *, checked: bool) -> float:
    """How good the float network is.

    Raises:
        DataError, NonFiniteError: it gives no finite number; ``checked``: or a fraction in place of percent.
    """
    found = evaluated(score, model)
    if checked:
        check_percent(found)
    return found


def _run(work: Work, context: Context) -> Compressed:
    with torch.random.fork_rng():
        for stage in stages_of(work.recipe):
            torch.manual_seed(work.recipe.seed)  # so that a stage that was over before an interruption changes nothing
            work = stage.run(work, context)
    assert work.done is not None
    return work.done


def _again(work: Work, context: Context, recipe: Recipe) -> Compressed:
    """A run of another recipe on what is left of the network."""
    check_call(recipe, work.evaluate, None)
    again = Work(
        recipe, work.train, work.task, work.evaluate, work.model, work.model, work.teacher, metric=work.metric,
        base=work.base,
    )  # fmt: skip
    return _run(again, context)
