"""Commands that need nothing but a ``.few`` file: what it holds, and the same numbers in other formats."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewbits.cli._common import Base, Data, Member, Network
from fewbits.cli._console import Json, separate, show, show_rows, writable
from fewbits.cli._deploy import Recipe, named, to_onnx, to_tflite, told, told_of_tflite
from fewbits.cli._vela import told_of_vela

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


def inspect(file: File, base: Base = None, member: Member = None, limit: Limit = None, json_file: Json = None) -> None:
    """What a file holds: tensors, bits, bytes, and how good its coding is. Checks every checksum; needs no network.

    Of a file of differences, --base has the names; without it the size is told, and which base it needs.
    """
    from dataclasses import asdict

    from fewbits import codec
    from fewbits.job.folder import write_text
    from fewbits.pipeline import opened
    from fewbits.report.words import human

    data, origin = opened(file, base, member)
    found = codec.examine(data, limit=limit, base=origin)
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
        kind = f"{t.kind} difference" if t.difference and t.kind != "same" else t.kind
        rows.append((" = ".join((t.name, *t.aliases)), kind, shape, t.coder, *figures))
    if rows or summary.base is None:
        show_rows(_TITLES, rows, words=4)
    size = f"{file.name}: {human(summary.file_bytes)} ({summary.file_bytes:,} bytes), format version {summary.version}"
    if rows or summary.base is None:
        show(
            f"{size}, {summary.count:,} numbers, {8 * summary.file_bytes / max(1, summary.count):.3f} bits each; "
            f"{summary.overhead_bytes} bytes are names, header and checksums"
        )
    else:
        show(f"{size}; its tensors are told with its base (--base)")
    for one in summary.operations:
        bound = "no bound" if one.bound is None else f"error at most {one.bound:.2g}{' of it' * one.relative}"
        show(f"computes {one.words} ({bound}; {one.numbers} numbers)")
    if summary.base is not None:
        show(f"holds differences to the base {summary.base}")
    show(f"identity {summary.identity}, by which files of differences know it as their base")
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
    TFLITE = "tflite"
    VELA = "vela"


SUFFIXES = {to: f".{to.value}" for to in Format} | {Format.VELA: "_vela.tflite"}
RUNS = (Format.ONNX, Format.TFLITE, Format.VELA)  # in a runtime, on inputs of the network's


def export(
    file: File,
    to: Annotated[
        Format, typer.Option("--to", help="safetensors: float weights; nnc: ISO/IEC 15938-17; onnx, tflite, vela: run.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: beside the file.", callback=writable)
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="safetensors: integer levels and step sizes, not float weights.")
    ] = False,
    lut: Annotated[
        bool, typer.Option("--lut", help="tflite: weights as look-up tables, which TFLite-Micro alone unpacks.")
    ] = False,
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    limit: Limit = None,
    accelerator: Annotated[
        str | None, typer.Option("--accelerator", help="vela: for which Ethos-U; default: ethos-u55-128.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="vela: a system of its vela.ini.")] = None,
    memory_mode: Annotated[
        str | None, typer.Option("--memory-mode", help="vela: a memory mode of its vela.ini; default: Shared_Sram.")
    ] = None,
) -> None:
    """Write the network in a .few file in another format.

    Of a file of differences (--base) the whole network is written.

    onnx, tflite and vela need the network: one of the zoo by the name in the file, or --recipe, or --network and
    --data. It is run, and compared, before it is written. tflite and vela are for files with integer activations; vela
    compiles for an Arm Ethos-U, and says what it takes there.
    """
    if levels and to is not Format.SAFETENSORS:
        raise typer.BadParameter("--levels goes with --to safetensors")
    if lut and to is not Format.TFLITE:
        raise typer.BadParameter("--lut goes with --to tflite")
    for option, value in (("--recipe", recipe), ("--network", network), ("--data", data)):
        if value is not None and to not in RUNS:
            raise typer.BadParameter(f"{option} goes with --to {', '.join(RUNS)}")
    chosen = {"accelerator": accelerator, "system": system, "memory_mode": memory_mode}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if chosen and to is not Format.VELA:
        raise typer.BadParameter("--accelerator, --system and --memory-mode go with --to vela")

    from fewbits import codec, deploy
    from fewbits.pipeline import opened
    from fewbits.report.words import human

    if not file.name:
        raise typer.BadParameter(f"{file} is not the path of a file")
    target = out or file.with_name(f"{file.stem}{SUFFIXES[to]}")
    separate(target, file, network, base, file.with_name("float.safetensors"))
    if to is Format.ONNX:
        loaded = named(recipe, network, data)
        told(file, target, to_onnx(file, target, loaded, base, member), loaded)
        return
    if to is Format.TFLITE:
        loaded = named(recipe, network, data)
        told_of_tflite(file, target, to_tflite(file, target, loaded, base, member, lut), loaded)
        return
    if to is Format.VELA:
        told_of_vela(file, target, named(recipe, network, data), chosen, base, member)
        return
    coded, origin = opened(file, base, member)
    plan = codec.decode(coded, codec.shapes(coded, limit=limit, base=origin), base=origin).whole()
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
