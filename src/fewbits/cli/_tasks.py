"""Commands for files that hold many tasks: which there are, and one of them as a file that stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli._console import Json, show, show_rows, writable
from fewbits.cli._file import File, Limit


def tasks(
    file: File,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with pictures to this file.", callback=writable)
    ] = None,
    json_file: Json = None,
) -> None:
    """The tasks of a .few file, and how much of it each needs. No weight is decoded."""
    from dataclasses import asdict

    from fewbits.job.folder import write_text
    from fewbits.multitask import tasks_in

    found, size = tasks_in(file), file.stat().st_size
    rows = []
    for task in found:
        share = f"{100 * task.bytes / size:.1f}%"
        rows.append((task.name, str(task.segments), str(task.private), f"{task.numbers:,}", f"{task.bytes:,}", share))
    show_rows(("task", "segments", "private", "numbers", "bytes read", "of the file"), rows, words=1)
    show(f"{file.name}: {len(found)} tasks, {size:,} bytes")
    if html is not None:
        from fewbits.multitask import paths_in, paths_view
        from fewbits.report import tasks_page, write_page

        told = {"numbers": [f"{task.numbers:,}" for task in found], "bytes read": [f"{task.bytes:,}" for task in found]}
        write_page(html, tasks_page(paths_view(file.name, paths_in(file), told)))
        show(f"written: {html}")
    if json_file is not None:
        write_text(json_file, json.dumps({"file_bytes": size, "tasks": [asdict(task) for task in found]}, indent=1))


def extract(
    file: File,
    task: Annotated[str, typer.Option("--task", help="Which; 'fewbits tasks' lists them.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: TASK.few beside the file.", callback=writable)
    ] = None,
    limit: Limit = None,
) -> None:
    """Write one task of a .few file as a file that stands alone. No more is read and decoded than it needs."""
    from fewbits import multitask
    from fewbits.report.words import human

    target = out or file.with_name(f"{task}.few")
    writable(target)
    done = multitask.extract(file, task, target, limit=limit)
    show(
        f"{target}: {human(done.bytes)} ({done.bytes:,} bytes), which was read back and is the same; {done.read:,} of "
        f"{done.size:,} bytes were read, and {done.decoded:,} numbers decoded for {done.numbers:,}"
    )
