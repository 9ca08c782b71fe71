"""Commands that need a runtime: exporting a ``.few`` file, and timing what was exported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fewbits.cli._common import Data, Network, given
from fewbits.cli._console import Json, show, show_table

if TYPE_CHECKING:
    from torch import nn

    from fewbits.deploy.onnx import Exported
    from fewbits.deploy.tflite import TfliteExport
    from fewbits.plan import Plan
    from fewbits.recipe import Recipe as Loaded

SAMPLES = 16  # on which torch and ONNX Runtime are compared

Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="The recipe the file was made with: its network, and its data to compare on."),
]


def named(recipe: str | None, network: str | None, data: str | None) -> Loaded | None:
    """What a command names beside a ``.few`` file: a recipe, or a network and data; ``None`` if neither.

    Raises:
        RecipeError: no such recipe, or a network without data.
    """
    if recipe is None and network is None and data is None:
        return None
    return given(recipe, None, network, data)


def network_and_inputs(data: bytes, recipe: Loaded | None) -> tuple[nn.Module, Any]:
    """An untrained network for a ``.few`` file, and inputs: of the recipe, or of the zoo by the name in the file.

    Raises:
        RecipeError: the name is none of the zoo's.
    """
    import torch

    from fewbits import codec, job, zoo
    from fewbits.errors import RecipeError
    from fewbits.job.batches import some_batches
    from fewbits.task import first_of

    if recipe is not None:
        made = job.skeleton(recipe)
        inputs = first_of(some_batches(made.dataset, made.feed, SAMPLES)[0][0], SAMPLES)
        return made.network, inputs
    name = str(codec.inspect(data).header.get("model", ""))
    if name not in zoo.NETWORKS:
        raise RecipeError(
            f"the file is of {name!r}, which is no network of the zoo: give --recipe, or --network and --data "
            "(mine.py:Net and mine.py:loaders)"
        )
    generator = torch.Generator().manual_seed(0)
    return zoo.build(name, seed=0).eval(), torch.randn(SAMPLES, *zoo.INPUTS[name], generator=generator)


def to_onnx(
    file: Path, out: Path, recipe: Loaded | None, base: Path | None = None, member: str | None = None
) -> Exported:
    """Export a ``.few`` file after its network and the export agreed; see :func:`fewbits.deploy.onnx.to_onnx`."""
    from fewbits.deploy.onnx import to_onnx as export

    _, network, plan, inputs = restored(file, recipe, base, member)
    return export(network, inputs, out, plan=plan)


def restored(
    file: Path, recipe: Loaded | None, base: Path | None, member: str | None
) -> tuple[nn.Module, nn.Module, Plan, Any]:
    """An untrained network for a ``.few`` file, the file's own, its whole plan, and inputs."""
    from fewbits.pipeline import opened
    from fewbits.pipeline.restore import restore

    data, origin = opened(file, base or (recipe.base if recipe else None), member)
    like, inputs = network_and_inputs(data, recipe)
    network, plan = restore(data, like, origin)
    return like, network, plan.whole(), inputs


def told(file: Path, out: Path, written: Exported, recipe: Loaded | None) -> None:
    """Say what became of a file: both sizes, how well the outputs agree, and what ONNX cannot hold."""
    from fewbits.report.words import human

    size = file.stat().st_size
    show(
        f"{out}: {human(written.bytes)}, {file.name} has {human(size)}; outputs of torch and ONNX Runtime differ by "
        f"{100 * written.agreement.difference:.2g} % on {SAMPLES} {'validation samples' if recipe else 'random inputs'}"
    )
    for note in written.notes:
        show(f"note: {note}")
    if written.bytes > size:
        show("note: ONNX stores numbers as they are; a .few file codes them")


def to_tflite(
    file: Path, out: Path, recipe: Loaded | None, base: Path | None = None, member: str | None = None, lut: bool = False
) -> TfliteExport:
    """Export a ``.few`` file with integer activations; see :func:`fewbits.deploy.tflite.to_tflite`."""
    from fewbits.deploy.tflite import to_tflite as export

    _, network, plan, inputs = restored(file, recipe, base, member)
    return export(network, inputs, out, plan=plan, lut=lut)


def told_of_tflite(file: Path, out: Path, written: TfliteExport, recipe: Loaded | None) -> None:
    """Say what became of a file: both sizes, how well the outputs agree, its operations."""
    from fewbits.report.words import human

    data = f"{SAMPLES} {'validation samples' if recipe else 'random inputs'}"
    show(
        f"{out}: {human(written.bytes)}, {file.name} has {human(file.stat().st_size)}; {100 * written.equal:.3g} % of "
        f"the output levels of LiteRT are torch's, and {100 * written.near:.3g} % within one, on {data}"
    )
    show("operations: " + ", ".join(f"{name} {count}" for name, count in sorted(written.operations.items())))
    if written.tables is not None:
        tables = written.tables
        show(
            f"{tables.tables} weights as look-up tables, for TFLite-Micro only: {human(tables.plain_bytes)} without; "
            f"values take at least {human(tables.memory)} of RAM, and {human(tables.plain_memory)} without tables"
        )
    for note in written.notes:
        show(f"note: {note}")


def bench_latency(
    files: Annotated[list[Path], typer.Argument(help="ONNX models, or .few files, which are exported first.")],
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch sizes; default: 1 and 64.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that an operation may use.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often the models take turns.")] = 30,
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    json_file: Json = None,
) -> None:
    """Latency and throughput in ONNX Runtime, the models taking turns; all are compared with the first.

    In front of a .few file given first, its own network in float32 is measured.
    """
    import json
    import tempfile
    from importlib.metadata import version

    from fewbits.deploy.latency import measure_latency
    from fewbits.deploy.onnx import to_onnx as export
    from fewbits.errors import RecipeError
    from fewbits.files import read
    from fewbits.job.folder import write_text
    from fewbits.report.provenance import provenance

    models: dict[str, bytes] = {}
    loaded = named(recipe, network, data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.onnx"
        for file in files:
            model = read(file)
            if file.suffix == ".few":
                if not models:
                    export(*network_and_inputs(model, loaded), place)
                    models["dense float32"] = place.read_bytes()
                to_onnx(file, place, loaded)
                model = place.read_bytes()
            name = file.name if file.name not in models else str(file)
            if name in models:
                raise RecipeError(f"{file} is given twice")
            models[name] = model
    rows = measure_latency(models, batches=batch or (1, 64), threads=threads, rounds=rounds)
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("bytes", "batch", "median", "10 to 90 %", "samples/s", "speed-up"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        spread = f"{1000 * row.fast:.3g} to {1000 * row.slow:.3g}"
        figures = (f"{1000 * row.seconds:.3g} ms", spread, f"{row.throughput:,.0f}", f"{row.speedup:.2f}x")
        table.add_row(row.name, f"{row.bytes:,}", str(row.batch), *figures)
    show_table(table)
    first = next(iter(models))
    show(f"ONNX Runtime {version('onnxruntime')}, {threads} thread{'s' * (threads > 1)}; speed-up against {first}")
    if json_file is not None:
        head = provenance("bench-latency", "fewbits bench-latency")
        head["versions"]["onnxruntime"] = version("onnxruntime")
        figures_of = [
            {"model": row.name, **asdict(row), "versus": first, "samples_per_second": row.throughput} for row in rows
        ]
        write_text(json_file, json.dumps(head | {"rows": figures_of}, indent=1))
