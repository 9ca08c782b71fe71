"""The recipe reference: every key is in it, and every key says what it means."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

import recipe_reference as reference
from fewbits.recipe import Recipe


class Inner(BaseModel):
    """An inner section.

    Attributes:
        low, high: both ends, in
            two lines.
    """

    low: Annotated[float, Field(gt=0)] | None = None
    high: int = 3


class Outer(Inner):
    """An outer one, see :class:`~a.b.Other`.

    More of it.

    Attributes:
        inner: what lies within.
        way: ``one`` or ``two``.
    """

    inner: Inner | None = None
    way: Literal["one", "two"] = "one"
    names: tuple[str, ...] = ("*",)
    alias_of: Annotated[bool, Field(alias="with")]
    low: Annotated[float, Field(gt=0)] | None = 0.5


def test_a_table_of_a_schema() -> None:
    assert reference.intro(Outer) == "An outer one, see `Other`.\n\nMore of it."
    assert reference.table("a", Outer).splitlines()[2:] == [
        "| `low` | number (more than 0) or null | `0.5` | both ends, in two lines. |",
        "| `high` | whole number | `3` | both ends, in two lines. |",
        "| `inner` | section or null | `null` | what lies within. See [a.inner](#ainner). |",
        "| `way` | `one`, `two` | `one` | `one` or `two`. |",
        '| `names` | list of text | `["*"]` |  |',
        "| `with` | yes or no | must be given |  |",
    ]
    assert [path for path, _ in reference.sections(Outer)] == ["", "inner"]


def test_every_key_of_a_recipe_is_there_and_says_what_it_means() -> None:
    page = reference.page()
    for path, model in reference.sections(Recipe):
        assert not path or f"\n## {path}\n" in page
        for name, field in model.model_fields.items():
            assert f"\n| `{field.alias or name}` | " in page
    assert not reference.undescribed()


def test_its_links_lead_to_its_headings() -> None:
    page = reference.page()
    titles = {reference.anchor(title) for title in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= titles


@pytest.mark.parametrize("role", [":func:`~fewbits.assign.ecq`", ":class:`ecq`"])
def test_roles_of_docstrings_become_code(role: str) -> None:
    assert reference.plain(f"see {role}.") == "see `ecq`."


def test_blocks_of_code_in_docstrings_lose_the_doubled_colon() -> None:
    assert reference.plain("Use it::\n\n    a::b\n\n::\n\n    c\n") == "Use it:\n\n    a::b\n\n\n\n    c\n"
