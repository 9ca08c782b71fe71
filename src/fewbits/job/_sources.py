"""Networks and data by the names in a recipe: fewbits' own, other libraries', or the user's code, which is run."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fewbits import data as data_sets
from fewbits import zoo
from fewbits.data import DataSet
from fewbits.deploy.onnx import from_onnx
from fewbits.errors import RecipeError
from fewbits.job import _own_code as own_code
from fewbits.job._libraries import LIBRARIES, built
from fewbits.job._own_data import OwnData, described, own_data
from fewbits.recipe.places import ONNX
from fewbits.recipe.sections import Data, Network, TaskChoice
from fewbits.task import Task, task_of

_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"}


@dataclass(frozen=True, eq=False)
class Source:
    """A network as its name gives it.

    Attributes:
        trained: whether its weights are taken as trained ones.
        own: whether it is made by code that is not of fewbits.
    """

    network: nn.Module
    trained: bool = False
    own: bool = False


def network(part: Network, *, seed: int) -> Source:
    """The network that a recipe names, untrained or as its own code returns it.

    A class is untrained. What a function returns is taken as trained, and so is a network that lies in a file.

    Raises:
        RecipeError: no such network, or its code fails; the message says in which line. MissingExtraError: it is of a
            library that is not installed.
    """
    name = part.name
    if not _is_own(name):
        try:
            return Source(zoo.build(name, seed=seed, **part.options))
        except RecipeError as error:
            if name in zoo.NETWORKS:
                raise
            raise RecipeError(f"{error}; one of your own is written mine.py:Net") from None
    if name.partition(":")[0] in LIBRARIES:
        made, trained = built(name, part.options, seed=seed)
        return Source(made, trained, own=True)
    if name.endswith(ONNX):
        if part.options or part.weights:
            raise RecipeError(f"{name} has its weights, and no options: leave network.options and network.weights out")
        return Source(from_onnx(name), trained=True, own=True)
    found = own_code.found(name, seed=seed)
    if isinstance(found, nn.Module):
        if part.options:
            raise RecipeError(f"{name} is a network already, so options change nothing; leave network.options out")
        return Source(copy.deepcopy(found), trained=True, own=True)
    made = _called(name, found, part.options, "network", seed)
    if not isinstance(made, nn.Module):
        hint = "; load it into the network, and return that" if isinstance(made, dict) else ""
        raise RecipeError(f"{name} returned {described(made)}, not a torch.nn.Module{hint}")
    return Source(made, trained=not inspect.isclass(found), own=True)


def data(part: Data, *, seed: int) -> DataSet | OwnData:
    """The data that a recipe names: a data set, or batches as a function of one's own returns them.

    Raises:
        RecipeError: no such data, or the function fails or returns something else. DataError: files are missing or
            damaged, or there is no batch.
    """
    split = {"inputs": part.inputs, "targets": part.targets}
    if not _is_own(part.name):
        _no_split(part)
        return data_sets.load(part.name, part.folder, **part.options)
    returned = _called(part.name, own_code.found(part.name, seed=seed), part.options, "data", seed)
    if isinstance(returned, DataSet):
        _no_split(part)
        return returned
    for key in sorted(part.model_fields_set - {"name", "options", *split}):
        raise RecipeError(
            f"{part.name} makes its own batches, so data.{key} changes nothing; leave it out, or hand it to the "
            f"function: data.options.{key}"
        )
    return own_data(part.name, returned, seed=seed, **split)


def _no_split(part: Data) -> None:
    for key in ("inputs", "targets"):
        if getattr(part, key) is not None:
            raise RecipeError(
                f"{part.name} is a data set of inputs and targets, so data.{key} changes nothing; leave it out"
            )


def task(part: TaskChoice, *, seed: int) -> Task:
    """The task that a recipe names: one of fewbits', or one of one's own, as its code returns it.

    Raises:
        RecipeError: no such task or option, or its code fails or returns something else.
    """
    if not _is_own(part.name):
        return task_of(part.name, part.options)
    found = own_code.found(part.name, seed=seed)
    made = found if isinstance(found, Task) else _called(part.name, found, part.options, "task", seed)
    if not isinstance(made, Task):
        raise RecipeError(f"{part.name} returned {described(made)}, not a fewbits.task.Task(loss=...)")
    return made


def load_weights(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Fill a network from a ``.safetensors`` file; see :func:`fewbits.zoo.load_weights`.

    Raises:
        RecipeError: a pickle, which could run code. DataError, MismatchError, NonFiniteError: as there.
    """
    if Path(path).suffix.lower() in _PICKLES:
        raise RecipeError(
            f"{path} is a pickle, which can run code, so fewbits does not open it: load it in a function of your own "
            "with torch.load(..., weights_only=True), return the network, and name the function as network.name "
            "(mine.py:trained)"
        )
    return zoo.load_weights(model, path)


def _is_own(name: str) -> bool:
    return ":" in name or name.endswith((".py", ONNX))


def _called(name: str, found: Any, options: dict[str, Any], section: str, seed: int) -> Any:
    if not callable(found):
        raise RecipeError(f"{name} is {described(found)}, not a function")
    return own_code.called(name, found, options, section=section, seed=seed)
