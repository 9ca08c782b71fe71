"""The sections of a recipe that say how a network is trained. Need no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fewbits.recipe.sections import Network, Part, Readout, RuleChoice


class Training(Part):
    """A run of the training loop.

    Attributes:
        epochs: passes over the training data; fractions are allowed.
        rule: how the network learns: a rule's name, or a section with its options. Rules with steps of their own
            (``hebbian``, ``soft-hebb``) go with ``sgd``, a constant ``lr`` of 1 and no momentum where nothing else is
            said.
        optimizer: ``adam``, ``adamw`` (whose decay is apart from the gradient, as transformers want it) or ``sgd``
            (Nesterov).
        momentum: of ``sgd``.
        lr: peak learning rate.
        schedule: of the learning rate: ``cosine`` to zero, or ``constant``.
        weight_decay: on weights of linear and convolutional layers only.
        label_smoothing: share of the true class that goes to all classes alike.
        clip: largest gradient norm, or none.
        precision: what layers multiply in while training; ``bfloat16`` (autocast, images channels-last) is faster
            on hardware that has it. Weights, updates and every evaluation stay float32.
    """

    epochs: Annotated[float, Field(gt=0)] = 20
    rule: RuleChoice = RuleChoice()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    lr: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    @field_validator("rule", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Pretraining(Training):
    """The training of the float network.

    Attributes:
        readout: the last linear layer, trained anew afterwards; default: in closed form (``ridge``) for rules whose
            hidden layers learn without targets, and none for others.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-3
    readout: Readout | None = None

    @field_validator("readout", mode="before")
    @classmethod
    def _readout_named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Finetuning(Training):
    """Training while the plan is held.

    Attributes:
        lr_floats: learning rate of what stays floating point (biases, normalisation); default: ``lr``.
        gradient_scale: multiply a background weight's gradient by the magnitude of its centroid, as the paper does
            (ECQx, fig. 5). Off by default: with Adam it cost accuracy in the one trial made.
        damping: share of the way to its cluster's value that every background weight goes at each step: weights then
            swing less between clusters (the aim of Nagel et al. 2022, arXiv 2203.08797; here apart from the optimizer).
        learn: train step sizes and centroids.
        lr_step_size: learning rate of step sizes and centroids, relative to their size.
        distill: weight of soft answers in the objective, 0 to 1.
        temperature: divides the logits of both networks, and so softens the answers.
        teacher: whose answers: another network with trained weights; default: the float network's own.
        settle: share of the steps at the end in which the assignment stays and only floats (and steps) train.
        arrive: share of the steps after which a byte target is reached; until then the size falls geometrically.
        gradual: on the way to a size, lambda moves at every step toward what the size at the next round asks for; else
            it jumps at each round.

    ``train: null`` (as ``epochs: 0``) assigns without training; what activations need is calibrated. With integer
    activations ``learn`` trains their ranges, which otherwise follow the data.
    """

    epochs: Annotated[float, Field(ge=0)] = 20
    lr_floats: Annotated[float, Field(gt=0)] | None = None
    gradient_scale: bool = False
    damping: Annotated[float, Field(ge=0, le=1)] = 0.0
    learn: bool = False
    lr_step_size: Annotated[float, Field(gt=0)] = 1e-3
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    teacher: Network | None = None
    temperature: Annotated[float, Field(gt=0)] = 2.0
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.1
    arrive: Annotated[float, Field(ge=0, le=1)] = 0.25
    gradual: bool = False

    @model_validator(mode="after")
    def _taught(self) -> Finetuning:
        if self.teacher is not None:
            if self.teacher.weights is None and ":" not in self.teacher.name:  # else its own code may give it trained
                raise ValueError("an untrained teacher teaches nothing: give teacher.weights")
            if not self.distill:
                raise ValueError("a teacher needs distill, the weight of its answers, for example 0.5")
        return self


class Recovery(Training):
    """Training after channels were removed.

    Attributes:
        distill, temperature: as in ``train``.
    """

    epochs: Annotated[float, Field(gt=0)] = 10
    optimizer: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 2e-2
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0


class RangeTraining(Training):
    """Training of biases and of the ranges of activations, under integer weights that stay.

    Attributes:
        lr: of biases; of a range relative to its size.
        distill, temperature: as in ``train``.
    """

    epochs: Annotated[float, Field(gt=0)] = 1
    lr: Annotated[float, Field(gt=0)] = 1e-4
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0


class Activations(Part):
    """Activations as integers, for runtimes that multiply integers; normalisation is folded then.

    With ``assign.method: int8`` they are in any case; with clusters or pruned floats if this section is there, which
    can be written ``activations: int8``. Clusters then are the integer weights: the network trains as it is, and
    folding and ranges come where a file is made, at each round and at the end. Its outputs get a grid, too.

    Attributes:
        bits: bit width; 8.
        calibrate: batches from which the ranges of activations are taken.
        alone: whether there are integers alone from the inputs' levels to those of the outputs: products, sums and
            what the section ``ops`` puts in place of softmax, normalisation and other functions. For
            ``assign.method: int8``.
        train: a training of biases and ranges once the clusters stay. Its file is taken if it is as good on validation
            data, and within the target.
    """

    bits: Literal[8] = 8
    calibrate: Annotated[int, Field(ge=1)] = 16
    alone: bool = False
    train: RangeTraining | None = None
