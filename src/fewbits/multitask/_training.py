"""Training on many tasks in parallel, through the one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from fewbits.errors import RecipeError, UnsupportedError, did_you_mean
from fewbits.multitask._feeding import TaskBatches
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._optimizers import TaskOptimizers
from fewbits.multitask._tasks import Tasks
from fewbits.recipe.training import Training
from fewbits.task import Classification, Task
from fewbits.train import KeptTraining, Objective, Rule, Store, fit, plain
from fewbits.train.learning import learning, settled
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.rules import RULES

OPTIMIZERS = ("one", "per-task")


def train_tasks(
    net: SegmentNet,
    loaders: Mapping[str, Any],
    training: Training,
    *,
    seed: int,
    tasks: Mapping[str, Task] | None = None,
    order: str = "round-robin",
    each: int = 10,
    optimizers: str = "one",
    kept: KeptTraining | None = None,
    penalty: Callable[[], Tensor] | None = None,
    rule: Rule | None = None,
) -> None:
    """Train a network on some or all of its tasks in parallel, in place.

    Args:
        loaders: batches ``(x, targets)`` by task; tasks of the network without any are not trained.
        training: of the loop; an epoch has the batches of all tasks. seed: of everything that is drawn.
        tasks: what each task's outputs are for; default: classification.
        order, each: how tasks take turns; see :class:`TaskBatches`.
        optimizers: ``one`` for all tasks, or one ``per-task``, as PaRT has them.
        kept: keeps the state of the training, and has what an interrupted one left.
        penalty: a scalar that is added to the loss of each batch.
        rule: of one's own, such as :data:`pcgrad`, in place of the one that ``training`` names.

    Raises:
        RecipeError: data of no task of the network or of one that is frozen, an unknown word, or a penalty with a rule
            that does not follow it. UnsupportedError: several processes.
        Else as :func:`fewbits.train.fit`.
    """
    if optimizers not in OPTIMIZERS:
        raise RecipeError(
            f"optimizers is one of {', '.join(OPTIMIZERS)}, got {optimizers!r}{did_you_mean(optimizers, OPTIMIZERS)}"
        )
    for name in (*loaders, *(tasks or {})):
        net.path(name)
    for name in loaders:
        if not any(p.requires_grad for p in net.parameters_of(name)):
            raise RecipeError(f"all that task {name!r} uses is frozen: leave its data out, or unfreeze its parameters")
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise UnsupportedError(
            "tasks are trained in one process: each step uses other weights; start it without launch"
        )
    training = settled(training)
    if penalty is not None and rule is None:
        check_whole_loss(training, "a penalty")
    rule = rule or learning(training)
    kept = kept or KeptTraining(Store(None, "", accelerator), "tasks")
    aim = Tasks({name: (tasks or {}).get(name, Classification()) for name in net.tasks})
    numbers = [net.tasks.index(name) for name in loaders]
    data = TaskBatches(loaders, order, each=each, seed=seed, numbers=numbers)
    set_seed(seed)
    groups = partial(parameter_groups, training=training)
    make = partial(optimizer_of, training=training)
    optimizer = make(groups(net)) if optimizers == "one" else TaskOptimizers(net, make, groups)
    start = kept.begin(net, optimizer)
    objective = plain(aim, training.label_smoothing)
    if penalty is not None:
        objective = _with(objective, penalty)
    fit(
        net, data, objective, optimizer, training, callback=kept, accelerator=accelerator, start=start, task=aim,
        rule=rule,
    )  # fmt: skip


def check_whole_loss(training: Training, what: str) -> None:
    """Refuse what is added to the loss of a batch where the rule would not follow it.

    Raises:
        RecipeError: such a rule; the message names those that can be taken.
    """
    row = RULES.get(training.rule.name)
    if row is not None and not row.whole_loss:
        known = ", ".join(name for name, other in RULES.items() if other.whole_loss)
        raise RecipeError(
            f"{what} is part of the loss of each batch, and {training.rule.name} learns from outputs alone; rules that "
            f"follow the whole loss: {known}"
        )


def _with(objective: Objective, penalty: Callable[[], Tensor]) -> Objective:
    return lambda outputs, batch: objective(outputs, batch) + penalty()
