"""Experiments as data: a base recipe and what varies, from experiments/*.yaml to the units that are measured."""

import inspect
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.networks import networks
from benchmarks.unit import USUAL, Row, Unit, settings_of
from fewbits import assign
from fewbits import recipe as recipes
from fewbits.errors import RecipeError
from fewbits.recipe import changed

HERE = Path(__file__).parent
FOLDER = HERE / "experiments"
INHERITED = ("recipe", "set", "kind", "options", "usual", "minutes", "float_minutes")  # from a base
KEYS = {*INHERITED, "base", "result", "label", "vary", "seeds", "rows"}


def names(folder: Path = FOLDER) -> list[str]:
    """All experiments; the work list of the GPU is none."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "gpu")


def load(name: str, folder: Path = FOLDER) -> Row:
    """What a file says, with what it takes over from its ``base``: another experiment, or a recipe of fewbits.

    Raises:
        RecipeError: no such experiment, or an unknown key in it.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise RecipeError(f"no experiment {name!r}; there are: {', '.join(names(folder))}")
    values: Row = yaml.safe_load(path.read_text(encoding="utf-8"))
    for part in (values, *values.get("rows", ())):
        if unknown := sorted(set(part) - KEYS):
            raise RecipeError(f"{path.name}: unknown key {unknown[0]!r}; an experiment has {', '.join(sorted(KEYS))}")
    base = values.pop("base", None)
    if base is None:
        return values
    if (folder / f"{base}.yaml").is_file():
        below = {key: value for key, value in load(base, folder).items() if key in INHERITED}
    else:
        below = {"recipe": recipes.load(base).model_dump(by_alias=True, exclude_unset=True)}
    return below | values | {"set": below.get("set", {}) | values.get("set", {})}


def units(name: str, folder: Path = FOLDER, changes: Row | None = None, seeds: list[int] | None = None) -> list[Unit]:
    """Everything an experiment measures, seed by seed, so that all methods advance together.

    Args:
        changes: of every recipe, by dotted keys. seeds: instead of the experiment's.

    Raises:
        RecipeError: a recipe that comes out is none.
    """
    whole = load(name, folder)
    found = []
    for block in whole.get("rows", [{}]):
        part = whole | block
        for key in ("set", "label", "options"):
            part[key] = whole.get(key, {}) | block.get(key, {})
        part["usual"] = _plain(part) | USUAL | part.get("usual", {})
        found += [unit for seed in seeds or part.get("seeds", [0]) for unit in _block(name, part, seed, changes or {})]
    return sorted(found, key=lambda unit: unit.seed)


def _plain(part: Row) -> Row:
    """What is set where nothing varies, if that is a recipe: older rows leave it out."""
    plain = {key: value for key, value in part["set"].items() if key != "method" and not key.startswith("options.")}
    try:
        return settings_of(recipes.make(changed(part["recipe"], plain)))
    except (KeyError, RecipeError):
        return {}


def _block(name: str, part: Row, seed: int, asked: Row) -> Iterator[Unit]:
    for choice in product(*(_axis(key, values) for key, values in part.get("vary", {}).items())):
        settings, options, labels = dict(part["set"]), dict(part["options"]), dict(part["label"])
        for label, value, changes in choice:
            labels[label] = value
            settings |= changes
        settings |= asked
        labels |= {k: v for k, v in ((key.rpartition(".")[2], asked[key]) for key in asked) if k in labels}
        recipe = None
        if "recipe" in part:
            options |= {k.removeprefix("options."): settings.pop(k) for k in list(settings) if k.startswith("options.")}
            method = settings.pop("method", None)
            labels |= {} if method is None else {"method": method}
            values = changed(part["recipe"], settings) | {"seed": seed}
            recipe = recipes.make(with_method(values, method))
        else:
            options |= settings
        yield Unit(
            name, part.get("result", name), part.get("kind", "recipe"), seed, recipe, options, labels,
            part["usual"], part.get("minutes", 1.0), part.get("float_minutes", 0.0),
        )  # fmt: skip


def _axis(key: str, values: Any) -> list[tuple[str, Any, Row]]:
    """(label, value, changes) of everything on an axis: a list of values, labelled changes, or the name of an axis.

    A list of methods of a recipe stands for what :func:`with_method` makes of it; ``networks`` is the list of foreign
    networks, by their labels.
    """
    if values == "networks":
        values = [network.label for network in networks()]
    if isinstance(values, str):
        values = yaml.safe_load((HERE / "axes.yaml").read_text(encoding="utf-8"))[values]
    label = key.rpartition(".")[2]
    if isinstance(values, dict):
        return [(label, value, changes) for value, changes in values.items()]
    return [(label, value, {key: value}) for value in values]


def with_method(values: Row, method: str | None) -> Row:
    """A recipe's values with another method: ``ecq``, ``ecqx``, or a control in the place of relevance."""
    if method not in (None, "ecq", "ecqx"):
        return values | {"measure": {"name": method, "every": values.get("measure", {}).get("every", 1)}}
    if method != "ecq":
        return values
    shared = inspect.signature(assign.ecq).parameters
    options = {name: v for name, v in values["assign"].get("options", {}).items() if name in shared}
    plain = {key: value for key, value in values.items() if key != "measure"}  # which nothing reads
    return plain | {"assign": values["assign"] | {"method": "ecq", "options": options}}


def where(units: list[Unit], condition: str | None) -> list[Unit]:
    """Those whose settings meet a condition as pandas reads it, such as ``method == 'ecq' and seed < 2``.

    Raises:
        RecipeError: no condition, or one on settings that no unit has.
    """
    if condition is None or not units:
        return units
    frame = pd.DataFrame([unit.settings for unit in units])
    try:
        met = frame.eval(condition, engine="python")
    except (NameError, SyntaxError, TypeError, ValueError) as error:  # pandas' own for unknown names is a NameError
        raise RecipeError(f"where {condition!r}: {error}; settings are: {', '.join(map(str, frame))}") from None
    if not (isinstance(met, pd.Series) and pd.api.types.is_bool_dtype(met)):
        raise RecipeError(f"where {condition!r} is no condition: it is not true or false for each row")
    return [units[i] for i in frame.index[met]]
