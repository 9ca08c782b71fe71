"""One thing to measure, its key, and where it finds what it needs."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewbits.errors import FewbitsError
from fewbits.recipe import Recipe, make

Row = dict[str, Any]

# What an older row means that does not say it, beside what its experiment sets.
USUAL: Row = {"damping": 0, "step_rule": "range", "dropout": True, "gradual": False, "min_kept": 0, "significand": None}
EARLIER = {"step": "step_rule", "floor": "min_kept"}  # what rows called settings before


@dataclass(frozen=True)
class Unit:
    """What is measured in one go: its rows are written together or not at all.

    Attributes:
        experiment: name of its file. result: name of the file of its rows. kind: module that measures it.
        seed: of everything drawn by chance. recipe: what is run, without folders; ``None`` for kinds that run none.
        options: what the kind wants to know besides. labels: what its rows are called by.
        usual: what older rows mean that do not say it. minutes: estimate, without the float network.
        float_minutes: estimate of training the float network, where that is needed.
    """

    experiment: str
    result: str
    kind: str
    seed: int
    recipe: Recipe | None
    options: Row
    labels: Row
    usual: Row = field(default_factory=dict)
    minutes: float = 1.0
    float_minutes: float = 0.0

    @property
    def key(self) -> str:
        """Hash of the resolved recipe, the kind with what it is asked, and the seed."""
        return hash_of(self.kind, self.recipe and words(self.recipe), self.asked, self.seed)

    @property
    def asked(self) -> Row:
        """What the kind measures. A recipe says all by itself, however the row is called."""
        return self.options if self.kind == "recipe" else self.options | self.labels

    @property
    def settings(self) -> Row:
        """What was chosen, flat: part of every row."""
        return {"seed": self.seed} | (settings_of(self.recipe) if self.recipe else {}) | self.labels

    def is_of(self, row: Row) -> bool:
        """Whether a row from before rows had keys is of this unit: whether it says the same of all it tells.

        Args:
            row: with all keys that any row of its file has; ``None`` is what the unit's ``usual`` says.
        """
        told = self.usual | {k: v for k, v in row.items() if v is not None or k not in self.usual}
        return all(same(told[k], value) for k, value in self.settings.items() if k in told)


def keys_of(row: Row) -> set[str]:
    """The key of a row, and that of its recipe as it is read today: a recipe may have got fields since.

    A default that changed since is written out in the row, so it gives another key.
    """
    found = {row["key"]}
    if row.get("recipe"):
        with suppress(FewbitsError):  # of an older schema: its own key is all there is
            found.add(hash_of(row["kind"], words(make(row["recipe"])), row["options"], row["seed"]))
    return found


def words(recipe: Recipe) -> Row:
    """A resolved recipe as plain data, without what depends on the machine or says the same in other words."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude={"output", "schema_version"})
    if values["data"] is not None:
        values["data"]["folder"] = None
    for part in (values["network"], values["train"]["teacher"]):
        if part and part["weights"]:
            part["weights"] = Path(part["weights"]).name
    return values


def hash_of(*parts: Any) -> str:
    """A key of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def settings_of(recipe: Recipe) -> Row:
    """The choices of a recipe that tables tell rows by."""
    train, options = recipe.train, recipe.assign.options
    found: Row = {}
    if "train" in recipe.model_fields_set:
        found |= {"epochs": train.epochs, "lr": train.lr, "damping": train.damping, "gradual": train.gradual}
    if "assign" in recipe.model_fields_set:
        found |= {"step_rule": options.get("step_rule", "range"), "significand": recipe.significand}
        found["min_kept"] = options.get("min_kept") or (recipe.prune.min_kept if recipe.prune else 0)
    if recipe.network is not None:
        found |= {"model": recipe.network.name, "dropout": bool(recipe.network.options.get("dropout", True))}
    if recipe.data is not None:
        augment = recipe.data.model_dump(mode="json")["augment"]
        found |= {"data": recipe.data.name, "batch": recipe.data.batch_size, "augment": augment}
    return found | ({} if recipe.target is None else {"target": recipe.target})


def same(told: Any, wanted: Any) -> bool:
    """Whether two settings mean the same: nothing, 0 and false do, and so do 0.5% and 0.005."""
    if isinstance(told, dict) and isinstance(wanted, dict):
        return all(same(value, wanted.get(key)) for key, value in told.items())
    return share(told) == share(wanted) or (not told and not wanted)


def share(value: Any) -> Any:
    """A share as a number, if it is written in percent."""
    return float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else value


@dataclass(frozen=True)
class Place:
    """The machine's side.

    Attributes:
        data: folder of data sets (default: that of fewbits). weights: of trained weights. work: of what runs leave.
        validation: measure on validation data instead of test data, to choose settings.
        more: what single kinds want, by name, such as ``nnc`` (an interpreter that has nncodec).
    """

    work: Path
    weights: Path = Path("weights")
    data: Path | None = None
    validation: bool = False
    more: Mapping[str, str] = field(default_factory=dict)

    def located(self, recipe: Recipe) -> Recipe:
        """The recipe with this machine's folders in it. Data of an experiment's own code look for theirs."""
        values = recipe.model_dump(by_alias=True, exclude_unset=True)
        if self.data is not None and recipe.data is not None and ":" not in recipe.data.name:
            values["data"]["folder"] = str(self.data)
        for part in (values.get("network"), values.get("train", {}).get("teacher")):
            if part and part.get("weights"):
                part["weights"] = str(self.weights / part["weights"])
        return make(values)

    def float_file(self, recipe: Recipe) -> Path:
        """Where the float network is kept that all recipes with this network, data, training and seed share."""
        part = {key: words(recipe)[key] for key in ("network", "data", "pretrain", "seed")}
        assert recipe.network is not None
        return self.work / "floats" / f"{recipe.network.name}-{recipe.seed}-{hash_of(part)}.safetensors"

    def minutes(self, unit: Unit) -> float:
        """Estimate for a unit here: with the training of its float network, if that is still to do."""
        made = unit.recipe is None or unit.recipe.pretrain is None or self.float_file(unit.recipe).exists()
        return unit.minutes + (0.0 if made else unit.float_minutes)
