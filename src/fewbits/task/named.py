"""A task by its name, as recipes write it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fewbits.errors import RecipeError, did_you_mean
from fewbits.task._binary import Binary, MultiLabel
from fewbits.task._regression import Regression
from fewbits.task._segmentation import Segmentation, Tokens
from fewbits.task._soft import SoftLabels
from fewbits.task._task import Task
from fewbits.task.classification import Classification

TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "binary": Binary,
    "multi-label": MultiLabel,
    "soft-labels": SoftLabels,
    "regression": Regression,
    "segmentation": Segmentation,
    "tokens": Tokens,
}


def task_of(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """A task that fewbits knows.

    Raises:
        RecipeError: an unknown name or option; the message says what there is.
    """
    if name not in TASKS:
        raise RecipeError(
            f"no task is called {name!r}{did_you_mean(name, TASKS)} ({', '.join(TASKS)}; in Python also "
            "Task(loss=..., metric=...) of one's own, for detection for example)"
        )
    maker, given = TASKS[name], dict(options or {})
    valid = list(inspect.signature(maker).parameters)
    for option in given:
        if option not in valid:
            known = f"it has: {', '.join(valid)}" if valid else "it has none"
            raise RecipeError(f"task {name} has no option {option!r}{did_you_mean(option, valid)} ({known})")
    return maker(**given)
