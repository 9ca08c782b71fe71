"""What is wrong with a value of a recipe, in the words of fewbits instead of pydantic's."""

from __future__ import annotations

import re
from typing import Any

from fewbits.errors import did_you_mean

KINDS = {
    "float": "is a number",
    "int": "is a whole number",
    "bool": "is true or false",
    "string": "is text",
    "list": "is a list",
    "tuple": "is a list",
    "dict": "is a section, with keys of its own",
    "model": "is a section, with keys of its own",
    "finite": "is a finite number",
}
"""By the first word of pydantic's names of errors, as ``float_parsing`` and ``float_type``."""
LIMITS = {"gt": "is above", "ge": "is at least", "lt": "is below", "le": "is at most"}


TYPES = ("str", "int", "float", "bool")
"""Of what pydantic tried, at the end of the place of an error."""


def either(sentences: list[str]) -> list[str]:
    """``x is text, got 1.5`` and ``x is a whole number, got 1.5`` as one: pydantic says each type that would do."""
    found: dict[tuple[str, str], list[str]] = {}
    for sentence in sentences:
        place, _, rest = sentence.partition(" is ")
        words, told, got = rest.rpartition(", got ")
        found.setdefault((place, got) if told else (sentence, ""), []).append(words)
    return [f"{place} is {' or '.join(words)}, got {got}" if got else place for (place, got), words in found.items()]


def said(problem: Any) -> str:
    """What comes behind the key: `` is one of adam, sgd, got 'adan'; did you mean 'adam'?``, or a colon and more.

    Args:
        problem: one of ``ValidationError.errors()``.
    """
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "missing":
        return " is missing"
    if kind == "invalid_key":
        return " is a key, and keys are text"
    if kind == "value_error":
        return f": {problem['msg'].removeprefix('Value error, ')}"
    got = f", got {given!r:.60}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(given, known) if isinstance(given, str) else ""
        return f" is one of {', '.join(known)}{got}{hint}" if known else f" is {context['expected']}{got}"
    for limit, words in LIMITS.items():
        if limit in context and kind.startswith(("greater", "less")):
            return f" {words} {context[limit]:g}{got}"
    what, _, how = kind.partition("_")
    words = KINDS.get(what, "") if how in ("type", "parsing", "from_float", "number", "attributes_type") else ""
    if kind == "string_pattern_mismatch":
        return f" is like {context['pattern']}{got}"
    return f" {words}{got}" if words else f": {problem['msg']}"
