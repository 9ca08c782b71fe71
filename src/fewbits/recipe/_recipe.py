"""What to do, as typed data: the same recipe from Python and from YAML. Unknown keys are errors."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from fewbits.errors import RecipeError, did_you_mean
from fewbits.recipe.notation import parse_size
from fewbits.recipe.operations import Operation
from fewbits.recipe.places import beside
from fewbits.recipe.problems import TYPES, either, said
from fewbits.recipe.pruning import ChannelPruning, Prune
from fewbits.recipe.sections import MEMBERS, Assign, Data, Measure, Network, Part, Select, TaskChoice
from fewbits.recipe.training import Activations, Finetuning, Pretraining
from fewbits.recipe.variation import Sweep
from fewbits.recipe.yaml_text import mapping_of

PLAIN_NAME = r"^[\w][\w .+-]*\.few$"

RENAMED = {
    "rehearsals": "pilots",
    "train.lr_steps": "train.lr_step_size",
    "prune.floor": "prune.min_kept",
    "assign.options.floor": "assign.options.min_kept",
    "assign.options.step": "assign.options.step_rule",
    "assign.options.calibrate": "activations.calibrate",
}
"""Keys of schema 1, and what they are called now."""


class Recipe(Part):
    """A compression job.

    Exactly one of these steers the size: ``target`` (bytes of the file), ``max_drop`` (points of accuracy
    that may be lost, on validation data), both (the smallest file within the drop, no larger than the target), or
    ``assign.lam`` (the paper's lambda).

    Attributes:
        schema_version: written ``schema``; the version of these keys.
        target: bytes of the file at most, as ``200 KB``, ``1.5 MB`` or a plain number.
        max_drop: points of accuracy on validation data that may be lost at most.
        tries: candidates of the final search for ``max_drop``, each coded and evaluated without further training.
        pilots: sizes that are tried for ``max_drop``, each in a training of a quarter of the length (500 steps
            at least), before the training to the smallest that kept it. 0 trains once and lets each round's accuracy
            steer: much quicker, and the file often larger.
        rounds: how often during training the file is really coded, and the strength of the entropy term set anew.
        task: what the network's outputs are for: a name, or a section with its options.
        base: a ``.few`` file of the network that this one was fine-tuned from: the file then holds differences to it,
            and is read with it. Its tensors must have this network's names and shapes, as far as they are alike.
        channels: which channels are removed before all that; ``None`` for none.
        ops: which operations the network computes otherwise, by name: sigmoid, tanh, silu, gelu, erf, exp, log,
            reciprocal, rsqrt, softmax, layer_norm, rms_norm. They are swapped before weights are compressed.
        activations: whether they become integers, too; ``None`` leaves them floats, but for ``assign.method: int8``.
        prune: which weights become zero first, and stay so; ``None`` for none.
        floats: type of biases, normalisation and weights that are only pruned, in the file. A tensor with a number
            that is too large or too small for it is written in the next type that holds it, with as many bits.
        significand: significant bits that each of these numbers keeps, the leading one included; ``None``: all that
            the type has (float16 11, bfloat16 8). Where little is left they are a tenth of the file and more; 5 or 6
            are often enough. For float32 networks; what they hold in other types stays as it is. With a base, bits of
            integer levels of the differences, of which 4 or 5 are often enough.
        coding: profile of the entropy coder: the smallest file, or the fastest.
        sweep: how ``fewbits sweep`` varies this recipe; a single compression does not look at it.
        merge_normalisation: store normalisation as scale and shift: no running statistics, no biases before it.
        seed: of everything that is drawn; the same seed gives the same bytes.
        output: name of the file in the folder of results; a plain name that ends in ``.few``.
    """

    schema_version: Annotated[Literal[2], Field(alias="schema")] = 2
    network: Network | None = None
    data: Data | None = None
    task: TaskChoice = TaskChoice()
    pretrain: Pretraining | None = None
    select: Select = Select()
    base: str | None = None
    channels: ChannelPruning | None = None
    ops: dict[str, Operation] = {}  # noqa: RUF012  (pydantic copies it)
    prune: Prune | None = None
    assign: Assign = Assign()
    measure: Measure = Measure()
    activations: Activations | None = None
    train: Finetuning = Finetuning()
    target: str | int | None = None
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    rounds: Annotated[int, Field(ge=1)] = 20
    tries: Annotated[int, Field(ge=0)] = 8
    pilots: Annotated[int, Field(ge=0)] = 6
    floats: Literal["float16", "bfloat16", "float32"] = "float16"
    significand: Annotated[int, Field(ge=2, le=24)] | None = None
    coding: Literal["small", "fast"] = "small"
    merge_normalisation: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    output: Annotated[str, Field(pattern=PLAIN_NAME)] = "net.few"
    sweep: Sweep | None = None

    @field_validator("train", mode="before")
    @classmethod
    def _untrained(cls, value: Any) -> Any:
        return Finetuning(epochs=0) if value is None else value

    @field_validator("activations", mode="before")
    @classmethod
    def _eight_bits(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "int8":
            raise ValueError(f"int8, or a section with bits, calibrate and train; got {value!r}")
        return {} if value == "int8" else value

    @field_validator("task", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("target")
    @classmethod
    def _readable(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            parse_size(value)
        return value

    @model_validator(mode="after")
    def _one_steering(self) -> Recipe:
        prune, settle = self.prune, self.train.settle
        if prune is not None and prune.schedule != "one-shot" and prune.end > 1 - settle + 1e-9:
            raise ValueError(
                f"prune.end is {prune.end:g}, but from {1 - settle:g} of the training on the assignment stays "
                f"(train.settle: {settle:g}); lower one of them"
            )
        if self.assign.lam is not None and (self.target is not None or self.max_drop is not None):
            raise ValueError("give either assign.lam or a budget (target, max_drop), not both")
        return self

    @model_validator(mode="after")
    def _no_longer(self) -> Recipe:
        most = {"float16": 11, "bfloat16": 8, "float32": 24}[self.floats]
        if self.significand is not None and self.significand > most:
            raise ValueError(f"{self.floats} has {most} significant bits, got significand {self.significand}")
        return self

    @property
    def target_bytes(self) -> int | None:
        return None if self.target is None else parse_size(self.target)

    def updated(self, **changes: Any) -> Recipe:
        """A copy with some entries replaced, checked like any other recipe.

        A dict changes the entries of its section that it names, and keeps the rest; a section as a whole
        (``Finetuning(...)``) or ``None`` replaces it.
        """
        values = self.model_dump(by_alias=True, exclude_unset=True)
        for name, change in changes.items():
            section = values.get(name)
            values[name] = section | change if isinstance(section, dict) and isinstance(change, dict) else change
        return make(values)


def make(values: dict[str, Any]) -> Recipe:
    """A recipe from plain data.

    Raises:
        RecipeError: an unknown key (with the nearest valid one), a wrong type or an impossible value.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_sentence(error)) from None


