"""A compression around a training loop of one's own."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator
from accelerate.utils.operations import recursively_apply
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.attach import fold, release
from fewbits.attach.plain import check_finite, plain_copy, unwrapped
from fewbits.channels.load import load_plan
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.pipeline._candidates import Evaluate
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._finish import finish
from fewbits.pipeline._run import chosen_by, first_score, scoring
from fewbits.pipeline.check import check_call
from fewbits.pipeline.methods import integer_form_of
from fewbits.pipeline.parts import scored_by
from fewbits.pipeline.pruners import pruner_row
from fewbits.pipeline.stages import _state as state
from fewbits.pipeline.stages._hold import HeldTraining
from fewbits.pipeline.stages._work import Context, Progress, Work
from fewbits.recipe import Recipe
from fewbits.task import Batch, Inputs, Task
from fewbits.task.feed import Feed
from fewbits.train.checkpoint import Store
from fewbits.train.grids import with_hooks
from fewbits.train.learning import learning
from fewbits.train.loop import leave_unsent
from fewbits.train.rules import backprop

WHOLE = 1 << 31  # samples: relevance of all of a batch, by another pass, as the user's backward frees the graph


class Compressing:
    """A compression in the hands of somebody else's training loop; :func:`compressing` makes one."""

    def __init__(
        self, model: nn.Module, work: Work, context: Context, steps: int, optimizer: torch.optim.Optimizer | None
    ) -> None:
        self.model, self.work, self.steps = model, work, steps
        self.training = HeldTraining(work, context, model=model, optimizer=optimizer)
        self.owns_optimizer = optimizer is None
        self.inputs: Any = None
        self.outputs: Any = None
        self.done: Compressed | None = None
        self._open = self._gone_back = False
        self._frozen: set[str] = set()
        self._hooks = ExitStack()
        self._watching = ExitStack()
        self._begin = time.perf_counter()

    # -- the loop ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        self.training.prepare()
        self._open = True
        leave_unsent(self.model)
        if self.owns_optimizer:
            self.training.optimizer = None  # the loop has one, which the job need not know
        self.training.rounds.first(self.training.qat)

        # functions, as a copy of the model copies them by reference, and bound methods with all that they belong to
        def given(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.inputs = recursively_apply(  # what comes before this network has a graph of its own
                torch.Tensor.detach, args[0] if len(args) == 1 and not kwargs else Inputs(args, kwargs)
            )

        def gave(module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
            self.outputs = outputs if module.training else None

        self._hooks.callback(self.model.register_forward_pre_hook(given, with_kwargs=True).remove)
        self._hooks.callback(self.model.register_forward_hook(gave).remove)
        self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._watching.close()
        self._hooks.close()
        if self.training.grids is not None:
            self.training.grids.close()
        if self.done is None:  # the float weights as they are now, without the plan
            release(self.model)
        for name, parameter in self.model.named_parameters():
            if name in self._frozen:
                parameter.requires_grad_(False)

    def after_backward(self, targets: Any = None) -> None:
        """After the backward pass (of the last part, if gradients are accumulated), before the optimizer steps.

        Args:
            targets: of the last forward pass; relevance begins there. Methods without relevance need none.

        Raises:
            DataError: relevance, and no targets, or targets that do not fit the outputs. RecipeError: outside of the
                ``with``.
        """
        self._within("after_backward")
        self._watching.close()
        outputs, batch = None, Batch(self.inputs, targets)
        if self.relevance:
            if targets is None:
                raise DataError("relevance begins at the targets: job.after_backward(targets)")
            outputs = self.work.task.answer(self.outputs)
            self.work.task.check(outputs, batch)
        self.training.qat.before_update(outputs, batch)  # type: ignore[arg-type]
        self._gone_back = True

    def after_step(self, loss: float | Tensor = float("nan")) -> None:
        """After the optimizer stepped. ``loss`` is only told by progress.

        Raises:
            RecipeError: more steps than were announced, outside of the ``with``, or a step without the relevance that
                the method needs.
        """
        self._within("after_step")
        if self.relevance and not self._gone_back:
            raise RecipeError(
                f"{self.work.recipe.assign.method} measures relevance in this step: call job.after_backward(targets) "
                "between the backward pass and the optimizer's step"
            )
        self._gone_back, qat = False, self.training.qat
        if qat.steps >= self.steps:
            raise RecipeError(f"the loop goes beyond the {self.steps} steps that compressing(steps=...) was told")
        qat.after_update(qat.steps + 1, self.steps, float(loss.detach() if isinstance(loss, Tensor) else loss))
        self.outputs = None
        self._watch()

    def finish(self, evaluate: Evaluate | Iterable[Any] | None = None, *, metric: str | None = None) -> Compressed:
        """Choose what is written, write and decode it, and leave the compressed network in the model.

        Args:
            evaluate, metric: as of :func:`fewbits.compress`, where :func:`compressing` was not given them.

        Raises:
            BudgetError: no file is as small as the target. DataError: the network never computed anything. RecipeError:
                outside of the ``with``.
        """
        self._within("finish")
        rounds, qat = self.training.rounds, self.training.qat
        if self.inputs is None:
            raise DataError("the network has computed nothing since compressing() began, so there is nothing to check")
        self._watching.close()
        if qat.steps < self.steps:  # the loop ended early
            self.training.round(qat, self.steps, self.steps)
        if evaluate is not None:
            feed = Feed(self.work.full)
            score, scale = scoring(evaluate, metric, self.work.task, self.work.full, feed)
            assert score is not None
            before = first_score(score, self.work.full, checked=metric is None and callable(evaluate))
            self.work = replace(self.work, evaluate=score, metric=scale, before=before)
            self.training.candidates.evaluate = score
            rounds.before, rounds.metric = before, scale
        with torch.no_grad():
            done = finish(rounds, qat, [Batch(self.inputs, None)], time.perf_counter() - self._begin)
        self.done = replace(done, report=done.report.told(self.work.metric))
        training = self.model.training
        fold(self.model)
        load_plan(self.model, self.done.plan)
        self.model.train(training)
        return self.done

    # -- going on ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that an interrupted loop goes on from, the model's tensors included: plain data and tensors."""
        made = self.training
        saved = state.saved(made.rounds, made.qat, made.optimizer, self.work.choice, None)
        return saved | {"grids": None if made.grids is None else made.grids.own.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; inside the ``with``, before the first step.

        Raises:
            RecipeError: one of the two loops trains step sizes (``optimizer=``), and the other does not.
        """
        made, grids = self.training, saved.get("grids")
        if (made.grids is None) is not (grids is None):
            began, now = ("without", "with") if grids is None else ("with", "without")
            raise RecipeError(f"the state is of a loop {began} optimizer=, and this one is {now}: go on as it began")
        state.restore(saved, made.rounds, made.qat, made.optimizer)
        if made.grids is not None and grids is not None:
            made.grids.own.load_state_dict(grids)

    def _within(self, what: str) -> None:
        if not self._open:
            raise RecipeError(
                f"job.{what}() is called outside of 'with fb.compressing(...) as job:', where the model has its float "
                "weights: indent the call"
            )

    @property
    def relevance(self) -> bool:
        """Whether this step measures relevance."""
        return scored_by(self.work.recipe) == "relevance" and self.training.qat.measures

    @property
    def line(self) -> str:
        """Size, zeros and loss as of the last round."""
        return self.training.rounds.line(self.training.qat.loss)

    def _watch(self) -> None:
        self._watching.close()
        self._watching.enter_context(self.training.qat.watch())


def compressing(
    model: nn.Module,
    recipe: Recipe | Mapping[str, Any] | str | Path = "ecq-4bit",
    *,
    steps: int,
    target: str | int | None = None,
    max_drop: float | None = None,
    evaluate: Evaluate | Iterable[Any] | None = None,
    metric: str | None = None,
    task: Task | Mapping[str, Any] | str | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
    accelerator: Accelerator | None = None,
) -> Compressing:
    """Compress a network in a training loop of one's own: any loss, optimizer, schedule, precision and accumulation.

    ::

        with fb.compressing(model, target="200 KB", steps=len(loader) * epochs, optimizer=optimizer) as job:
            for x, y in loader:
                loss = my_loss(model(x), y)
                loss.backward()
                job.after_backward(y)
                optimizer.step()
                optimizer.zero_grad()
                job.after_step(loss)
            small = job.finish(evaluate)

    The model is trained in place, under the plan. After :meth:`Compressing.finish` it is the compressed network; where
    the ``with`` ends without, it has its float weights as they are then. Wrap it for several processes inside.

    Args:
        model: a plain float32 network. Optimizers made before or after see the same parameters.
        recipe: as of :func:`fewbits.compress`. Of its section ``train`` only ``settle``, ``arrive``, ``gradual``,
            ``damping``, ``gradient_scale``, ``learn`` and ``lr_step_size`` count: all else is the loop's.
        steps: optimizer steps of the loop.
        target, max_drop, evaluate, metric, task: as of :func:`fewbits.compress`; the task says where relevance
            begins, and the metric over batches.
        optimizer: of the loop; step sizes and centroids are stepped with it (``train.learn``), at rates of their own
            that fall as its first group's. Without it they are not trained.
        progress: called after every round.

    Raises:
        RecipeError: what needs a loop of fewbits: channels, integers, pilot runs, bits: auto, scores before training.
        UnsupportedError: a network that :func:`fewbits.compress` would have made plain first.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RecipeError(f"steps is a whole number of at least 1, got {steps!r}")
    chosen, aim = chosen_by(recipe, target, max_drop, task)
    learn = chosen.train.learn and optimizer is not None
    if learn and optimizer is not None:
        with_hooks(optimizer)  # refused before the network is changed
    settings = chosen.train.model_dump() | {"learn": learn, "distill": 0.0, "teacher": None, "epochs": 1.0}
    samples = chosen.measure.samples or WHOLE
    measure = chosen.measure.model_dump() | ({"samples": samples} if scored_by(chosen) == "relevance" else {})
    chosen = chosen.updated(train=settings, pilots=0, measure=measure)
    check_call(chosen, evaluate, None)
    _check_parts(chosen)
    net = unwrapped(model)
    _check_plain(net)
    accelerator = accelerator or Accelerator()
    full = plain_copy(net).eval()
    feed = Feed(full)
    score, scale = scoring(evaluate, metric, aim, full, feed)
    before = None
    if score is not None:
        before = first_score(score, full, checked=metric is None and callable(evaluate))
    work = Work(chosen, None, aim, score, full, copy.deepcopy(full), full, before=before, metric=scale)
    context = Context(Store(None, "", accelerator), accelerator, progress)
    return Compressing(net, work, context, steps, optimizer)


def _check_parts(recipe: Recipe) -> None:
    """RecipeError for what cannot be done around somebody else's loop."""
    refused = {
        "base": recipe.base is not None,
        "channels": recipe.channels is not None,
        "ops": bool(recipe.ops),
        "activations, or assign.method int8": integer_form_of(recipe),
        "assign.bits: auto": recipe.assign.bits == "auto",
        "train.rule, as the loop itself is how the network learns,": learning(recipe.train) is not backprop,
        "prune by scores": recipe.prune is not None and pruner_row(recipe.prune).scores,
    }
    for what, asked in refused.items():
        if asked:
            raise RecipeError(f"a loop of one's own cannot have {what}: leave it out, or use fb.compress")


def _check_plain(model: nn.Module) -> None:
    """UnsupportedError for weights that something stands in for, or of another type; NonFiniteError as always."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise UnsupportedError(
                f"{path or type(model).__name__}: a weight is parametrized; fold it before a loop of your own: "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise UnsupportedError(f"{name} has the type {parameter.dtype}; only float32 is compressed: model.float()")
    check_finite(model)
