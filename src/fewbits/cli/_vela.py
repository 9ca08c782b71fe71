"""``fewbits export --to vela``: a file for an Ethos-U, and what it takes there beside what fewbits says itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fewbits.cli._console import show, show_table
from fewbits.cli._deploy import restored

if TYPE_CHECKING:
    from fewbits.recipe import Recipe


def told_of_vela(
    file: Path, out: Path, recipe: Recipe | None, chosen: dict[str, Any], base: Path | None, member: str | None
) -> None:
    """Compile a ``.few`` file, and say what became of it.

    Args:
        chosen: accelerator, system and memory mode, as of :func:`fewbits.deploy.vela.to_vela`.
    """
    from fewbits.deploy.vela import to_vela
    from fewbits.hardware import machine_names, machine_of, price
    from fewbits.pipeline import layers_of
    from fewbits.report.words import human

    like, network, plan, inputs = restored(file, recipe, base, member)
    found = to_vela(network, inputs, out, plan=plan, **chosen)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for title in ("weight bytes", "SRAM", "flash", "DRAM", "cycles", "of multipliers"):
        table.add_column(title, justify="right", no_wrap=True)
    memory = (human(found.sram), human(found.flash), human(found.dram))
    table.add_row("Vela", f"{found.weight_bytes:,}", *memory, f"{found.cycles:,}", f"{found.npu_cycles:,}")
    if found.accelerator in machine_names():
        own = price(layers_of(plan, like, tuple(inputs.shape[1:])), machine_of(found.accelerator))
        coded = sum(layer.weight_bytes for layer in own.layers)
        compute = sum(layer.compute_cycles for layer in own.layers)
        table.add_row("fewbits price", f"{coded:,.0f}", "", "", "", f"{own.cycles:,.0f}", f"{compute:,.0f}")
    show_table(table)
    show(
        f"{out}: {human(found.bytes)} for {found.accelerator} ({found.system}, {found.memory_mode}), {file.name} has "
        f"{human(file.stat().st_size)}; {found.weights:,} weights; {found.npu} operations on the accelerator, "
        f"{found.cpu} left to the processor"
    )
    if found.patterned:
        saves = "which it skips" if found.accelerator.startswith("ethos-u85") else "which only Ethos-U85 skips"
        show(f"weights with zeros in a 2:4 pattern, {saves}: {found.patterned}")
    for note in found.tflite.notes:
        show(f"note: {note}")