def load(source: str | Path) -> Recipe:
    """A recipe from a YAML file, or one that comes with fewbits, by its name (``"ecqx-4bit"``).

    Files that it names lie beside it; in what is returned, their paths start from the working folder.

    Raises:
        RecipeError: no such file or name, not YAML, or not a recipe.
    """
    path, folder = Path(source), None
    if path.is_file():
        text, where, folder = _read(path), str(path), path.parent
    elif str(source) in names():
        text, where = text_of(str(source)), str(source)
    else:
        if path.is_dir():
            raise RecipeError(f"{str(source)!r} is a folder; a recipe is a YAML file")
        hint = did_you_mean(str(source), names())
        raise RecipeError(f"no recipe file {str(source)!r}{hint}; recipes that come along: {', '.join(names())}")
    values = mapping_of(text, where, "a recipe")
    if "schema" not in values:
        raise RecipeError(f"{where} lacks the line 'schema: 2'")
    if values["schema"] == 1:
        raise RecipeError(f"{where} has schema 1: write 'schema: 2'{_renamed(values)}")
    try:
        return make(values if folder is None else beside(values, folder))
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _renamed(values: dict[str, Any]) -> str:
    """Which of the keys given are called otherwise now, in words."""
    found = []
    for old, new in RENAMED.items():
        *sections, key = old.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and key in place:
            found.append(f"{old} is {new} now")
    return f" ({', '.join(found)})" if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not text in UTF-8, so it is no recipe") from None
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None


def text_of(name: str) -> str:
    """The YAML text of a recipe that comes with fewbits."""
    return str((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def names() -> list[str]:
    """Names of the recipes that come with fewbits."""
    return sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))


def _folder() -> Any:
    return resources.files("fewbits.recipe") / "shipped"


def _sentence(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        place, part = _place(problem["loc"])
        where = ".".join(place)
        if problem["type"] == "extra_forbidden":
            known = [f.alias or name for name, f in part.model_fields.items()]
            new = RENAMED.get(where)
            hint = did_you_mean(place[-1], known) if new is None else f"; it is called {new} now"
            parts.append(f"unknown key {where!r}{hint}")
        else:
            parts.append(f"{where}{said(problem)}".removeprefix(": "))
    return "; ".join(either(parts))


def _place(location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """The keys on the way, without pydantic's words for the members of a union, and the last section."""
    part: type[BaseModel] | None = Recipe
    section: type[BaseModel] = Recipe
    keys = []
    for key in map(str, location):
        if key in TYPES and key == location[-1]:
            continue
        if part is None:
            keys.append(key)
            continue
        fields = {f.alias or name: f for name, f in part.model_fields.items()}
        if key not in fields:
            if key not in MEMBERS:
                keys.append(key)
            continue
        keys.append(key)
        annotation = fields[key].annotation
        members = [getattr(m, "__origin__", m) for m in get_args(annotation) or (annotation,)]  # bare, if annotated
        part = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        section = part or section
    return keys, section
