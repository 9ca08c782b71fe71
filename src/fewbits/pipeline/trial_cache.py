"""The outcomes of finished pilots beside a run's state, so that an interruption costs one of them at most."""

from __future__ import annotations

import json
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from fewbits import codec
from fewbits.errors import DataError
from fewbits.recipe import Recipe

Outcome = tuple[int, float] | str
"""Bytes and percent, or why the target is out of reach."""


def trial_cache_file(state_file: Path) -> Path:
    """Where the notes of a run are kept."""
    return state_file.with_name(f"{state_file.name}.pilots")


def noted(place: Path | None, recipe: Recipe) -> dict[str, Outcome]:
    """What a file of outcomes says; nothing where there is none.

    Raises:
        DataError: the file is damaged, or belongs to another recipe.
    """
    if place is None or not place.exists():
        return {}
    try:
        values = json.loads(codec.read(place))
        whose, outcomes = values["recipe"], values["outcomes"]
        known: dict[str, Outcome] = {
            trial: found if isinstance(found, str) else (int(found[0]), float(found[1]))
            for trial, found in outcomes.items()
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise DataError(f"{place} is not a list of pilots; delete it to start anew") from None
    if whose != recipe.model_dump_json():
        raise DataError(f"{place} belongs to another recipe; delete it to start anew")
    return known


class TrialCache:
    """Outcomes by the recipe of their training, the main process's on every process.

    Args:
        place: the file; ``None`` keeps nothing.

    Raises:
        DataError: the file is damaged, or belongs to another recipe.
    """

    def __init__(self, place: Path | None, recipe: Recipe, accelerator: Accelerator) -> None:
        self.place, self.recipe, self.accelerator = place, recipe.model_dump_json(), accelerator
        found = [noted(place, recipe) if accelerator.is_main_process else {}]
        broadcast_object_list(found)
        self.known: dict[str, Outcome] = found[0]

    def __contains__(self, trial: Recipe) -> bool:
        return trial.model_dump_json() in self.known

    def __getitem__(self, trial: Recipe) -> Outcome:
        return self.known[trial.model_dump_json()]

    def __setitem__(self, trial: Recipe, outcome: Outcome) -> None:
        """Note an outcome, on disk.

        Raises:
            FileError: it cannot be written.
        """
        self.known[trial.model_dump_json()] = outcome
        if self.place is not None and self.accelerator.is_main_process:
            codec.write(self.place, json.dumps({"recipe": self.recipe, "outcomes": self.known}).encode())
