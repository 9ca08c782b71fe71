"""A report as lines of text, and the facts that every other view shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from fewbits.errors import visible
from fewbits.report.report import Report, TensorRow
from fewbits.report.words import (
    accuracy,
    allowed,
    duration,
    human,
    lost,
    measure_word,
    percent,
    shorten,
    shorten_all,
    size,
    times,
)

OURS = "this file (.few)"
RATIO_MEANS = "float32 bytes of all parameters and normalisation statistics / file bytes"
OTHERS_MEAN = {
    "clustered": (
        "float32: the network before compression; int8: the same clusters as one byte each (two beyond 8 bits) "
        "and the same floats, without any header"
    ),
    "quantized": (
        "float32: the network before compression; int8: the same integers as one byte each, their scales and the same "
        "floats, without any header"
    ),
    "pruned": "float32: the network before compression; pruned: the same numbers, zeros included, without any header",
}
HEADERS = ("tensor", "shape", "weights", "bits", "zeros %", "bytes", "bits/weight", "entropy")
_SPARE = ("shape", "entropy", "weights", "bits")  # what a narrow terminal loses, in this order
_SHORTEST_NAME = 20
_MAX_NAME = 60
_NAMED = 3  # weights that are not compressed


@dataclass(frozen=True)
class Fact:
    """One line of the summary; ``good`` is ``False`` for what a reader must not overlook."""

    label: str
    value: str
    good: bool | None = None


def text(report: Report, width: int = 100) -> str:
    """The report as plain ASCII lines (names aside) of at most ``width`` characters, if it is 60 or more."""
    return "\n".join(line for line, _ in _lines(report, width))


def render(report: Report, console: Console) -> None:
    """The same lines on a terminal, as wide as it is."""
    for line, style in _lines(report, console.width):
        console.print(Text(visible(line), style=style), soft_wrap=True, highlight=False)


def cells(row: TensorRow) -> dict[str, str]:
    """What the table says of a tensor, by column."""
    return {
        "tensor": row.name,
        "shape": "x".join(map(str, row.shape)),
        "weights": f"{row.weights:,}",
        "bits": str(row.bits),
        "zeros %": percent(row.zeros),
        "bytes": f"{row.bytes:,}",
        "bits/weight": f"{8 * row.bytes / row.weights:.3f}" if row.weights else "-",
        "entropy": f"{row.entropy:.3f}",
    }


def total(report: Report) -> dict[str, str]:
    """The table's last row: sums, and means that are weighted by the tensors' sizes."""
    held, count = clustered_bytes(report), report.weights
    mean = sum(row.entropy * row.weights for row in report.tensors) / count if count else 0.0
    return {
        "tensor": f"all {kind_of(report)} weights",
        "shape": "",
        "weights": f"{count:,}",
        "bits": "",
        "zeros %": percent(report.zeros),
        "bytes": f"{held:,}",
        "bits/weight": f"{8 * held / count:.3f}" if count else "-",
        "entropy": f"{mean:.3f}",
    }


def kind_of(report: Report) -> str:
    """What was done to the weights of the table, in a word: those that keep float numbers were only pruned."""
    return report.kind


def clustered_bytes(report: Report) -> int:
    """Bytes of the file that hold clustered (or pruned) weights; the rest is floats, header and checks."""
    return sum(row.bytes for row in report.tensors)


def title(report: Report) -> str:
    """What was compressed, and how."""
    data = f" on {report.data}" if report.data else ""
    return f"{report.model}{data}, {report.method}, seed {report.seed}"


def facts(report: Report) -> list[Fact]:
    """The totals in words, each with what it is a share of."""
    held = clustered_bytes(report)
    rest, kind = report.file_bytes - held, kind_of(report)
    drop = report.drop
    before, after = (accuracy(value, report.metric) for value in (report.accuracy_before, report.accuracy_after))
    change = "" if drop is None else f" ({lost(drop, report.metric)})"
    parts = f"{held:,} bytes {kind} weights + {rest:,} bytes floats, header, checks"
    bits = Fact("bits per weight", f"{report.bits_per_weight:.3f} = bits of the whole file / {kind} weights")
    some = bool(report.tensors)  # else only channels went, and all that is left are floats
    return [
        Fact("file", size(report.file_bytes)),
        *([Fact("", parts)] if some else []),
        *_rest(report),
        *_operations(report),
        Fact("ratio", f"{times(report.ratio)} against {size(report.float_bytes)}"),
        Fact("", f"= {RATIO_MEANS}"),
        *([Fact("zeros", _zeros(report, kind))] if some else []),
        *_multiplications(report),
        *([bits] if some else []),
        Fact(measure_word(report.metric), f"{before} -> {after} on {report.split} data{change}"),
        _budget(report),
        *_piloted(report),
        *_search(report),
        Fact(
            "decoded == compressed",
            {True: "yes", False: "NO", None: "not checked"}[report.identical],
            report.identical,
        ),
        Fact("time", f"{duration(report.seconds)}, {report.steps:,} training steps"),
    ]


def _rest(report: Report) -> list[Fact]:
    """What stays as it is, with its share of the bytes; weights by their names, and why they were left."""
    if not report.rest:
        return []
    held, count = sum(row.bytes for row in report.rest), len(report.rest)
    words = f"{held:,} bytes, {percent(held / report.file_bytes)} % of the file, in {count} "
    words += "tensor" if count == 1 else "tensors"
    weights = sorted((row for row in report.rest if len(row.shape) > 1), key=lambda row: -row.bytes)
    if not weights or not report.tensors:
        return [Fact("not compressed", words)]
    named = "; ".join(f"{row.name}, {row.bytes:,} bytes: {row.why or 'floats'}" for row in weights[:_NAMED])
    more = f"; and {len(weights) - _NAMED} more of two or more dimensions" if len(weights) > _NAMED else ""
    return [Fact("not compressed", f"{words}"), Fact("", f"{named}{more}")]


def _operations(report: Report) -> list[Fact]:
    """What was swapped: each operation with its bound, and the place at which the measured error is largest."""
    found: list[Fact] = []
    for name in dict.fromkeys(row.operation for row in report.operations):
        own = [row for row in report.operations if row.operation == name]
        worst = max(own, key=lambda row: row.error or 0.0)
        bounds = [row.bound for row in own if row.bound is not None]
        share = " of the exact value" if worst.relative else ""
        proven = f"error at most {max(bounds):.2g}{share}" if len(bounds) == len(own) else "no bound is proven"
        words = f"{worst.words}: {proven}"
        if worst.error is not None:
            at = (
                f" of {len(own)} places, at {worst.place}"
                if len(own) > 1
                else f" at {worst.place or 'the network itself'}"
            )
            words += (
                f"; measured {worst.error:.2g}, the largest{at}"
                if len(own) > 1
                else f"; measured {worst.error:.2g}{at}"
            )
        found.append(Fact("" if found else "operations", words))
    return found


def _zeros(report: Report, kind: str) -> str:
    """Sparsity with its denominator; of a pruned network, also of all its parameters."""
    told = f"{percent(report.zeros)} % of the {kind} weights ({report.weights:,})"
    if "prune" in report.recipe and report.parameters:
        share = report.zeros * report.weights / report.parameters
        told += f", {percent(share)} % of all {report.parameters:,} parameters"
    return told


def _multiplications(report: Report) -> list[Fact]:
    if report.macs is None or report.macs_left is None:
        return []
    share = percent(report.macs_left / report.macs) if report.macs else "-"
    words = f"{report.macs_left:,} of {report.macs:,} per sample are with weights that are not zero ({share} %)"
    return [Fact("multiplications", words)]


def _budget(report: Report) -> Fact:
    asked = []
    if report.target is not None:
        asked.append(f"at most {size(report.target)}")
    if report.max_drop is not None:
        asked.append(allowed(report.max_drop, report.metric))
    if not asked:
        lam = report.history[-1].lam if report.history else 0.0
        if "lam" in report.recipe.get("assign", {}) or not lam:
            return Fact("budget", "none was asked for")
        natural = human(max(1, round(report.float_bytes / 20)))
        return Fact("budget", f"none was asked for, so lambda was {lam:g}; say target={natural}, or max_drop=0.5")
    outcome = {True: "met", False: "NOT MET", None: "not checked"}[report.met]
    return Fact("budget", f"{' and '.join(asked)}: {outcome}", report.met)


WRITTEN = {
    "settled": "the end of the training",
    "filled": "the end of the training, single weights moved to reach the target",
    "round": "the best of a round",
    "smaller": "a larger lambda than the training's last",
    "larger": "a smaller lambda than the training's last",
}
"""Where a candidate of the final search comes from, in words."""


def _search(report: Report) -> list[Fact]:
    """The controller's path in a line: where lambda went, and what the final search chose."""
    kept = next((t for t in report.search if t.kept), None)
    if kept is None or (report.target is None and report.max_drop is None):
        return []
    rounds, tries = len(report.history), len(report.search)
    words = f"lambda {kept.lam:.4g} after {rounds:,} {'round' if rounds == 1 else 'rounds'}"
    words += f"; of {tries} final candidates" if tries > 1 else "; the only final candidate"
    return [Fact("search", f"{words}: {WRITTEN.get(kept.what, kept.what)}")]


