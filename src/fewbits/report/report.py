"""What a compression did, as plain data: everything the tables, pictures and JSON files are made of."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewbits.task.metric import Metric


@dataclass(frozen=True)
class TensorRow:
    """One clustered or pruned tensor.

    Attributes:
        bits: bit width of its grid; of a pruned tensor, bits of each number that is left.
        zeros: share of weights in the zero cluster or pruned, 0 to 1.
        bytes: size of its sections in the file.
        entropy: zero-order entropy of its levels, bits per weight; of a pruned tensor, that of its mask and the bits of
            the numbers that are left.
        step: step size of a uniform grid, else ``None``.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    bits: int
    zeros: float
    bytes: int
    entropy: float
    step: float | None = None


@dataclass(frozen=True)
class RestRow:
    """A tensor that was not compressed.

    Attributes:
        numbers: its elements. bytes: its share of the file. why: the reason, as the end of a sentence about it.
    """

    name: str
    shape: tuple[int, ...]
    numbers: int
    bytes: int
    why: str = ""


@dataclass(frozen=True)
class OperationRow:
    """A place of the network at which an operation was swapped.

    Attributes:
        place: path of the module; empty for the network itself. operation: its name. words: by what.
        low, high: of its inputs on the training data; ``None`` without any.
        bound: of the error there, as it was proven; ``None`` where nothing is. error: the largest measured one.
        relative: whether both are shares of the exact value.
    """

    place: str
    operation: str
    words: str
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    error: float | None = None
    relative: bool = False


@dataclass(frozen=True)
class Round:
    """State of the search after some training steps.

    Attributes:
        steps: optimizer steps done. lam: strength of the entropy term. bytes: size of the file as of now.
        zeros: share of clustered and pruned weights that are zero. accuracy: percent on validation data, if evaluated.
        estimated: whether the size was told without coding the file.
    """

    steps: int
    lam: float
    bytes: int
    zeros: float
    accuracy: float | None = None
    estimated: bool = False


@dataclass(frozen=True)
class Try:
    """A candidate of the final search, made without further training.

    Attributes:
        what: where it comes from: ``settled`` (the end of the training), ``filled`` (weights moved until the target is
            reached), ``round`` (the best of a round), ``smaller`` or ``larger`` (another lambda).
        lam: strength of the entropy term. bytes: size of the file. accuracy: percent on validation data, if evaluated.
        kept: whether this is the file that was written.
    """

    what: str
    lam: float
    bytes: int
    accuracy: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class PilotRun:
    """A short training to a size with some bits, before they were chosen.

    Attributes:
        bytes: size of its file. accuracy: percent on validation data. kept: whether it kept the budget.
    """

    bits: int
    bytes: int
    accuracy: float
    kept: bool


