"""The sections of a recipe that say which channels and weights go. Need no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fewbits.recipe.notation import min_kept_of, parse_joules, parse_pattern, parse_seconds
from fewbits.recipe.sections import Part
from fewbits.recipe.training import Recovery


class ChannelPruning(Part):
    """Which channels are removed before anything else. Give one of the targets.

    Attributes:
        macs, parameters, channels: share of multiplications, parameters or output channels that may be left.
        max_latency, max_energy: what one sample may take on ``machine`` before its weights are compressed further:
            ``"2 ms"``, ``"0.5 mJ"``. Units go by multiplications until it does.
        machine: a name of ``fewbits machines``, or the file of one's own.
        criterion: ``curvature`` (EHAP), ``output`` (curvature along the channel's output), ``magnitude`` (L2), ``l1``,
            ``taylor`` or ``random``; see :mod:`fewbits.channels`.
        reduce: what channels that go together score: ``sum`` or ``mean`` of theirs; default: the sum for curvature,
            output and Taylor, which estimate a loss, else the mean.
        measured: remove channels of each layer, the least important first, and rank by the loss this was measured to
            cost (:func:`fewbits.channels._layer_losses`); the criterion then only orders the channels of a layer.
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
    max_latency: str | None = None
    max_energy: str | None = None
    machine: str | None = None
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
        if sum(target is not None for target in (*self._shares, self.max_latency, self.max_energy)) != 1:
            raise ValueError("give one target, for example macs: 0.5 (the share that is left)")
        if self.quantity is None and self.machine is not None:
            raise ValueError("a machine goes with max_latency or max_energy, for example max_latency: 2 ms")
        if self.quantity is not None and self.machine is None:
            raise ValueError("max_latency and max_energy need a machine; fewbits machines lists those that come along")
        if self.quantity is not None:
            self.most  # noqa: B018 - written wrongly, it is refused here
        return self

    @property
    def _shares(self) -> tuple[float | None, ...]:
        return self.macs, self.parameters, self.channels

    @property
    def quantity(self) -> str | None:
        """What is limited on a machine: ``latency``, ``energy``, or nothing."""
        return "latency" if self.max_latency is not None else "energy" if self.max_energy is not None else None

    @property
    def most(self) -> float:
        """What one sample may take on the machine: milliseconds or microjoules."""
        if self.max_latency is not None:
            return 1e3 * parse_seconds(self.max_latency)
        assert self.max_energy is not None
        return 1e6 * parse_joules(self.max_energy)

    @property
    def over(self) -> str:
        """What the target is a share of."""
        return "parameters" if self.parameters is not None else "channels" if self.channels is not None else "macs"

    @property
    def left(self) -> float:
        """The target, where it is a share."""
        return next(share for share in self._shares if share is not None)


class Packing(Part):
    """How a network lies in the slots of ciphertexts, from which its diagonals follow.

    Attributes:
        profile: of the program that is to be cheap, ``fast`` or ``precise``.
        degree: of its ring.
    """

    profile: Literal["fast", "precise"] = "fast"
    degree: Literal[4096, 8192, 16384, 32768] = 8192


class Prune(Part):
    """Which of the selected weights become zero before the others are assigned.

    Attributes:
        method: ``global-magnitude`` (Global MP), ``lamp``, ``erk``, ``uniform``, ``feather``, ``n:m``,
            ``random``, ``layers``, ``scores`` (the smallest of ``measure``), ``wanda`` (weights times inputs), or
            ``diagonals``, for encrypted inputs.
        sparsity: share of zeros, 0 to 1, of the numbers that ``over`` names; exact. Not for ``n:m`` and ``layers``.
            For ``diagonals`` it is the share of each layer's diagonals.
        over: ``weights`` (those selected) or ``parameters`` (all of the network).
        min_kept: the minimum threshold, of ``global-magnitude`` and ``feather``: so many weights of each layer stay, or
            so many percent of all selected weights (``0.02%``); a smaller layer stays whole.
        rates: of ``layers``: share of zeros by weight name or shell pattern; the first that matches counts. `fewbits
            prune-search` finds some.
        pattern: of ``n:m``, for example ``"2:4"``.
        packing: of ``diagonals``: which program they are those of.
        lasso: of ``diagonals``: strength of a group lasso on them until ``end``; 1e-4 is a beginning.
        schedule: ``one-shot``, ``linear`` or ``cubic``: how sparsity rises.
        begin: share of the training after which sparsity begins to rise.
        end: share of the training after which it has risen.
        regrow: whether pruned weights go on training unseen, and may come back (``feather`` always lets them).
    """

    method: str = "global-magnitude"
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    over: Literal["weights", "parameters"] = "weights"
    min_kept: int | str = 0
    rates: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    pattern: str | None = None
    packing: Packing | None = None
    lasso: Annotated[float, Field(ge=0)] = 0.0
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

    @field_validator("min_kept", mode="before")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        min_kept_of(value, 0)  # whatever the network, one that is none is refused here
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Prune:
        if self.schedule != "one-shot" and not self.begin < self.end:
            raise ValueError(f"begin must lie before end, got {self.begin:g} and {self.end:g}")
        return self
