"""What the options of a rule are checked with, wherever they come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec

from pydantic import ConfigDict, Field, ValidationError, validate_call

from fewbits.errors import RecipeError, did_you_mean
from fewbits.recipe.problems import said
from fewbits.train.rules._rule import Rule

P = ParamSpec("P")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


def checked(name: str) -> Callable[[Callable[P, Rule]], Callable[P, Rule]]:
    """Makes a factory of rules check its options against their annotations.

    Args:
        name: of the rule, in errors.
    """

    def over(factory: Callable[P, Rule]) -> Callable[P, Rule]:
        known = inspect.signature(factory).parameters
        call = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(factory)

        @wraps(factory)
        def make(*args: P.args, **kwargs: P.kwargs) -> Rule:
            for key, value in kwargs.items():
                if key not in known:
                    told = f"it has {', '.join(known)}" if known else "it has none"
                    raise RecipeError(f"rule {name}: no option {key!r}{did_you_mean(key, known)} ({told})")
                if isinstance(value, bool) and known[key].annotation not in ("bool", bool):
                    raise RecipeError(f"rule {name}: {key} is no truth value, got {str(value).lower()}")
            try:
                return call(*args, **kwargs)
            except ValidationError as error:
                first: Any = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise RecipeError(f"rule {name}: {where}{said(first)}") from None

        return make

    return over
