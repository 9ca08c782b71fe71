"""Commands for files that hold many tasks: which there are, and one of them as a file that stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli._console import Json, separate, show, show_rows, writable
from fewbits.cli._file import File, Limit


def tasks(
    file: File,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with pictures to this file.", callback=writable)
    ] = None,
    json_file: Json = None,
) -> None:
    """The tasks (or networks) of a .few file, and how much of it each needs. No weight is decoded."""
    from dataclasses import asdict

    from fewbits.errors import RecipeError
    from fewbits.job.folder import write_text
    from fewbits.multitask import is_family, tasks_in

    if is_family(file):
        if html is not None:
            raise RecipeError(
                f"{file.name} is of several networks, and a page is of one with many tasks: leave --html out"
            )
        _members(file, json_file)
        return
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


def _members(file: Path, json_file: Path | None) -> None:
    """The same of a file of several networks."""
    from dataclasses import asdict

    from fewbits.job.folder import write_text
    from fewbits.multitask import members_in

    found, size = members_in(file), file.stat().st_size
    rows = []
    for one in found:
        share = f"{100 * one.read / size:.1f}%"
        rows.append((one.name, one.base or "-", f"{one.bytes:,}", f"{one.read:,}", share))
    show_rows(("network", "difference to", "bytes", "bytes read", "of the file"), rows, words=2)
    show(f"{file.name}: {len(found)} networks, {size:,} bytes")
    if json_file is not None:
        write_text(json_file, json.dumps({"file_bytes": size, "members": [asdict(one) for one in found]}, indent=1))


def family(
    out: Annotated[Path, typer.Argument(help="The file to write.", callback=writable)],
    files: Annotated[list[Path], typer.Argument(help=".few files; each is then called as its file, without .few.")],
) -> None:
    """Write several .few files as one, of which each is read alone: a base, and what differs from it."""
    from fewbits import multitask
    from fewbits.errors import RecipeError

    # Where the new file's name was forgotten, a network comes first.
    if out.exists() and not multitask.is_family(out):
        raise RecipeError(f"{out} is there and holds no family: name the new file first, then the .few files")
    separate(out, *files)
    names = [file.stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two of the files are called {name}: rename one of them")
    size = multitask.family(dict(zip(names, files, strict=True)), out)
    show(f"{out}: {len(names)} networks, {size:,} bytes")


def extract(
    file: File,
    task: Annotated[str, typer.Option("--task", help="Which; 'fewbits tasks' lists them.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: TASK.few beside the file.", callback=writable)
    ] = None,
    with_base: Annotated[
        bool, typer.Option(help="Of several networks, whether a difference comes with its base.")
    ] = True,
    limit: Limit = None,
) -> None:
    """Write one task (or network) of a .few file as a file that stands alone. No more is read than it needs."""
    from fewbits import multitask
    from fewbits.errors import RecipeError
    from fewbits.report.words import human

    if out is None and Path(task).name != task:
        raise RecipeError(f"{task!r} is no name of a file: say where to, by --out")
    target = separate(out or file.with_name(f"{task}.few"), file)
    if out is None and target.exists():
        raise RecipeError(f"{target} is there already: say where to, by --out, and it is overwritten")
    if multitask.is_family(file):
        found = multitask.extract_member(file, task, target, with_base=with_base)
        along = "" if found.base is None else f" with its base, {found.base}"
        show(
            f"{target}: {human(found.bytes)} ({found.bytes:,} bytes){along}; {found.read:,} of {found.size:,} were read"
        )
        return
    done = multitask.extract(file, task, target, limit=limit)
    show(
        f"{target}: {human(done.bytes)} ({done.bytes:,} bytes), which was read back and is the same; {done.read:,} of "
        f"{done.size:,} bytes were read, and {done.decoded:,} numbers decoded for {done.numbers:,}"
    )