def _piloted(report: Report) -> list[Fact]:
    """What the bits, or the size, were chosen by."""
    if not report.pilots:
        return []
    bits = next((row.bits for row in report.tensors), 0)
    runs = [(r.bits, f"{accuracy(r.accuracy, report.metric)} at {r.bytes:,} bytes") for r in report.pilots]
    if report.max_drop is None:
        seen = ", ".join(f"{bits}: {words}" for bits, words in runs)
        return [Fact("bits", f"{bits}, after short trainings with {seen}")]
    seen = ", ".join(f"{words} with {bits} bits" for bits, words in runs)
    return [Fact("pilots", f"{seen} in short trainings")]


def comparison(report: Report) -> list[tuple[str, int, float]]:
    """``(name, bytes, ratio against float32)``: this file, the others, and no compression."""
    sizes = {OURS: report.file_bytes, **report.others, "float32, uncompressed": report.float_bytes}
    return [(name, count, report.float_bytes / count) for name, count in sizes.items()]


def _lines(report: Report, width: int) -> Iterator[tuple[str, str]]:
    """Pairs of line and rich style."""
    yield shorten(title(report), width), "bold"
    yield "", ""
    if report.tensors:
        yield from _tensors(report, width)
        yield "", ""
    known = facts(report)
    indent = max(len(fact.label) for fact in known)
    for fact in known:
        style = {True: "green", False: "bold red", None: ""}[fact.good]
        for number, part in enumerate(_wrapped(fact.value, width - indent - 2)):
            yield f"{fact.label if number == 0 else '':<{indent}}  {part}", style
    yield "", ""
    named = comparison(report)
    first = max(len(name) for name, _, _ in named)
    yield f"{'the same network as':<{first}}  {'bytes':>13}  {'ratio':>8}", "bold"
    for name, count, ratio in named:
        yield f"{name:<{first}}  {count:>13,}  {times(ratio):>8}", "green" if name == OURS else ""
    if report.others:
        for part in _wrapped(f"({OTHERS_MEAN[kind_of(report)]})", width):
            yield part, "dim"


