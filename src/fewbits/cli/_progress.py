"""How far a command is, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fewbits.cli._console import err_console, say

Update = Callable[[int, int, str], None]


@contextmanager
def progress() -> Iterator[Callable[[str], Update]]:
    """Progress on standard error: what runs, how far, and its state in a few words.

    Bars on a terminal; in a file or a pipe, a line for every tenth of the work, and one where it begins.
    """
    if not err_console.is_terminal:
        yield _lines
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=10),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        # On a narrow terminal this one gives way, not the figures before it.
        TextColumn("{task.fields[state]}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=err_console, transient=True, expand=True) as bar:

        def stage(name: str) -> Update:
            task = None

            def update(done: int, total: int, state: str) -> None:
                nonlocal task
                if task is None:  # a stage may have nothing to do, and shows no bar then
                    task = bar.add_task(name, total=total, state=state)
                bar.update(task, completed=done, total=total, state=state)

            update.every_step = True  # type: ignore[attr-defined]
            return update

        yield stage


def _lines(name: str) -> Update:
    last = -1

    def update(done: int, total: int, state: str) -> None:
        nonlocal last
        tenth = 10 * done // total
        if tenth < last:  # after the pilots, the training
            last = -1
        if tenth > last:
            last = tenth
            say(f"{name} {100 * done // total} %: {state}")

    update.every_step = True  # type: ignore[attr-defined]
    return update
