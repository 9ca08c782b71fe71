"""The sections of a recipe but for training and pruning. Need no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fewbits.recipe.places import ONNX


class Part(BaseModel):
    """A section: unknown keys are errors, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """``max_drop: true`` would be one point."""
        name = info.field_name
        if isinstance(value, bool) and name in cls.model_fields and _numeric(cls.model_fields[name].annotation):
            raise ValueError(f"a number, got {str(value).lower()}")
        return value


def _numeric(annotation: Any) -> bool:
    """Whether a key takes numbers, and no truth values."""
    members = [getattr(member, "__origin__", member) for member in get_args(annotation) or (annotation,)]
    plain = [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]
    return any(member in (int, float) for member in plain) and bool not in plain


class Network(Part):
    """The network, and its trained weights.

    Attributes:
        name: of the zoo, for example ``resnet-20``; of one's own, ``mine.py:Net`` or ``package.module:function``, which
            is run; or ``torchvision:resnet18``, ``timm:resnet18``, ``transformers:folder``; or an ONNX
            file, ``net.onnx``, which can be written ``onnx: net.onnx``.
        options: of the network's constructor or function.
        weights: a ``.safetensors`` file of trained weights; without one, ``pretrain`` trains them, and what a function
            of one's own returns is taken as trained.
        whiten: a fixed first layer that whitens the inputs (ZCA): pixels of its side, odd, for images and series, or
            ``whole`` for all values of a sample at once, with as many weights as that is squared. ``pretrain`` fits it
            to the training data before it begins.
    """

    name: str
    options: dict[str, Any] = {}
    weights: str | None = None
    whiten: Annotated[int, Field(ge=1)] | Literal["whole"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _onnx(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "onnx" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "onnx"}
        file = values["onnx"]
        if rest:
            raise ValueError(f"onnx names a network with its weights, so leave {', '.join(map(str, rest))} out")
        if not isinstance(file, str) or not file.endswith(ONNX):
            raise ValueError(f"onnx is a file whose name ends with {ONNX}, got {file!r}")
        return {"name": file}

    @property
    def called(self) -> str:
        """The name as files and reports have it: without the folders in which code of one's own lies."""
        return without_folders(self.name)


def without_folders(name: str) -> str:
    """``mine.py:Net`` for ``/home/me/mine.py:Net``."""
    return ":".join(re.split(r"[/\\]", part)[-1] for part in name.split(":"))


class Normalise(Part):
    """``(x - mean) / std``; images are divided by 255 first.

    Attributes:
        mean, std: one value, or one per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Augment(Part):
    """Images padded, cropped at random to the old size, and every other one mirrored.

    What ``fewbits.data.CropFlip`` does, in a recipe's words: a recipe is read without torch.

    Attributes:
        padding: pixels on each side.
        flip: whether to mirror at all.
        fill: what the padding shows: ``black``, or the nearest pixel of the ``edge``.
    """

    padding: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    fill: Literal["black", "edge"] = "black"


MEMBERS = ("a word", "a section")  # of the union in Data.augment; pydantic's errors name them


def _yes_or_no(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(f"true, false, or a section with padding, flip and fill; got {value!r}")
    return value


def _parts(value: Any) -> Any:
    if value is None:
        return None
    several = isinstance(value, list | tuple)
    parts = list(value) if several else [value]
    if not parts or any(part == "" or isinstance(part, bool) or not isinstance(part, str | int) for part in parts):
        raise ValueError(f"a name or a place among the parts of a batch, or a list of them; got {value!r}")
    return tuple(parts) if several else value


Parts = Annotated[Any, BeforeValidator(_parts)]


class Data(Part):
    """The data set: its name, where it lies, and how it is fed.

    Attributes:
        name: of the data set, for example ``cifar10``; or a function of one's own that returns loaders,
            ``mine.py:loaders`` or ``package.module:function``, which is run. It takes ``options``, ``inputs`` and
            ``targets``, and no other key.
        folder: where its files lie; default: ``FEWBITS_DATA``, else the user's cache.
        options: of the data set's loader.
        normalise: for networks that want their inputs other than the data set's default; a weight file that says how
            (metadata ``normalise``) goes first.
        augment: true for what the data set is customarily trained with, or a section that says how. It should be what
            the network was trained with: normalisation statistics of images that it has not seen cost points.
        batch_size: samples per step, of each process.
        inputs, targets: which parts of batches of one's own they are, where the parameters of the network's ``forward``
            do not say so: a name or a place, or a list of them; see ``fewbits.task.Feed``.
    """

    name: str
    folder: str | None = None
    options: dict[str, Any] = {}
    normalise: Normalise | None = None
    augment: Annotated[
        Annotated[bool, BeforeValidator(_yes_or_no), Tag(MEMBERS[0])] | Annotated[Augment, Tag(MEMBERS[1])],
        Discriminator(lambda value: MEMBERS[isinstance(value, dict | Augment)]),
    ] = False
    batch_size: Annotated[int, Field(ge=1)] = 64
    inputs: Parts = None
    targets: Parts = None

    @property
    def called(self) -> str:
        """The name as reports have it."""
        return without_folders(self.name)


class TaskChoice(Part):
    """What the network's outputs are for.

    Attributes:
        name: of a task, see ``fewbits.task.TASKS``; on the command line also of a function of one's own, that returns a
            ``fewbits.task.Task``: ``mine.py:task``, which is run.
        options: of that task, such as ``ignore_index``.
    """

    name: str = "classification"
    options: dict[str, Any] = {}


class RuleChoice(Part):
    """How a network learns from a batch.

    Attributes:
        name: of a learning rule, see ``fewbits.train.RULES``.
        options: of that rule.
    """

    name: str = "backprop"
    options: dict[str, Any] = {}


class Readout(Part):
    """The last linear layer, trained alone on what all others have learnt; they stay as they are.

    Attributes:
        name: ``ridge``, in closed form; ``sgd``, by Adam on the task's loss; or ``none``.
        penalty: of ``ridge``, relative to the mean variance of a feature; default: by leave-one-out.
        epochs, lr: of ``sgd``.
        once: of ``sgd``: compute the features of the training data once and keep them in memory. An epoch then costs
            as much as one layer; augmentation is drawn once, and dropout of the network is off.
        dropout: of features that are kept.
        batch_size: of features that are kept; default: that of the data.
    """

    name: Literal["ridge", "sgd", "none"] = "ridge"
    penalty: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[float, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 1e-3
    once: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _of_what_is_kept(self) -> Self:
        if self.once and self.name != "sgd":
            raise ValueError(f"once belongs to sgd, and {self.name} was asked for: write name: sgd, or leave once out")
        for key in ("dropout", "batch_size"):
            if key in self.model_fields_set and not self.once:
                raise ValueError(f"{key} is of features that are kept: add once: true, or leave {key} out")
        return self


class Select(Part):
    """Which weights are compressed.

    Attributes:
        include: shell patterns of weight names.
        exclude: patterns of those that are left out all the same.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class Assign(Part):
    """What each weight becomes.

    The methods are ``ecqx``, ``ecq``, ``ternary``, ``int8`` (weights and activations as 8-bit integers) and ``none``,
    with which the weights that ``prune`` leaves stay floating-point numbers; see :data:`fewbits.pipeline.METHODS`.

    Attributes:
        method: the assigner; with ``none`` weights stay floats.
        lam: strength of the entropy term, the paper's lambda; a budget finds it.
        options: of the assigner, see :mod:`fewbits.assign`.
        bits: bit width of the grid, 2 to 16; default: the method's own, or 4; ``auto`` (ours, with a budget): the best
            of 2 to 5 in short trainings.
    """

    method: str = "ecqx"
    bits: int | Literal["auto"] | None = None
    lam: Annotated[float, Field(ge=0)] | None = None
    options: dict[str, Any] = {}

    @field_validator("bits", mode="before")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        known = value is None or value == "auto"
        if not known and (isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 16):
            raise ValueError(f"a number from 2 to 16, or auto, got {value!r}")
        return value


class Measure(Part):
    """The scores that ECQx weighs zeroing with, and that some pruners prune by.

    Attributes:
        name: ``relevance``, or a control: ``taylor``, ``fisher``, ``magnitude``, ``random``, ``wanda`` (weights times
            norms of their inputs), ``obs`` (Optimal Brain Surgeon); or ``inputs``, the norms of each layer's inputs,
            which ``prune.method: wanda`` reads.
        rules: a composite of relevance rules.
        start: relevance of the outputs, see ``RelevanceScorer``.
        on: the weights whose relevance is taken: ``background`` ones, or the ``quantized`` ones that the layer uses.
        attention: how relevance goes through attention and gates: ``half`` (AttnLRP), or ``detach`` (CP-LRP), which
            takes them as constants.
        operations: what operations without a relevance rule are: ``linear``, ``elementwise`` or ``scale``, by the
            name of a module's class, of a function (``torch.exp``) or of an autograd node (``ExpBackward0``).
        probe: whether an operation that is in no list is tried out: relevance goes through it if ``f(t x) = t f(x)``.
        precision: what relevance multiplies in at convolutions; bfloat16 is faster on hardware that has it.
        samples: samples per batch whose relevance is taken; ``None`` for all.
        every: steps from one measurement to the next.
        batches: batches on which scores are measured where they are needed before a training, or without one.
    """

    name: Literal["relevance", "taylor", "fisher", "magnitude", "random", "inputs", "wanda", "obs"] = "relevance"
    rules: str = "plus"
    start: Literal["score", "probability", "ones"] = "score"
    on: Literal["background", "quantized"] = "background"
    attention: Literal["half", "detach"] = "half"
    operations: dict[str, Literal["linear", "elementwise", "scale"]] = {}
    probe: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    samples: Annotated[int, Field(ge=1)] | None = None
    every: Annotated[int, Field(ge=1)] = 1
    batches: Annotated[int, Field(ge=1)] = 16
