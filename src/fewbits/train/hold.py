"""Training under a plan: scores, gradients, update, new assignment, in the order of ECQx (fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewbits.assign import Assigner, State, gradient_scale, with_codebooks, with_steps
from fewbits.attach import ClusteredWeight, Holder, Parametrized, background, held
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.measure.scorer import Scorer, TrainingStep
from fewbits.plan import Plan
from fewbits.recipe.training import Finetuning
from fewbits.train.group_lasso import GroupLasso
from fewbits.train.loop import Callback, sync_buffers

AssignerAt = Callable[[float, float], Assigner]
"""The assigner for a lambda and the share of the training that is over; all of them share one kind of state."""


def next_round(done: int, total: int, rounds: int) -> int:
    """The first step after ``done`` of ``total`` that ends one of ``rounds`` equal parts, or a part of a step."""
    return -(-(done * rounds // total + 1) * total // rounds)


class Ramp(NamedTuple):
    """Lambda on the way from one value, ``since`` a step, to another: geometrically, from 0 as from a hundredth."""

    begin: float
    since: int
    end: float

    def at(self, done: int, until: int) -> float:
        """Lambda after ``done`` steps, of which ``until`` end the way."""
        if done >= until or self.end == self.begin:
            return self.end
        way = (done - self.since) / (until - self.since)
        begin, end = self.begin or self.end / 100, self.end or self.begin / 100
        return begin * (end / begin) ** way


class QATCallback(Callback):
    """Keeps the plan of an attached network up to date while it trains.

    Args:
        model: the attached network.
        assigner_at: the assigner for a lambda at a share of the training.
        state: the assigner's state, from the assignment that was attached.
        lam: strength of the entropy term until changed.
        scorer: measures what the assigner weighs with; ``None`` for plain ECQ.
        every: steps from one measurement to the next.
        settings: of the fine-tuning run.
        on_round: called as ``on_round(holding, steps, total)`` at every round and after the last step.
        on_step: called likewise after every step, before ``on_round``.
        rounds: how many rounds.
        optimizer: over :func:`finetuning_groups`: learning rates of steps follow the steps that an assigner widens.
        holder: how the plan is held; default: as weights of the network itself.
        settles: whether assignments stay at the end of the training, while floats go on.
        lasso: what draws groups of weights to zero, or ``None``.
    """

    def __init__(
        self,
        model: nn.Module,
        assigner_at: AssignerAt,
        state: State,
        lam: float,
        *,
        scorer: Scorer | None,
        every: int,
        settings: Finetuning,
        accelerator: Accelerator,
        on_round: Callable[[QATCallback, int, int], None],
        rounds: int,
        optimizer: torch.optim.Optimizer | None = None,
        holder: Holder | None = None,
        settles: bool = True,
        on_step: Callable[[QATCallback, int, int], None] | None = None,
        lasso: GroupLasso | None = None,
    ) -> None:
        self.model, self.assigner_at, self.state, self.lam = model, assigner_at, state, lam
        self.scorer, self.every, self.settings = scorer, every, settings
        self.accelerator, self.on_round, self.rounds = accelerator, on_round, rounds
        self.holder, self.settles, self.on_step = holder or Parametrized(), settles, on_step
        self.lasso = lasso
        self.settled = False
        self.steps = 0
        self.share = 0.0
        self.loss = 0.0
        self.optimizer = optimizer
        self.ramp: Ramp | None = None
        self._scores: Mapping[str, Tensor] | None = None

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The background weights."""
        return background(self.model)

    def plan_at(self, lam: float) -> tuple[Plan, State]:
        """The assignment of the weights as of now under another lambda, without holding it."""
        return self.assigner_at(lam, self.share).update(self.weights, None, self.state)

    def take(self, lam: float, made: tuple[Plan, State] | None = None) -> None:
        """Hold the assignment under ``lam``, which may have been ``made`` already."""
        self.lam, self.ramp = lam, None
        plan, self.state = made or self.plan_at(lam)
        self.hold(plan)

    def toward(self, lam: float) -> None:
        """Move lambda from where it is to ``lam``, which it has at the next round."""
        self.ramp = Ramp(self.lam, self.steps, lam)

    @property
    def measures(self) -> bool:
        """Whether this step measures scores."""
        return self.scorer is not None and not self.settled and self.steps % self.every == 0

    @property
    def draws(self) -> bool:
        """Whether this step draws groups of weights to zero."""
        return self.lasso is not None and not self.settled and self.lasso.acts(self.share)

    def watch(self) -> AbstractContextManager[Any]:
        return self.scorer.watch() if self.scorer is not None and self.measures else nullcontext()

    def watches(self) -> bool:
        return self.scorer is not None and self.scorer.watches and self.measures

    def keeps_graph(self) -> bool:
        return self.scorer is not None and self.scorer.keeps_graph and self.measures

    def alone(self) -> Iterable[nn.Parameter]:
        return () if self.measures or self.settings.gradient_scale or self.draws else self.weights.values()

    def unused(self) -> Iterable[nn.Parameter]:
        if not self.settled:
            return ()
        weights, holders = self.weights, held(self.model)  # the clusters stay, so the weights behind them stay, too
        return [weights[name] for name, holder in holders.items() if isinstance(holder, ClusteredWeight)]

    def before_update(self, outputs: Tensor, batch: Any) -> None:
        weights = self.weights
        self._scores = None
        for weight in self.unused():
            weight.grad = None
        if self.settled:
            return
        if self.scorer is not None and self.measures:
            # a weight that the loss of this batch does not reach has none
            gradients = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}
            scores = self.scorer.scores(TrainingStep(outputs, batch, weights, gradients))
            if self.accelerator.num_processes > 1:  # every process must make the same plan
                scores = self.accelerator.reduce(scores, reduction="mean")
            self._scores = scores
        if self.lasso is not None and self.draws:
            self.lasso.add(weights)
        if self.settings.gradient_scale:
            for name, holder in held(self.model).items():
                gradient = weights[name].grad
                if gradient is not None and isinstance(holder, ClusteredWeight):
                    gradient.mul_(gradient_scale(holder.entry()).to(gradient.device))

    def after_update(self, done: int, total: int, loss: float) -> None:
        self.steps, self.share, self.loss = done, done / total, loss
        if self.settings.damping and not self.settled:
            self._damp()
        self._forbid()
        if self.settings.learn:
            self._learnt()
        if not self.settled:
            if self.ramp is not None:
                self.lam = self.ramp.at(done, next_round(self.ramp.since, total, self.rounds))
            plan, self.state = self.assigner_at(self.lam, self.share).update(self.weights, self._scores, self.state)
            self.hold(plan)
            del plan  # a round needs the memory
        if self.on_step is not None:
            self.on_step(self, done, total)
        if done in (total, next_round(done - 1, total, self.rounds)):
            sync_buffers(self.model, self.accelerator)
            sync_ranges(self.model, self.accelerator)
            self.on_round(self, done, total)

    @torch.no_grad()
    def _damp(self) -> None:
        """Weights near a boundary swing between two clusters, and the network never sees what it trains for."""
        weights = self.weights
        for name, holder in held(self.model).items():
            if isinstance(holder, ClusteredWeight):
                weights[name].lerp_(holder(weights[name]), self.settings.damping)

    @torch.no_grad()
    def _forbid(self) -> None:
        """Momentum and weight decay move weights without a gradient, too: what may not come back is set to zero."""
        for name, weight in self.weights.items():
            mask = self.state[name].mask
            if mask is not None:
                weight.masked_fill_(~mask.to(weight.device), 0.0)

    @torch.no_grad()
    def hold(self, plan: Plan) -> None:
        """Compute with ``plan`` from now on, until the next assignment."""
        steps = [h.table for h in held(self.model).values() if isinstance(h, ClusteredWeight) and h.uniform]
        before = [float(step) for step in steps] if self.settings.learn else []
        self.holder.update(self.model, plan)
        for step, size in zip(steps, before, strict=False):
            self._rescale(step, float(step) / size)
        self._forbid()

    def _rescale(self, table: nn.Parameter, ratio: float) -> None:
        """A step's learning rate is relative to its size."""
        groups = [] if self.optimizer is None or ratio == 1.0 else self.optimizer.param_groups
        for group in groups:
            if group["params"][0] is table:
                group["initial_lr"] = group.get("initial_lr", group["lr"]) * ratio

    @torch.no_grad()
    def _learnt(self) -> None:
        """Hand trained steps and centroids back to the assigner."""
        steps: dict[str, float] = {}
        books: dict[str, tuple[float, ...]] = {}
        for name, holder in held(self.model).items():
            if not isinstance(holder, ClusteredWeight):
                continue
            if holder.uniform:
                holder.table.clamp_(min=torch.finfo(torch.float32).tiny)  # no floor for weights that are small
                steps[name] = float(holder.table)
            else:
                books[name] = holder.ordered_codebook()
        self.state = with_codebooks(with_steps(self.state, steps), books)


