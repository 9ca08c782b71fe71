"""The recipe reference: every key with its type, default and meaning, from the schema and its docstrings."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fewbits.recipe import Recipe
from roles import plain

Model = type[BaseModel]

_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")
_SECTION = re.compile(r"(Attributes|Args|Raises|Returns|Example|Examples):")
_LIMITS = {"ge": "at least {:g}", "gt": "more than {:g}", "le": "at most {:g}", "lt": "less than {:g}"}


def page() -> str:
    """The reference in Markdown: the recipe itself, then its sections in the order of its keys."""
    parts = [
        "# Recipe reference",
        "Every key, from the schema itself. Unknown keys are errors. A key without a default must be given.",
        "Dotted names are how `--set` and sweeps call a key: `--set train.epochs=3`.",
    ]
    known: dict[Model, str] = {}
    for path, model in sections(Recipe):
        parts.append(f"## {path or 'The recipe'}")
        if model in known and path:
            parts.append(f"The keys of [{known[model]}](#{anchor(known[model])}).")
            continue
        known.setdefault(model, path)
        parts += [intro(model), table(path, model)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(model: Model, path: str = "") -> Iterator[tuple[str, Model]]:
    """Dotted paths of the sections and their models, the outer one first."""
    yield path, model
    for name, field in model.model_fields.items():
        for inner in models(field.annotation):
            if inner is not model:
                yield from sections(inner, f"{path}.{key(name, field)}".lstrip("."))


def models(annotation: Any) -> list[Model]:
    """The sections that a value may be; the values of mappings and the members of unions included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def anchor(path: str) -> str:
    """Of a heading, as mkdocs makes it: dots fall away."""
    return re.sub(r"[^\w-]", "", path.lower())


def table(path: str, model: Model) -> str:
    """A row for each key."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    said = meanings(model)
    for name, field in model.model_fields.items():
        full = f"{path}.{key(name, field)}".lstrip(".")
        inner = models(field.annotation)
        meaning = said.get(name, "")
        if len(inner) == 1:
            meaning = f"{meaning} See [{full}](#{anchor(full)}).".strip()
        cells = [f"`{key(name, field)}`", kind(field), default(field), meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def default(field: FieldInfo) -> str:
    """The value without which a recipe does, in YAML's words; sections say that they have their own."""
    value = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, BaseModel):
        return "its own defaults"
    return f"`{in_yaml(value)}`"


def in_yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_yaml(v) for v in value)}]"
    words = {None: "null", True: "true", False: "false", "*": '"*"', "": '""'}
    return words[value] if isinstance(value, bool | str | None) and value in words else str(value)


def kind(field: FieldInfo) -> str:
    """The type of a key in words, with its limits."""
    return _limited(_kind(field.annotation), field.metadata)


def _limited(words: str, metadata: Iterable[Any]) -> str:
    limits = _limits(metadata)
    return f"{words} ({', '.join(limits)})" if limits else words


def _limits(metadata: Iterable[Any]) -> list[str]:
    found = []
    for limit in metadata:
        if isinstance(limit, FieldInfo):
            found += _limits(limit.metadata)
        found += [form.format(getattr(limit, name)) for name, form in _LIMITS.items() if hasattr(limit, name)]
    return found


def _kind(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _limited(_kind(args[0]), args[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in args)
    if origin in (tuple, list):
        return f"list of {_kind(args[0])}"
    if origin is dict:
        return f"mapping to {_kind(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {int: "whole number", float: "number", str: "text", bool: "yes or no", type(None): "null", Any: "any"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def meanings(model: Model) -> dict[str, str]:
    """What each key means: its ``description``, or its entry among the attributes of the docstrings."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            found |= _entries(part)
    return found | {name: field.description for name, field in model.model_fields.items() if field.description}


def intro(model: Model) -> str:
    """The docstring without its lists."""
    kept, listed = [], False
    for line in _lines(model):
        if _SECTION.fullmatch(line):
            listed = True
        elif listed and line and not line.startswith(" "):
            listed = False
        if not listed:
            kept.append(line)
    return _markdown("\n".join(kept).strip())


def _entries(model: Model) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    names: list[str] = []
    listed = False
    for line in _lines(model):
        if not line.startswith(" ") and line:
            listed = line == "Attributes:"
        elif listed and (entry := _ENTRY.fullmatch(line.removeprefix("    "))):
            names = entry[1].split(", ")
            found |= {name: [entry[2]] for name in names}
        elif listed and line:
            for name in names:
                found[name].append(line.strip())
    return {name: _markdown(" ".join(lines)) for name, lines in found.items()}


def _lines(model: Model) -> list[str]:
    return inspect.cleandoc(model.__dict__.get("__doc__") or "").splitlines()


def _markdown(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", plain(text))


def undescribed() -> list[str]:
    """Dotted keys that no docstring describes."""
    missing = []
    for path, model in sections(Recipe):
        said = meanings(model)
        missing += [
            f"{path}.{key(name, field)}".lstrip(".")
            for name, field in model.model_fields.items()
            if not said.get(name) and not models(field.annotation)
        ]
    return missing
