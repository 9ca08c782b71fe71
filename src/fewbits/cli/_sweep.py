"""The command that sweeps over a recipe's fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fewbits.cli._common import Interrupted, Set, given, interrupted
from fewbits.cli._console import say, show, show_table
from fewbits.cli._progress import progress

if TYPE_CHECKING:
    from fewbits.job import Swept
    from fewbits.recipe import Recipe


def sweep(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes along.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out/sweep"),
    file: Annotated[
        Path | None, typer.Option("--sweep", help="A YAML file with the sweep section, instead of the recipe's.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many settings; default: the recipe's.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Of each worker; default: the cores, shared out.")] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where machines share trials: a database URL, grpc://host:port, or a journal file. Default: a "
            "journal in --out."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the sweep in its storage.")] = "sweep",
    test: Annotated[bool, typer.Option("--test", help="In the end, also the front's accuracy on test data.")] = False,
    changes: Set = None,
) -> None:
    """Try many settings of a recipe, and show which of them no other beats. The same command goes on where one stopped.

    The recipe's section 'sweep' says what varies: {over: {assign.bits: [2, 3, 4], assign.lam: {from: 0.1, to: 2, log:
    true}}}. All trials start from one float network and are judged on validation data.
    """

    loaded = with_section(given(recipe, changes), file, trials)

    from fewbits.job import folder as outputs
    from fewbits.job import sweep as run_sweep

    assert loaded.sweep is not None
    try:
        with progress() as stage:
            swept = run_sweep(
                loaded, out, workers=workers, threads=threads, address=storage, name=name, test=test, say=say,
                training=stage("train"), progress=stage("sweep"),
            )  # fmt: skip
    except KeyboardInterrupt:
        if (out / outputs.TRAINING).is_file():
            raise interrupted(out) from None
        what = f"interrupted; finished trials are kept, and the same command goes on ({out})"
        raise Interrupted(what) from None
    tell(swept, out, list(loaded.sweep.over), f"fewbits sweep {Path(recipe).name}")


def with_section(recipe: Recipe, file: Path | None, trials: int | None) -> Recipe:
    """The recipe with the sweep section of another file, and another number of trials.

    Raises:
        RecipeError: the file is no sweep section, or the recipe has none to change.
    """
    import yaml

    from fewbits.errors import RecipeError
    from fewbits.recipe.yaml_text import parse

    section: dict[str, Any] | None = None
    if recipe.sweep is not None:
        section = recipe.sweep.model_dump(by_alias=True, exclude_unset=True)
    if file is not None:
        try:
            section = parse(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
        if isinstance(section, dict) and set(section) == {"sweep"}:
            section = section["sweep"]
    if section is None:
        raise RecipeError("the recipe has no sweep section: add 'sweep: {over: {assign.bits: [2, 3, 4]}}', or --sweep")
    if trials is not None and isinstance(section, dict):
        section = section | {"trials": trials}
    return recipe.updated(sweep=section)


def shown(swept: Swept, settings: list[str]) -> Table:
    """The trials by size, those on the front marked with a star."""
    tested = any("test_accuracy" in row for row in swept.rows)
    costs = [name for name in swept.objectives if name not in ("accuracy", "bytes")]
    table = Table(box=None, pad_edge=False)
    table.add_column("front", no_wrap=True)
    for title in ("trial", "validation %", *(["test %"] if tested else []), "bytes", *costs, "zeros %"):
        table.add_column(title, justify="right", no_wrap=True)
    for key in settings:
        table.add_column(key, justify="right", no_wrap=True)
    for row in sorted(swept.rows, key=lambda row: (row["bytes"], -row["accuracy"])):
        figures = [str(row["trial"]), f"{row['accuracy']:.2f}"]
        if tested:
            percent = row.get("test_accuracy")
            figures.append("" if percent is None else f"{percent:.2f}")
        figures += [f"{row['bytes']:,}", *(_cost(row[name]) for name in costs), f"{row['sparsity']:.1f}"]
        chosen = [f"{row[key]:.4g}" if isinstance(row[key], float) else _word(row[key]) for key in settings]
        table.add_row("*" if row["front"] else "", *figures, *chosen, style="bold" if row["front"] else "")
    return table


def _cost(value: float) -> str:
    """Large ones in whole numbers, small ones (seconds, joules) by four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _word(value: Any) -> str:
    return "-" if value is None else str(value)


def results(swept: Swept, command: str) -> dict[str, Any]:
    """The trials in the form of a result file."""
    from fewbits.report import provenance

    return provenance("sweep", command) | {"rows": list(swept.rows)}


def write(swept: Swept, out: Path, command: str) -> list[str]:
    """Write the table as JSON and, with matplotlib, the page; returns the names of the files.

    Raises:
        FileError: the folder cannot be written.
    """
    from fewbits.errors import MissingExtraError
    from fewbits.job.folder import write_text
    from fewbits.report import load_results, results_page, write_page
    from fewbits.report.results import Results

    write_text(out / "sweep.json", json.dumps(results(swept, command), indent=1))
    found = load_results(out / "sweep.json")
    assert isinstance(found, Results)
    try:
        write_page(out / "sweep.html", results_page(found))
    except MissingExtraError as error:
        show(f"no page: {error}")
        return ["sweep.json"]
    return ["sweep.json", "sweep.html"]


def tell(swept: Swept, out: Path, settings: list[str], command: str) -> None:
    """Print the table, write the files, and say what could not be run."""
    from fewbits.errors import DataError

    for params, why in swept.failed:
        show(f"failed: {json.dumps(params)}: {why}")
    if not swept.rows:
        raise DataError("no trial could be run; the reasons are above")
    show_table(shown(swept, settings))
    show(
        f"* on the front: none of the {len(swept.rows)} trials is better in {' and '.join(swept.objectives)} at once; "
        "accuracy is of validation data"
    )
    show(f"written to {out}: {', '.join(write(swept, out, command))}; each trial's file is under {out / 'trials'}")
