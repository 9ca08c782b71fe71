"""The sections of a recipe. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from fewbits.notation import floor_of, parse_pattern


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Part):
    """The network: a name of the zoo, with options of its constructor, and a file of trained weights."""

    name: str
    options: dict[str, Any] = {}
    weights: str | None = None


class Normalise(Part):
    """``(x - mean) / std``, one value or one per channel; images are divided by 255 first."""

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


class Data(Part):
    """The data set: its name, where it lies, and how it is fed.

    ``augment`` is true for what the data set is customarily trained with, or says how. It should be what the network
    was trained with: normalisation statistics of images that it has not seen cost points.

    ``normalise`` is for networks that want their inputs other than the data set's default; a weight file that
    says how (metadata ``normalise``) goes first.
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


class Training(Part):
    """A run of the training loop.

    Attributes:
        epochs: passes over the training data; fractions are allowed.
        optimizer: ``adam`` or ``sgd`` (momentum 0.9, Nesterov).
        lr: peak learning rate. schedule: ``cosine`` to zero, or ``constant``.
        weight_decay: on weights of linear and convolutional layers only.
        clip: largest gradient norm, or none.
        precision: what layers multiply in while training; ``bfloat16`` (autocast, images channels-last) is faster
            on hardware that has it. Weights, updates and every evaluation stay float32.
    """

    epochs: Annotated[float, Field(gt=0)] = 20
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


class Finetuning(Training):
    """Training while the plan is held.

    Attributes:
        lr_floats: learning rate of what stays floating point (biases, normalisation); default: ``lr``.
        gradient_scale: multiply a background weight's gradient by the magnitude of its centroid, as the paper does
            (ECQx, fig. 5). Off by default: with Adam it cost accuracy in the one trial made.
        damping: share of the way to its cluster's value that every background weight goes at each step: weights then
            swing less between clusters (the aim of Nagel et al. 2022, arXiv 2203.08797; here apart from the optimizer).
        learn: train step sizes and centroids; ``lr_steps`` is their learning rate, relative to their size.
        distill: weight of soft answers in the objective, 0 to 1; ``temperature`` softens them.
        teacher: whose answers: another network of the zoo with trained weights; default: the float network's own.
        settle: share of the steps at the end in which the assignment stays and only floats (and steps) train.
        arrive: share of the steps after which a byte target is reached; until then the size falls geometrically.
        gradual: on the way to a size, lambda moves at every step toward what the size at the next round asks for; else
            it jumps at each round.

    With ``assign.method: int8``, ``epochs: 0`` calibrates without training, and ``learn`` trains the ranges of
    activations, which otherwise follow the data.
    """

    epochs: Annotated[float, Field(ge=0)] = 20
    lr_floats: Annotated[float, Field(gt=0)] | None = None
    gradient_scale: bool = False
    damping: Annotated[float, Field(ge=0, le=1)] = 0.0
    learn: bool = False
    lr_steps: Annotated[float, Field(gt=0)] = 1e-3
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    teacher: Network | None = None
    temperature: Annotated[float, Field(gt=0)] = 2.0
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.1
    arrive: Annotated[float, Field(ge=0, le=1)] = 0.25
    gradual: bool = False

    @model_validator(mode="after")
    def _taught(self) -> Finetuning:
        if self.teacher is not None:
            if self.teacher.weights is None:
                raise ValueError("an untrained teacher teaches nothing: give teacher.weights")
            if not self.distill:
                raise ValueError("a teacher needs distill, the weight of its answers, for example 0.5")
        return self