@dataclass(frozen=True)
class Report:
    """A compression, from the float network to the file that decodes.

    Attributes:
        file_bytes: size of the ``.few`` file, header and checksums included. sha256: of that file, in hexadecimal;
            ``None`` in reports of earlier versions.
        float_bytes: the same tensors as float32: all parameters and normalisation statistics, 4 bytes each.
        floats_bytes: share of the file that is not clustered or pruned weights: floats, header, checksums.
        parameters: trainable numbers of the whole network.
        macs, macs_left: multiply-accumulate operations for one sample, with every weight and with those that are not
            zero; ``None`` where they were not counted.
        others: sizes of the same network under general-purpose compressors, by name.
        accuracy_before, accuracy_after: on the data named in ``split``; ``None`` when not evaluated. metric: their
            scale: ``percent``, ``fraction`` (of which percent are told), ``loss`` or ``score``.
        identical: whether the decoded file gives bit-equal outputs; ``None`` before the check.
        target, max_drop, met: the budget that was asked for, and whether the result keeps it.
        rest: the tensors that were not compressed, in the file's order. operations: what was swapped, place by place.
        history: the controller's path, round by round. search: the candidates of the final search. pilots: what
            bits were chosen by, if the recipe left them open.
    """

    model: str
    data: str
    method: str
    tensors: tuple[TensorRow, ...]
    file_bytes: int
    float_bytes: int
    floats_bytes: int
    others: dict[str, int]
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    split: str = "validation"
    identical: bool | None = None
    target: int | None = None
    max_drop: float | None = None
    met: bool | None = None
    seed: int = 0
    steps: int = 0
    seconds: float = 0.0
    history: tuple[Round, ...] = ()
    kind: str = "clustered"
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    macs: int | None = None
    macs_left: int | None = None
    search: tuple[Try, ...] = ()
    pilots: tuple[PilotRun, ...] = ()
    metric: str = "percent"
    rest: tuple[RestRow, ...] = ()
    operations: tuple[OperationRow, ...] = ()
    sha256: str | None = None

    @property
    def ratio(self) -> float:
        """Float bytes over bytes of the file."""
        return self.float_bytes / self.file_bytes

    @property
    def weights(self) -> int:
        """Number of clustered and pruned weights."""
        return sum(row.weights for row in self.tensors)

    @property
    def zeros(self) -> float:
        """Share of the clustered and pruned weights that are zero, 0 to 1."""
        return sum(row.zeros * row.weights for row in self.tensors) / max(1, self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole file per clustered or pruned weight."""
        return 8 * self.file_bytes / max(1, self.weights)

    @property
    def drop(self) -> float | None:
        """Points of accuracy lost, or how much a loss rose."""
        if self.accuracy_before is None or self.accuracy_after is None:
            return None
        lost = self.accuracy_before - self.accuracy_after
        return -lost if self.metric == "loss" else lost

    def told(self, metric: Metric) -> Report:
        """A copy with every score on the scale that it was measured on."""

        def shown(entry: Any) -> Any:
            score = entry.accuracy
            return entry if score is None else dataclasses.replace(entry, accuracy=metric.shown(score))

        whole = {
            name: None if getattr(self, name) is None else metric.shown(getattr(self, name))
            for name in ("accuracy_before", "accuracy_after")
        }
        rows = {name: tuple(map(shown, getattr(self, name))) for name in ("history", "search", "pilots")}
        return self.updated(metric=metric.name, **whole, **rows)

    def updated(self, **changes: Any) -> Report:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, derived figures included."""
        plain = dataclasses.asdict(self)
        derived = ("ratio", "weights", "zeros", "bits_per_weight", "drop")
        return plain | {name: getattr(self, name) for name in derived}

    def row(self) -> dict[str, Any]:
        """The figures as a row of a file of results, which ``fewbits report`` draws."""
        return {
            "model": self.model,
            "data": self.data,
            "method": self.method,
            "seed": self.seed,
            "split": self.split,
            "accuracy": self.accuracy_after,
            "baseline_accuracy": self.accuracy_before,
            "bytes": self.file_bytes,
            "float_bytes": self.float_bytes,
            "ratio": self.ratio,
            "sparsity": 100 * self.zeros,
            "seconds": self.seconds,
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that :meth:`to_json` wrote."""
        values = json.loads(text)
        known = {f.name for f in dataclasses.fields(Report)}
        values = {name: value for name, value in values.items() if name in known}
        rows = values["tensors"]
        values["tensors"] = tuple(TensorRow(**row | {"shape": tuple(row["shape"])}) for row in rows)
        rest = values.get("rest", ())
        values["rest"] = tuple(RestRow(**row | {"shape": tuple(row["shape"])}) for row in rest)
        values["operations"] = tuple(OperationRow(**row) for row in values.get("operations", ()))
        values["history"] = tuple(Round(**r) for r in values["history"])
        values["search"] = tuple(Try(**t) for t in values.get("search", ()))
        values["pilots"] = tuple(PilotRun(**r) for r in values.get("pilots", ()))
        return Report(**values)

    def __str__(self) -> str:
        from fewbits.report.table import text

        return text(self)
