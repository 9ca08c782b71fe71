"""Where the files lie that a recipe names: beside the recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAVED = "transformers:"  # what follows may be a folder
ONNX = ".onnx"


def beside(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's plain data, with the files that it names relative to the working folder.

    Files of one's own code (``mine.py:Net``), machines, ONNX files and folders after ``transformers:`` lie beside the
    recipe. Weights do, or else in the working folder.
    """

    def found(place: str, *, sure: bool) -> str:
        return _joined(folder, place) if sure or (folder / place).exists() else place

    return _moved(values, found)


def written_to(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The opposite: a recipe's plain data as it is written to a file in a folder."""

    def found(place: str, *, sure: bool) -> str:
        return os.path.relpath(place, folder) if sure or Path(place).exists() else place

    return _moved(values, found)


def _moved(values: dict[str, Any], place: Callable[..., str]) -> dict[str, Any]:
    train = values.get("train")
    result = dict(values)
    if isinstance(train, dict) and isinstance(train.get("teacher"), dict):
        result["train"] = train | {"teacher": _section(train["teacher"], place)}
    channels = values.get("channels")
    if isinstance(channels, dict) and str(channels.get("machine")).endswith((".yaml", ".yml")):
        result["channels"] = channels | {"machine": place(channels["machine"], sure=True)}
    if isinstance(values.get("base"), str):
        result["base"] = place(values["base"], sure=False)
    for key in ("network", "data", "task"):
        if isinstance(values.get(key), dict):
            result[key] = _section(values[key], place)
    if isinstance(values.get("task"), str):
        result["task"] = _name(values["task"], place)
    return result


def _section(section: dict[str, Any], place: Callable[..., str]) -> dict[str, Any]:
    result = dict(section)
    name, weights = section.get("name"), section.get("weights")
    if isinstance(name, str):
        result["name"] = _name(name, place)
    if isinstance(section.get("onnx"), str):
        result["onnx"] = place(section["onnx"], sure=True)
    if isinstance(weights, str):
        result["weights"] = place(weights, sure=False)
    return result


def _name(name: str, place: Callable[..., str]) -> str:
    file, _, rest = name.rpartition(":")
    if file.endswith(".py"):
        return f"{place(file, sure=True)}:{rest}"
    if name.endswith(ONNX):
        return place(name, sure=True)
    if name.startswith(SAVED):
        return SAVED + place(name.removeprefix(SAVED), sure=False)
    return name


def _joined(folder: Path, file: str) -> str:
    """A file's path, from the working folder if it lies within: the same job has the same words from anywhere."""
    path = Path(os.path.normpath(folder / file))
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)
