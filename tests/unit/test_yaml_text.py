"""What a recipe's YAML reads as."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import RecipeError
from fewbits.recipe import make, names, text_of
from fewbits.recipe.yaml_text import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("3.", 3.0),
        (".inf", math.inf),
        ("1_000", 1000),
        ("+7", 7),
        ("2:4", "2:4"),
        ("05", "05"),
        ("no", "no"),
        ("On", "On"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        (".", "."),
        ("1.2.3", "1.2.3"),
    ],
)
def test_a_word_is_read_as_it_is_meant(text: str, value: Any) -> None:
    found = parse(text)
    assert type(found) is type(value)
    assert found == value


@given(st.one_of(st.floats(allow_nan=False), st.integers()))
def test_numbers_come_back(value: float) -> None:
    text = repr(value).replace("inf", ".inf")
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_shipped_recipes_read_as_before() -> None:
    for name in names():
        assert parse(text_of(name)) == yaml.safe_load(text_of(name))


@pytest.mark.parametrize("text", ["a: 1\na: 2", "b: {c: 1, d: 2, c: 3}", "- {1: a, 1: b}"])
def test_a_key_twice_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(RecipeError, match=r"twice, again in line \d"):
        parse(text)


def test_merged_keys_may_be_overridden() -> None:
    assert parse("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}")["b"] == {"k": 3, "l": 2}


@pytest.mark.parametrize(
    "values",
    [
        {"max_drop": True},
        {"seed": False},
        {"train": {"epochs": True}},
        {"assign": {"lam": False}},
        {"seed": 2**63},
        {"seed": -1},
        {"train": {"epochs": float("inf")}},
        {"train": {"lr": float("nan")}},
        {"output": "net.fwe"},
        {"output": ".few"},
        {"output": "a\n.few"},
    ],
)
def test_what_no_key_can_mean(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        make(values)


def test_truth_values_stay_where_they_are_meant() -> None:
    assert make({"train": {"learn": True}, "measure": {"probe": True}}).train.learn
    assert make({"data": {"name": "x", "augment": False}}).data is not None
