"""The sweep section of a recipe: what it refuses, and what a setting changes."""

from __future__ import annotations

from typing import Any

import pytest

from fewbits.errors import RecipeError
from fewbits.recipe import make
from fewbits.recipe.variation import changed


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, r"sweep\.over is missing"),
        ({"over": {}}, "name at least one key"),
        ({"over": ["assign.bits"]}, "as a mapping"),
        ({"over": {"assign.bits": []}}, r"assign\.bits: the list of values is empty"),
        ({"over": {"assign.bits": 3}}, "a list of values, or a range"),
        ({"over": {"assign.lam": {"fro": 1, "to": 2}}}, r"assign\.lam: .* not 'fro'; did you mean 'from'"),
        ({"over": {"assign.lam": {"from": 1}}}, r"assign\.lam: to is missing"),
        ({"over": {"assign.lam": {"from": 2, "to": 1}}}, "'from' must lie below 'to'"),
        ({"over": {"assign.lam": {"from": 0, "to": 1, "log": True}}}, "must begin above 0"),
        ({"over": {"assign.lam": {"from": 1, "to": 4, "log": True, "step": 1}}}, "'log' or 'step', not both"),
        ({"over": {"train.learn": {"from": False, "to": True}}}, r"\[false, true\]"),
        ({"over": {"target": {"from": "3 KP", "to": "9 KB"}}}, "not a size"),
        ({"over": {"network.name": ["lenet-5"]}}, "one float network"),
        ({"over": {"data.normalise": [None]}}, "one float network"),
        ({"over": {"seed": [0, 1]}}, "choose luck"),
        ({"over": {"output": ["a"]}}, "not a setting"),
        ({"over": {"prune": [None], "prune.sparsity": [0.5]}}, "one would overwrite the other"),
        ({"over": {"assign.bits": [2]}, "objectives": ["bytes", "bytes"]}, "must be different"),
        ({"over": {"assign.bits": [2]}, "trails": 3}, r"'sweep\.trails'; did you mean 'trials'"),
    ],
)
def test_sections_are_checked(section: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make({"sweep": section})


def test_a_section_comes_back_from_plain_data() -> None:
    over = {"assign.bits": [2, 3], "target": {"from": "3 KB", "to": "0.03 MB", "log": True}, "prune": [None, {"a": 1}]}
    recipe = make({"sweep": {"over": over, "trials": 7}})
    target = recipe.sweep.over["target"]
    assert (target.low, target.high) == (3000, 30_000)
    assert make(recipe.model_dump(by_alias=True, exclude_unset=True)) == recipe
    assert type(recipe).model_validate_json(recipe.model_dump_json(by_alias=True, exclude_unset=True)) == recipe


def test_a_setting_changes_what_it_names_and_nothing_else() -> None:
    values = {"assign": {"bits": 4, "options": {"p": 0.4}}, "target": "5 KB"}
    found = changed(values, {"assign.options.p": 0.1, "prune": {"sparsity": 0.5}, "train.lr": 0.1})
    assert found == {
        "assign": {"bits": 4, "options": {"p": 0.1}},
        "target": "5 KB",
        "prune": {"sparsity": 0.5},
        "train": {"lr": 0.1},
    }
    assert values == {"assign": {"bits": 4, "options": {"p": 0.4}}, "target": "5 KB"}, "the recipe itself was changed"


def test_a_new_lambda_goes_before_the_budget_and_a_new_budget_before_lambda() -> None:
    make(changed({"target": "5 KB", "max_drop": 1}, {"assign.lam": 0.1}))
    assert changed({"target": "5 KB", "max_drop": 1}, {"assign.lam": 0.1}) == {"assign": {"lam": 0.1}}
    assert changed({"assign": {"lam": 0.1}}, {"target": 900}) == {"assign": {}, "target": 900}


def test_a_key_below_what_is_no_section_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"assign\.bits\.low: bits is 4, not a section"):
        changed({"assign": {"bits": 4}}, {"assign.bits.low": 2})
