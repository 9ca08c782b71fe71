"""Every rule by the name that a recipe gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fewbits.errors import RecipeError, did_you_mean
from fewbits.train.rules._backprop import backprop
from fewbits.train.rules._options import checked
from fewbits.train.rules._rule import Rule


@checked("backprop")
def _backprop() -> Rule:
    return backprop


RULES: dict[str, Callable[..., Rule]] = {
    "backprop": _backprop,
}
"""Factories by name, called with options. A row more is a rule more; ``tests/contract`` runs over all of them."""


def rule_of(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A rule by its name.

    Raises:
        RecipeError: no such rule or option, or an impossible one.
    """
    if name not in RULES:
        raise RecipeError(f"no rule {name!r}{did_you_mean(name, RULES)} (there are {', '.join(RULES)})")
    return RULES[name](**(options or {}))
