"""How far a compression is, on the terminal of whoever called it from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fewbits.pipeline.stages._work import Progress as Update

Shown = Update | Literal["bar"] | None
"""A function that is told, a bar on a terminal, or nothing."""


@contextmanager
def telling(progress: Shown, accelerator: Accelerator) -> Iterator[Update | None]:
    """What is told of progress: the caller's function, or a bar on standard error where that is a terminal.

    Of several processes the main one shows it.
    """
    if progress != "bar":
        yield progress
        return
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal or not accelerator.is_main_process:
        yield None
        return
    columns = (
        BarColumn(bar_width=10),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        # On a narrow terminal this one gives way, not the figures before it.
        TextColumn("{task.fields[state]}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("", total=None, state="the network as it is")

        def update(done: int, total: int, state: str) -> None:
            bar.update(task, completed=done, total=total, state=state)

        update.every_step = True  # type: ignore[attr-defined]
        yield update