class Recovery(Training):
    """Training after channels were removed. ``distill`` and ``temperature``: as in :class:`Finetuning`."""

    epochs: Annotated[float, Field(gt=0)] = 10
    optimizer: Literal["adam", "sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 2e-2
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0


class ChannelPruning(Part):
    """Which channels are removed before anything else. Give one of the targets.

    Attributes:
        macs, parameters, channels: share of multiplications, parameters or output channels that may be left.
        criterion: ``curvature`` (EHAP), ``output`` (curvature along the channel's output), ``magnitude`` (L2), ``l1``,
            ``taylor`` or ``random``; see :mod:`fewbits.measure.channels`.
        reduce: what channels that go together score: ``sum`` or ``mean`` of theirs; default: the sum for curvature,
            output and Taylor, which estimate a loss, else the mean.
        measured: remove channels of each layer, the least important first, and rank by the loss this was measured to
            cost (:func:`fewbits.measure.channels.measured`); the criterion then only orders the channels of a layer.
            A forward pass over the samples per group of layers and eighth of it.
        per_saving: rank by score over the multiplications (parameters) that go with the channels, instead of by score.
            With a target of ``channels`` it changes nothing.
        cap: largest share of its output channels that a layer may lose; one always stays.
        exclude: shell patterns of weight names whose layers keep all output channels.
        multiple: remove channels in blocks, so that widths stay multiples of it: INT8 in ONNX Runtime likes 16.
        samples: training samples on which scores are measured.
        rounds: measure, remove and train so many times on the way to the target.
        train: the training afterwards, all rounds together; ``None`` only recalibrates.
    """

    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    parameters: Annotated[float, Field(gt=0, le=1)] | None = None
    channels: Annotated[float, Field(gt=0, le=1)] | None = None
    criterion: Literal["curvature", "output", "magnitude", "l1", "taylor", "random"] = "magnitude"
    reduce: Literal["sum", "mean"] | None = None
    measured: bool = True
    per_saving: bool = True
    cap: Annotated[float, Field(ge=0, le=1)] = 0.95
    exclude: tuple[str, ...] = ()
    multiple: Annotated[int, Field(ge=1)] = 1
    samples: Annotated[int, Field(ge=1)] = 512
    rounds: Annotated[int, Field(ge=1)] = 1
    train: Recovery | None = Recovery()

    @model_validator(mode="after")
    def _one_target(self) -> ChannelPruning:
        if sum(share is not None for share in (self.macs, self.parameters, self.channels)) != 1:
            raise ValueError("give one target, for example macs: 0.5 (the share that is left)")
        return self

    @property
    def over(self) -> str:
        """What the target is a share of."""
        return "macs" if self.macs is not None else "parameters" if self.parameters is not None else "channels"

    @property
    def left(self) -> float:
        """The target."""
        return next(share for share in (self.macs, self.parameters, self.channels) if share is not None)


class Select(Part):
    """Which weights are compressed: shell patterns on their names."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class Prune(Part):
    """Which of the selected weights become zero before the others are assigned.

    Attributes:
        method: ``global-magnitude`` (Global MP), ``lamp``, ``erk``, ``uniform``, ``feather``, ``n:m``,
            ``random`` or ``layers``.
        sparsity: share of zeros, 0 to 1, of the numbers that ``over`` names; exact. Not for ``n:m`` and ``layers``.
        over: ``weights`` (those selected) or ``parameters`` (all of the network).
        floor: the minimum threshold, of ``global-magnitude`` and ``feather``: so many weights of each layer stay, or so
            many percent of all selected weights (``0.02%``); a smaller layer stays whole.
        rates: of ``layers``: share of zeros by weight name or shell pattern; the first that matches counts. `fewbits
            prune-search` finds some.
        pattern: of ``n:m``, for example ``"2:4"``.
        schedule: ``one-shot``, ``linear`` or ``cubic``: sparsity rises from share ``begin`` of the training to ``end``.
        regrow: whether pruned weights go on training unseen, and may come back (``feather`` always lets them).
    """

    method: Literal["global-magnitude", "lamp", "erk", "uniform", "feather", "n:m", "random", "layers"] = (
        "global-magnitude"
    )
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    over: Literal["weights", "parameters"] = "weights"
    floor: int | str = 0
    rates: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    pattern: str | None = None
    schedule: Literal["one-shot", "linear", "cubic"] = "one-shot"
    begin: Annotated[float, Field(ge=0, le=1)] = 0.0
    end: Annotated[float, Field(ge=0, le=1)] = 0.5
    regrow: bool = False

    @field_validator("pattern", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML 1.1 reads 2:4 as a number to base 60
            raise ValueError("write the pattern in quotes, for example '2:4'")
        if isinstance(value, str):
            parse_pattern(value)
        return value

    @field_validator("floor", mode="before")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        floor_of(value, 0)  # whatever the network, a floor that is none is refused here
        return value

    @model_validator(mode="after")
    def _fitting(self) -> Prune:
        patterned = self.method == "n:m"
        if (self.pattern is not None) != patterned:
            raise ValueError("method 'n:m' takes a pattern like '2:4', and no other method does")
        layers = self.method == "layers"
        if bool(self.rates) != layers:
            raise ValueError("method 'layers' takes rates, for example {'*': 0.9}, and no other method does")
        if layers and (self.sparsity is not None or self.over != "weights"):
            raise ValueError("rates say how many zeros each layer gets: leave sparsity and over out")
        if (self.sparsity is None) != (patterned or layers):
            raise ValueError("give a sparsity, for example 0.9; only 'n:m' and 'layers' have their own")
        if patterned and self.schedule != "one-shot":
            raise ValueError("an n:m pattern is there from the start: leave schedule out")
        if self.floor and self.method not in ("global-magnitude", "feather"):
            raise ValueError(f"floor goes with global-magnitude and feather, not with {self.method}")
        if self.schedule != "one-shot" and not self.begin < self.end:
            raise ValueError(f"begin must lie before end, got {self.begin:g} and {self.end:g}")
        return self


class Assign(Part):
    """What each weight becomes. ``options`` go to the assigner (see :mod:`fewbits.assign`).

    With method ``none`` the weights that ``prune`` leaves stay floating-point numbers. Method ``int8`` makes integers
    of weights and activations, for runtimes that multiply integers; it has 8 bits and one option, ``calibrate``:
    batches from which the ranges of activations are taken (16).

    Attributes:
        bits: bit width of the grid, 2 to 16; ``auto`` (ours, with a budget): the best of 2 to 5 in short trainings.
    """

    method: Literal["ecqx", "ecq", "ternary", "int8", "none"] = "ecqx"
    bits: int | Literal["auto"] = 4
    lam: Annotated[float, Field(ge=0)] | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _eight(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method") == "int8":
            return {"bits": 8} | values
        return values

    @field_validator("bits", mode="before")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 16):
            raise ValueError(f"a number from 2 to 16, or auto, got {value!r}")
        return value

    @model_validator(mode="after")
    def _open(self) -> Assign:
        if self.bits == "auto" and self.method not in ("ecq", "ecqx"):
            raise ValueError(f"bits: auto is for ecq and ecqx; {self.method} has no bits to choose")
        return self

    @model_validator(mode="after")
    def _int8(self) -> Assign:
        if self.method == "int8" and self.bits != 8:
            raise ValueError(f"int8 has 8 bits, got {self.bits}; for fewer use ecqx, ecq or ternary")
        return self


class Measure(Part):
    """The scores that ECQx weighs zeroing with.

    Attributes:
        name: ``relevance``, or a control: ``taylor``, ``fisher``, ``magnitude``, ``random``.
        rules: a composite of relevance rules; start: relevance of the outputs; on: see ``RelevanceScorer``.
        precision: what relevance multiplies in at convolutions; bfloat16 is faster on hardware that has it.
        samples: samples per batch whose relevance is taken; ``None`` for all.
        every: steps from one measurement to the next.
    """

    name: Literal["relevance", "taylor", "fisher", "magnitude", "random"] = "relevance"
    rules: str = "plus"
    start: Literal["score", "probability", "ones"] = "score"
    on: Literal["background", "quantized"] = "background"
    precision: Literal["float32", "bfloat16"] = "float32"
    samples: Annotated[int, Field(ge=1)] | None = None
    every: Annotated[int, Field(ge=1)] = 1
