"""What a compressed network costs on machines: time, energy and memory traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fewbits.cli._common import Base, Data, Member, Network
from fewbits.cli._console import Json, show, show_table, writable
from fewbits.cli._deploy import Recipe, named, network_and_inputs
from fewbits.cli._price_private import CKKS, encrypted

if TYPE_CHECKING:
    from fewbits.hardware import Price


def machines(
    name: Annotated[str | None, typer.Argument(help="Show the YAML of this one, to begin your own with.")] = None,
) -> None:
    """The machines that come with fewbits, and what of each was compared with published figures."""
    from fewbits.hardware import machine_names, machine_of, machine_text

    if name is not None:
        show(machine_text(name).rstrip())
        return
    width = max(map(len, machine_names()))
    show(f"{CKKS:<{width}}  this machine, on encrypted inputs; timed by a short probe, with the extra private")
    for each in machine_names():
        found = machine_of(each)
        area = "" if found.area_mm2 is None else f"; {found.area_mm2.value:g} mm2"
        show(f"{each:<{width}}  {found.about}{area}")
        for line in found.checked:
            show(f"{'':<{width}}    checked: {line}")


def price(
    file: Annotated[Path, typer.Argument(help="A .few file.")],
    machine: Annotated[
        list[str] | None,
        typer.Option("--machine", help="A name, a YAML file, or ckks (encrypted); several times for several machines."),
    ] = None,
    input_density: Annotated[
        float | None,
        typer.Option("--input-density", min=0, max=1, help="Share of inputs that are not zero; else it is counted."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples that go through a layer together.")] = 1,
    recipe: Recipe = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with pictures to this file.", callback=writable)
    ] = None,
    json_file: Json = None,
) -> None:
    """Time, energy and memory traffic of a file's network on machines, beside the same network without zeros.

    Zeros and levels are those of the file. Zeros of inputs are counted on the data of --recipe, or of --network and
    --data; without them, inputs are taken as dense, or as --input-density says. One machine is shown layer by layer.
    ckks is no machine, but this one, computing on encrypted inputs; ranges are those of the inputs above.
    """
    from fewbits.errors import FewbitsError, RecipeError, UnsupportedError
    from fewbits.hardware import layers, machine_names, machine_of
    from fewbits.hardware import price as priced
    from fewbits.job.folder import write_text
    from fewbits.pipeline import layers_of, opened, operations_of
    from fewbits.pipeline.restore import decoded, integer
    from fewbits.report import prices_page, write_page

    if not machine:
        raise RecipeError(f"name a machine, as --machine {machine_names()[0]}; 'fewbits machines' lists them")
    if CKKS in machine:
        if len(machine) > 1:
            raise RecipeError(f"{CKKS} is priced alone; leave out the other machines")
        encrypted(file, named(recipe, network, data), base, member, json_file)
        return
    wanted = [machine_of(each) for each in machine]
    loaded = named(recipe, network, data)
    coded, origin = opened(file, base or (loaded.base if loaded else None), member)
    like, inputs = network_and_inputs(coded, loaded)
    plan = decoded(coded, like, origin).whole()
    real = loaded is not None and input_density is None and not integer(plan, like)
    shape = tuple(inputs.shape[1:]) if hasattr(inputs, "shape") else inputs
    records = layers_of(plan, like, inputs if real else shape, input_density)
    called = operations_of(plan, like, inputs)
    dense = layers(like, shape)
    found: list[tuple[Price, Price | None]] = []
    for each in wanted:
        try:
            now = priced(records, each, batch, called)
        except UnsupportedError as error:
            if len(wanted) == 1:
                raise
            show(f"{each.name}: {error}")
            continue
        try:
            before = priced(dense, each, batch)
        except FewbitsError:  # what is dense may be too large
            before = None
        found.append((now, before))
    if not found:
        raise UnsupportedError("the network fits none of these machines")
    if len(found) == 1:
        show_table(_layers(found[0][0]))
    show_table(_machines(found))
    known = {str(layer.inputs_known) for layer in records}
    show(f"weights: counted in the file; inputs: {', '.join(sorted(known))}; in brackets: against the dense network")
    for now, _ in found:
        if now.unpriced:
            show(f"{now.machine}: its energy leaves out what it has no figures of: {', '.join(now.unpriced)}")
    if any(one.approximation for one in called):
        show_table(_operations([now for now, _ in found]))
        show("operations are in no sum above; 'not priced': nothing that is known says what it takes there")
    elif called:
        show(f"not priced, as nothing says what the exact ones take: {', '.join(one.name for one in called)}")
    if html is not None:
        shown = {each.name: each for each in wanted}
        write_page(html, prices_page(file.name, [(shown[now.machine], now, before) for now, before in found]))
        show(f"written: {html}")
    if json_file is not None:
        rows = [now.as_dict() | {"dense": before and before.as_dict()} for now, before in found]
        write_text(json_file, json.dumps({"file": file.name, "batch": batch, "prices": rows}, indent=1))


def _table(words: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in words:
        table.add_column(title, no_wrap=True)
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _layers(found: Price) -> Table:
    from fewbits.report.words import si

    table = _table(
        ("layer", "bound by"), ("MACs", "no zero", "cycles", "waiting", "busy", "weights", "moved", "energy")
    )
    outer = next(iter(found.bytes_by_memory))
    for layer in found.layers:
        energy = si(sum(layer.energy_pj.values()) * 1e-12, "J") if layer.energy_pj else "-"
        waiting = layer.stall_cycles / layer.cycles if layer.cycles else 0.0
        table.add_row(
            layer.name, layer.bound, f"{layer.macs:,}", f"{layer.products:,.0f}", f"{layer.cycles:,.0f}",
            f"{100 * waiting:.0f} %", f"{100 * layer.utilization:.0f} %", si(layer.weight_bytes, "B"),
            si(layer.bytes[outer], "B"), energy,
        )  # fmt: skip
    return table


def _machines(found: list[tuple[Price, Price | None]]) -> Table:
    from fewbits.report.words import si

    table = _table(("machine",), ("latency", "", "energy", "", "moved", "", "waiting", "most energy"))
    for now, before in found:
        outer = next(iter(now.bytes_by_memory))
        pairs: list[tuple[str, Any, Any]] = [
            (si(now.seconds, "s"), now.seconds, before and before.seconds),
            ("-" if now.joules is None else si(now.joules, "J"), now.joules, before and before.joules),
            (si(now.bytes_by_memory[outer], "B"), now.bytes_by_memory[outer], before and before.bytes_by_memory[outer]),
        ]
        cells = [text for shown, mine, theirs in pairs for text in (shown, _ratio(mine, theirs))]
        waiting = sum(layer.stall_cycles for layer in now.layers) / now.cycles if now.cycles else 0.0
        parts = now.energy_by_part
        most = max(parts, key=parts.__getitem__) if parts else ""
        share = f"{most} {100 * parts[most] / sum(parts.values()):.0f} %" if most and sum(parts.values()) else "-"
        table.add_row(now.machine, *cells, f"{100 * waiting:.0f} %", share)
    return table


def _operations(found: list[Price]) -> Table:
    from fewbits.report.words import si

    table = _table(("machine", "operation", "computed by"), ("values", "steps each", "cycles", "energy", "area"))
    for now in found:
        for one in now.operations:
            table.add_row(
                now.machine, one.name, one.form, f"{one.values:,}",
                "-" if one.steps is None else f"{one.steps:.1f}",
                "not priced" if one.cycles is None else f"{one.cycles:,.0f}",
                "not priced" if one.energy_pj is None else si(one.energy_pj * 1e-12, "J"),
                "not priced" if one.area_um2 is None else f"{one.area_um2:,.0f} um2",
            )  # fmt: skip
    return table


def _ratio(mine: float | None, theirs: float | None) -> str:
    return f"[{theirs / mine:.2f}x]" if mine and theirs else ""
