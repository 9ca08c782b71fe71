"""What the commands say, and where."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fewbits.errors import visible


class _Console(Console):
    """What is printed without a reader is lost, and the command goes on: it may have files to write."""

    def on_broken_pipe(self) -> None:
        to_nowhere(self)


def to_nowhere(console: Console) -> None:
    """Print no more; what still lies in buffers, which Python writes at its end, goes nowhere, too."""
    console.quiet = True
    with suppress(io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.file.fileno())
        os.close(nowhere)


out_console = _Console(highlight=False, markup=False, emoji=False)
err_console = _Console(stderr=True, highlight=False, markup=False, emoji=False)


def show(line: str) -> None:
    """A line as it is, also where it is longer than the terminal is wide; nothing in it controls the terminal."""
    out_console.print(visible(line, "\n\t"), soft_wrap=True)


def say(line: str) -> None:
    """The same on standard error: what goes on, and what went wrong."""
    err_console.print(visible(line, "\n\t"), soft_wrap=True)


def show_table(table: Table) -> None:
    """A table in its full width: cut-off names and figures are worth nothing, and a pipe has no width."""
    width = Measurement.get(out_console, out_console.options.update(width=10_000), table).maximum
    if not out_console.quiet:
        _Console(file=out_console.file, width=width, highlight=False, markup=False, emoji=False).print(table)


def show_rows(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> None:
    """The same for as many rows as a file of a stranger may ask for; a :class:`~rich.table.Table` takes 2 ms for each.

    Args:
        words: so many columns at the start are words, which stand on the left; figures stand on the right.
    """
    cells = [list(titles), *([visible(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            padded.append(cell + space if i < words else space + cell)
        lines.append("  ".join(padded).rstrip() + "\n")
    if not out_console.quiet:
        try:
            out_console.file.write("".join(lines))
            out_console.file.flush()
        except BrokenPipeError:
            to_nowhere(out_console)


def writable(path: Path | None) -> Path | None:
    """Refuse before the work, not after it, what could not be written."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        why = "it is a folder" if path.is_dir() else f"there is no folder {path.absolute().parent}"
        raise typer.BadParameter(f"{path} cannot be written: {why}")
    return path


def separate(target: Path, *inputs: str | Path | None) -> Path:
    """Refuse to write over what a command reads, and over the float network that lies beside a file.

    Args:
        inputs: paths, or what may be one: names of other things are no files.
    """
    for given in inputs:
        if given is not None and Path(given).is_file() and target.resolve() == Path(given).resolve():
            raise typer.BadParameter(f"{target} is read here, and would be lost: name another file to write")
    writable(target)
    return target


Json = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the figures to this JSON file.", callback=writable),
]