def finetuning_groups(model: nn.Module, settings: Finetuning) -> list[dict[str, Any]]:
    """Background weights, everything else, and what grids are made of, each relative to its own size.

    Those are step sizes, codebooks, and ranges of activations that are trained.
    """
    weights = list(background(model).values())
    grids = []
    for holder in held(model).values():
        if isinstance(holder, ClusteredWeight):
            grids.append((holder.table, float(holder.table.detach().abs().max())))
    for module in model.modules():
        if isinstance(module, RangedQuantizer):
            size = float(module.high.detach() - module.low.detach())
            grids += [(module.low, size), (module.high, size)]
    taken = {id(p) for p in (*weights, *(grid for grid, _ in grids))}
    others = [p for p in model.parameters() if id(p) not in taken and p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": others, "lr": settings.lr_floats or settings.lr, "weight_decay": 0.0},
    ]
    for grid, size in grids:
        if grid.requires_grad:
            groups.append({"params": [grid], "lr": settings.lr_step_size * size, "weight_decay": 0.0})
    return groups


@torch.no_grad()
def sync_ranges(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the mean of the activations' ranges, which each has from its own batches."""
    if accelerator.num_processes > 1:
        for module in model.modules():
            if isinstance(module, RangedQuantizer):
                for end in (module.low, module.high):
                    end.copy_(accelerator.reduce(end.detach(), reduction="mean"))
