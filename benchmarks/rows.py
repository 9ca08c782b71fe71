"""A result row from a report: what the benchmarks that write files have in common."""

from __future__ import annotations

import inspect
from typing import Any

from fewbits import assign
from fewbits import recipe as recipes
from fewbits.recipe import Recipe
from fewbits.report import Report


def published_vgg() -> dict[str, Any]:
    """CIFAR-10 as VGG16-BN's weights want it: values of 0 to 1, and images moved by little.

    Of training images they get all right, mirrored ones too, 99 % of those moved by up to 2 pixels with the edge
    repeated, and 92 % of those moved by up to 4 over black.
    """
    data = recipes.load("cifar10-vgg16-bn").data
    assert data is not None
    return data.model_dump(exclude_unset=True)


def with_method(values: dict[str, Any], method: str) -> dict[str, Any]:
    """A recipe's values with another method: ``ecq``, ``ecqx``, or a control in the place of relevance."""
    if method == "ecqx":
        return values
    if method != "ecq":
        return values | {"measure": {"name": method, "every": values.get("measure", {}).get("every", 1)}}
    options = values["assign"].get("options", {})
    shared = {name: v for name, v in options.items() if name in inspect.signature(assign.ecq).parameters}
    return values | {"assign": values["assign"] | {"method": "ecq", "options": shared}}


def row_of(report: Report, recipe: Recipe, commit: str | None) -> dict[str, Any]:
    """Figures of one written and decoded file, with the settings and the commit that made it."""
    return {
        **report.row(),
        "bits": report.tensors[0].bits if report.tensors else recipe.assign.bits,
        "epochs": recipe.train.epochs,
        "steps": report.steps,
        "identical": report.identical,
        "every": recipe.measure.every if recipe.assign.method == "ecqx" else None,
        "momentum": recipe.assign.options.get("momentum"),
        "commit": commit,
    }
