"""The rule that a training names, and the settings that go with it."""

from __future__ import annotations

from typing import TypeVar

from fewbits.errors import RecipeError
from fewbits.recipe.training import Pretraining, Training
from fewbits.train.rules import RULES, Rule, rule_of

Settings = TypeVar("Settings", bound=Training)

_APPLIED = {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "schedule": "constant"}


def learning(training: Training, section: str = "") -> Rule:
    """The rule of a training.

    Args:
        section: of the recipe, for messages.

    Raises:
        RecipeError: no such rule or option.
    """
    try:
        return rule_of(training.rule.name, training.rule.options)
    except RecipeError as error:
        raise RecipeError(f"{section}.rule: {error}" if section else str(error)) from None


def settled(training: Settings) -> Settings:
    """A training in which settings that were left open are those that its rule wants.

    A rule with steps of its own is applied as it is; without targets for hidden layers, a readout follows.
    """
    row, changes = RULES.get(training.rule.name), {}  # no such rule: `learning` says so
    if row is not None and row.own_steps:
        changes = {key: value for key, value in _APPLIED.items() if key not in training.model_fields_set}
    if isinstance(training, Pretraining) and training.readout is None:
        changes["readout"] = {"name": "ridge" if row is not None and row.features else "none"}
    return type(training).model_validate(training.model_dump(exclude_unset=True) | changes) if changes else training
