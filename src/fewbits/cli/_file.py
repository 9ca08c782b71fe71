"""Commands that need nothing but a ``.few`` file: what it holds, and the same numbers in other formats."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewbits.cli._common import Data, Network
from fewbits.cli._console import Json, show, show_rows, writable
from fewbits.cli._deploy import Recipe, named, to_onnx, told

if TYPE_CHECKING:
    from fewbits.codec import Decoded

File = Annotated[Path, typer.Argument(help="A .few file.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=0, help="Decode only files of at most so many numbers; default: 2^18, and 256 for each byte."
    ),
]

_TITLES = (
    *("tensor", "kind", "shape", "coder"),
    *("numbers", "bits", "bytes", "bits/number", "entropy", "ratio", "decoding"),
)


def inspect(file: File, limit: Limit = None, json_file: Json = None) -> None:
    """What a file holds: tensors, bits, bytes, and how good its coding is. Checks every checksum; needs no network."""
    from dataclasses import asdict

    from fewbits import codec, files
    from fewbits.job.folder import write_text
    from fewbits.report.words import human

    data = files.read(file)
    found = codec.examine(data, limit=limit)
    summary, sections = found.summary, found.sections
    # A masked tensor may have two sections: its line is about the mask.
    decoded = {row.name: row for row in sorted(sections, key=lambda row: row.entropy_bits is not None)}
    rows = []
    for t in summary.tensors:
        shape = "x".join(str(s) for s in t.shape) or "-"
        rate = f"{8 * t.coded_bytes / t.count:.3f}" if t.count else "-"
        row = decoded.get(t.name)
        entropy = f"{row.entropy_bits:.3f}" if row is not None and row.entropy_bits is not None else ""
        ratio = f"{row.coded_bits / row.entropy_bits:.3f}" if row is not None and row.entropy_bits else ""
        time = f"{1000 * row.seconds:.2f} ms" if row is not None else ""
        figures = (f"{t.count:,}", str(t.bits), f"{t.coded_bytes:,}", rate, entropy, ratio, time)
        rows.append((" = ".join((t.name, *t.aliases)), t.kind, shape, t.coder, *figures))
    show_rows(_TITLES, rows, words=4)
    show(
        f"{file.name}: {human(summary.file_bytes)} ({summary.file_bytes:,} bytes), format version {summary.version}, "
        f"{summary.count:,} numbers, {8 * summary.file_bytes / max(1, summary.count):.3f} bits each; "
        f"{summary.overhead_bytes} bytes are names, header and checksums"
    )
    for one in summary.operations:
        bound = "no bound" if one.bound is None else f"error at most {one.bound:.2g}{' of it' * one.relative}"
        show(f"computes {one.words} ({bound}; {one.numbers} numbers)")
    if sections:
        show(_coding(sections))
    elif found.left is not None:
        show(f"not decoded: {found.left} (--limit)")
    if summary.header:
        show(f"header: {json.dumps(summary.header)}")
    show(f"sha256 {summary.file_hash}")
    if json_file is not None:
        figures_of = asdict(summary) | {"decoded": [asdict(row) for row in sections]}
        write_text(json_file, json.dumps(figures_of, indent=1))


def _coding(rows: list[Decoded]) -> str:
    told = f"decoded in {1000 * sum(row.seconds for row in rows):.1f} ms on one thread"
    entropy = sum((row.entropy_bits or 0.0) * row.count for row in rows)
    if not entropy:
        return told
    coded = sum(row.coded_bits * row.count for row in rows if row.entropy_bits is not None)
    return f"levels and masks take {coded / entropy:.3f} times their zero-order entropy, tensor by tensor; {told}"


class Format(StrEnum):
    SAFETENSORS = "safetensors"
    NNC = "nnc"
    ONNX = "onnx"


def export(
    file: File,
    to: Annotated[Format, typer.Option("--to", help="safetensors: float weights; nnc: ISO/IEC 15938-17; onnx: runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: beside the file.", callback=writable)
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="safetensors: integer levels and step sizes, not float weights.")
    ] = False,
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    limit: Limit = None,
) -> None:
    """Write the network in a .few file in another format.

    onnx needs the network: one of the zoo by the name in the file, or --recipe, or --network and --data. It is run, and
    compared, before it is written.
    """
    if levels and to is not Format.SAFETENSORS:
        raise typer.BadParameter("--levels goes with --to safetensors")
    for option, value in (("--recipe", recipe), ("--network", network), ("--data", data)):
        if value is not None and to is not Format.ONNX:
            raise typer.BadParameter(f"{option} goes with --to onnx")

    from fewbits import codec, deploy, files
    from fewbits.report.words import human

    if to is Format.ONNX:
        target = out or file.with_suffix(".onnx")
        writable(target)
        loaded = named(recipe, network, data)
        told(file, target, to_onnx(file, target, loaded), loaded)
        return
    coded = files.read(file)
    plan = codec.decode(coded, codec.shapes(coded, limit=limit))
    target = out or file.with_suffix(f".{to.value}")
    writable(target)
    if to is Format.NNC:
        written = deploy.to_nnc(plan, target)
        show(
            f"{target}: {human(written.bytes)} for {written.count:,} levels in {written.tensors} tensors, "
            f"which were read back and are the same; {len(plan) - written.tensors} other tensors, step sizes and "
            f"codebooks have no place in this file"
        )
        return
    size = deploy.to_safetensors(plan, target, levels=levels)
    show(f"{target}: {human(size)}, {len(plan)} tensors; {file.name} has {human(len(coded))}")