def _tensors(report: Report, width: int) -> Iterator[tuple[str, str]]:
    rows = [dict(zip(HEADERS, HEADERS, strict=True)), *map(cells, report.tensors), total(report)]
    columns = list(HEADERS)
    widths = {c: max(len(row[c]) for row in rows) for c in columns}
    longest = min(_MAX_NAME, widths["tensor"])

    def room() -> int:
        return width - sum(widths[c] + 2 for c in columns[1:])

    for spare in _SPARE:
        if room() < min(longest, _SHORTEST_NAME):
            columns.remove(spare)
    every = [row["tensor"] for row in rows]
    short = shorten_all(every, names := max(8, min(longest, room())))
    if "shape" in columns and len(set(short)) < len(set(every)):  # better to see which tensor it is
        columns.remove("shape")
        short = shorten_all(every, names := max(8, min(longest, room())))
    for number, row in enumerate(rows):
        if number == len(rows) - 1:
            yield "-" * (names + sum(widths[c] + 2 for c in columns[1:])), "dim"
        parts = [f"{short[number]:<{names}}"]
        parts += [f"{row[c]:<{widths[c]}}" if c == "shape" else f"{row[c]:>{widths[c]}}" for c in columns[1:]]
        yield "  ".join(parts).rstrip(), "bold" if number in (0, len(rows) - 1) else ""


def _wrapped(words: str, width: int) -> Iterator[str]:
    """Lines of at most ``width`` characters, broken between words where there are any."""
    line = ""
    for word in words.split(" "):
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
