"""What a file's network costs on encrypted inputs, without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fewbits.cli._console import show, show_table
from fewbits.cli._deploy import restored

if TYPE_CHECKING:
    from fewbits.private import Parameters
    from fewbits.private.beyond import BeyondPrice
    from fewbits.private.price import PrivatePrice, Seconds
    from fewbits.recipe import Recipe as Loaded

CKKS = "ckks"


def encrypted(file: Path, recipe: Loaded | None, base: Path | None, member: str | None, json_file: Path | None) -> None:
    """Operations, bytes, precision and seconds of a file's network in each profile.

    What a network would take that is refused, is told by published times.
    """
    from fewbits.errors import UnsupportedError
    from fewbits.job.folder import write_text
    from fewbits.private import PROFILES, compile_network
    from fewbits.private.beyond import PUBLISHED_RUNS, beyond
    from fewbits.private.price import price_of

    _, network, _, inputs = restored(file, recipe, base, member)
    found: dict[str, PrivatePrice] = {}
    refused = ""
    for profile in PROFILES:
        try:
            program = compile_network(network, inputs, profile=profile)
        except UnsupportedError as error:
            refused = str(error)
            continue
        found[profile] = price_of(program, inputs, _probed(program.profile.parameters))
    if not found:
        far = beyond(network, inputs)
        show(f"not computed here: {refused}")
        show_table(_beyond(far))
        show("predicted from published times over their bootstraps, linear layers included; nothing was run:")
        for one in PUBLISHED_RUNS:
            show(f"  {one.network}: {one.seconds:g} s, {one.bootstraps} bootstraps; {one.where}")
        if json_file is not None:
            whole = {"file": file.name, "machine": CKKS, "refused": refused, "prices": [], "beyond": far.as_dict()}
            write_text(json_file, json.dumps(whole, indent=1))
        return
    show_table(_table(found))
    if len(found) < len(PROFILES):
        show(f"not in the other profile: {refused}")
    probed = all(one.probed for one in found.values())
    times = "of each operation, measured here" if probed else "estimated, since tenseal is not installed"
    of = "samples" if recipe else "random inputs"
    show(f"seconds of one thread: {times}; ranges and precision: {len(inputs)} {of}")
    if json_file is not None:
        rows = [{"profile": profile} | one.as_dict() for profile, one in found.items()]
        write_text(json_file, json.dumps({"file": file.name, "machine": CKKS, "prices": rows}, indent=1))


def _probed(parameters: Parameters) -> Seconds | None:
    from fewbits.errors import MissingExtraError
    from fewbits.private.price import calibrate

    try:
        return calibrate(parameters)
    except MissingExtraError:
        return None


def _beyond(far: BeyondPrice) -> Table:
    from fewbits.report.words import si

    def between(seconds: tuple[float, float]) -> str:
        return " to ".join(si(second, "s") for second in seconds)

    table = Table(box=None, pad_edge=False)
    for title in ("with", "how many", "predicted"):
        table.add_column(title, no_wrap=True)
    table.add_row("ckks, bootstrapping", f"{far.bootstraps:,} in {far.activations:,} steps", between(far.ckks_seconds))
    table.add_row("tfhe, look-ups", f"{far.numbers:,}", f"{between(far.tfhe_seconds)} of one thread")
    return table


def _table(found: dict[str, PrivatePrice]) -> Table:
    from fewbits.report.words import si

    rows: list[tuple[str, Any]] = [
        ("latency", lambda one: si(one.seconds, "s")),
        ("precision", lambda one: f"{one.precision_bits:.1f} bits"),
        ("stated error", lambda one: f"{one.error:.2g}"),
        ("rotations, by level", lambda one: f"{one.rotations} ({' '.join(map(str, one.rotations_by_level))})"),
        ("products", lambda one: f"{one.products:,}"),
        ("rescales", lambda one: str(one.rescales)),
        ("levels", lambda one: str(one.levels)),
        ("degree", lambda one: f"{one.degree:,}"),
        ("modulus", lambda one: f"{one.modulus_bits:.1f} bits"),
        ("keys", lambda one: f"{one.keys} + 1, {si(one.key_bytes, 'B')}"),
        ("input", lambda one: si(one.input_bytes, "B")),
        ("answer", lambda one: si(one.answer_bytes, "B")),
    ]
    table = Table(box=None, pad_edge=False)
    table.add_column("ckks", no_wrap=True)
    for profile in found:
        table.add_column(profile, justify="right", no_wrap=True)
    for title, cell in rows:
        table.add_row(title, *map(cell, found.values()))
    return table
