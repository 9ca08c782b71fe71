"""The command line. Each command is a thin layer over a function of the library."""

from __future__ import annotations

import errno
import json
import math
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewbits.cli import _data as cli_data
from fewbits.cli import _deploy as cli_deploy
from fewbits.cli import _explain as cli_explain
from fewbits.cli import _file as cli_file
from fewbits.cli import _price as cli_price
from fewbits.cli import _private as cli_private
from fewbits.cli import _prune as cli_prune
from fewbits.cli import _sweep as cli_sweep
from fewbits.cli import _tasks as cli_tasks
from fewbits.cli._common import MISSED, Base, Data, Interrupted, Member, Network, Out, Set, given, interrupted
from fewbits.cli._console import Json, out_console, say, show, to_nowhere
from fewbits.cli._progress import progress
from fewbits.errors import FewbitsError

if TYPE_CHECKING:
    from fewbits.recipe import Recipe

app = typer.Typer(
    name="fewbits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_private.app, name="private")

_INTERRUPTED = 130  # as shells count: 128 + SIGINT
_ROUNDING = 5e-4  # share of samples whose class may hang on the last bit of a sum

# The parent of every complaint about the command line; typer gives no other name to it.
_UsageError: Any = typer.BadParameter.__mro__[1]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show(f"fewbits {version('fewbits')}")
        raise typer.Exit


@app.callback()
def _fewbits(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Make trained neural networks as small as they can be, and see which weights mattered."""


def _compress(recipe: Recipe, out: Path, json_file: Path | None) -> None:
    from fewbits import job as jobs
    from fewbits.errors import MissingExtraError
    from fewbits.job import folder as outputs
    from fewbits.report import page, write_page
    from fewbits.report.table import render

    if not outputs.is_main_process():  # of several processes one speaks
        out_console.quiet = True
    tell = (lambda line: None) if out_console.quiet else say
    try:
        with progress() if not out_console.quiet else nullcontext(lambda name: None) as stage:
            outputs.ready(recipe, out)
            with outputs.working_in(out, recipe):
                trained = outputs.unfinished(recipe, out)
                if trained is not None:
                    tell(f"going on with the unfinished run in {out}")
                state = out / outputs.TRAINING
                job = jobs.prepare(recipe, say=tell, progress=stage("train"), trained=trained, state_file=state)
                result = jobs.run(job, out, say=tell, progress=stage("compress"))
    except KeyboardInterrupt:
        raise interrupted(out) from None
    if out_console.quiet:
        return
    render(result.report, out_console)
    if json_file is not None:
        outputs.write_text(json_file, result.report.to_json())
    written = [recipe.output, "report.json", outputs.FLOAT]
    try:
        write_page(out / "report.html", page(result.report))
        written.append("report.html")
    except MissingExtraError as error:
        say(f"no page: {error}")
    show(f"written to {out}: {', '.join(written)}")
    if result.report.identical is not True or result.report.met is False:
        raise typer.Exit(MISSED)


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
        weights = weights or _trained(model)
    else:
        raise RecipeError(f"no demo for {data} with {model}; there is digits, and cifar10 with {' or '.join(known)}")
    more = list(changes or [])
    if weights is not None:
        more.append(f"network.weights={json.dumps(str(weights))}")
    if folder is not None:
        more.append(f"data.folder={json.dumps(str(folder))}")
    _compress(given(name, more), out, json_file)


def _trained(model: str) -> Path:
    """The fetched weights of a network; a sentence on how to get some, if there are none."""
    from fewbits.errors import RecipeError
    from fewbits.zoo.trained import PUBLISHED, weights_file

    found = weights_file(model)
    if found.is_file():
        return found
    way = f"run 'fewbits data weights {model}' first, or " if model in PUBLISHED else ""
    raise RecipeError(f"no trained weights of {model}: {way}give --weights, a .safetensors file (docs/data.md)")


@app.command()
def compress(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes along.")],
    out: Out = Path("out"),
    network: Network = None,
    data: Data = None,
    target: Annotated[str | None, typer.Option(help="Bytes of the file, for example '100 KB'.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost.")] = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Compress the network of a recipe to a budget. Ctrl-C keeps the state; the same command goes on.

    --target and --max-drop go before the recipe's own budget or lambda. With both, the file is the smallest
    within the drop that is no larger than the target.
    """
    more = list(changes or [])
    if target is not None or max_drop is not None:
        more += ["assign.lam=null", f"target={json.dumps(target)}", f"max_drop={json.dumps(max_drop)}"]
    loaded = given(recipe, more, network, data)
    if loaded.sweep is not None:
        say("one run of the recipe as it stands; its sweep section is for 'fewbits sweep'")
        loaded = loaded.updated(sweep=None)
    _compress(loaded, out, json_file)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes along.")],
    out: Out = Path("out"),
    network: Network = None,
    data: Data = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Train the network of a recipe as its section pretrain says, by any learning rule. Ctrl-C keeps the state.

    The weights go to float.safetensors in the folder, which network.weights of a recipe takes.
    """
    from fewbits import job as jobs
    from fewbits.job import folder as outputs
    from fewbits.report.words import quality

    loaded = given(recipe, changes, network, data)
    if not outputs.is_main_process():  # of several processes one speaks
        out_console.quiet = True
    tell = (lambda line: None) if out_console.quiet else say
    try:
        with progress() if not out_console.quiet else nullcontext(lambda name: None) as stage:
            found = jobs.train(loaded, out, say=tell, progress=stage("train"))
    except KeyboardInterrupt:
        raise interrupted(out) from None
    if out_console.quiet:
        return
    show(f"{found.rule}: {quality(found.accuracy, found.metric)} on the {found.split} data")
    show(f"written: {found.file}")
    if json_file is not None:
        outputs.write_text(json_file, json.dumps(asdict(found) | {"file": found.file.name}, indent=1))


# Here, and not at the end, so that help lists them after what they go with.
app.command()(cli_sweep.sweep)
app.command()(cli_prune.prune_search)
app.command()(cli_file.inspect)
app.command()(cli_file.export)
app.command()(cli_tasks.tasks)
app.command()(cli_tasks.extract)
app.command()(cli_tasks.family)
app.command()(cli_deploy.bench_latency)
app.command()(cli_price.price)
app.command()(cli_price.machines)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A .few file.")],
    recipe: Annotated[str | None, typer.Option("--recipe", help="The recipe it was made with.")] = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Decode a file into its network and measure its accuracy on the test data.

    Without a recipe, --network and --data say what it is decoded into and measured on; data of your own without a test
    part is measured on its validation part.

    Beside a report.json of this very file the accuracy must be the reported one; one sample, or one in two thousand,
    may differ, as other processors round otherwise.
    """
    loaded = given(recipe, changes, network, data)

    from fewbits import codec
    from fewbits import job as jobs
    from fewbits.job import batches
    from fewbits.job import folder as outputs
    from fewbits.pipeline import opened
    from fewbits.report.words import quality

    codec.inspect(
        *opened(file, base or loaded.base, member)
    )  # a wrong path or a damaged file is found before any data is loaded
    report, why = outputs.report_beside(file)
    job = jobs.skeleton(loaded)
    split = job.final_split
    metric = job.task.scale.name
    found = job.shown(job.evaluate(split)(job.decoded(file, base, member)))
    name = job.recipe.network.name if job.recipe.network else ""
    show(f"{file.name}: sound, decodes into {name}, {quality(found, metric)} on the {split} data")
    figures: dict[str, Any] = {
        "file": file.name,
        "bytes": file.stat().st_size,
        "accuracy": found,
        "split": split,
    }
    same = True
    if why:
        show(why)
    if report is not None:
        said = figures["reported"] = report.accuracy_after
        figures["samples"] = batches.samples(job.dataset, job.feed, split)
        same, words = _agree(said, found, figures["samples"], metric)
        show(f"report.json beside it says {quality(said, metric)}: {words}")
    if json_file is not None:
        outputs.write_text(json_file, json.dumps(figures, indent=1))
    if not same:
        raise typer.Exit(MISSED)


def _agree(said: float | None, found: float, samples: int, metric: str) -> tuple[bool, str]:
    """Whether an accuracy is the reported one, and how to say so."""
    if said is not None and metric in ("loss", "score"):
        if said == found:
            return True, "the same"
        near = math.isclose(said, found, rel_tol=_ROUNDING)
        return near, "nearly the same, as other processors round otherwise" if near else "NOT the same"
    apart = None if said is None else round(abs(said - found) * samples / 100)
    if apart == 0:
        return True, "the same"
    if apart is not None and apart <= math.ceil(_ROUNDING * samples):
        return True, f"{apart} of {samples:,} samples apart, as other processors round otherwise"
    return False, "NOT the same"


app.command()(cli_explain.explain)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report.json, or a benchmark's results/*.json.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")] = Path("report.html"),
) -> None:
    """Draw a report or a benchmark's results as one self-contained HTML page."""
    from fewbits.report import Report, load_results, page, results_page, write_page

    found = load_results(file)
    write_page(out, page(found) if isinstance(found, Report) else results_page(found))
    show(f"written: {out}")


@app.command("recipes")
def list_recipes() -> None:
    """The recipes that come with fewbits."""
    from fewbits import recipe as recipes

    names = recipes.names()
    width = max(map(len, names))
    for name in names:
        first = recipes.text_of(name).splitlines()[0].lstrip("# ")
        show(f"{name:<{width}}  {first}")


def main() -> None:
    """Entry point: every expected error is one sentence, without a traceback."""
    try:
        # Not standalone, typer returns the code of an Exit, and 130 for Ctrl-C.
        code = app(prog_name="fewbits", standalone_mode=False) or 0
    except FewbitsError as error:
        code = _fail(str(error))
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "fewbits"
        problem = error.format_message().rstrip(".") or "a command is missing"
        code = _fail(f"{problem}; see '{command} --help'")
    except Interrupted as error:
        say(str(error))
        code = _INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except OSError as error:
        if error.filename is not None or error.errno != errno.ENOSPC:
            raise
        to_nowhere(out_console)
        code = _fail(f"what was to be shown cannot be written: {error.strerror}")
    exec("")  # else "python -m" ends by the signal, not with 130, where it came within an exec, as of a dataclass
    sys.exit(code)


def _fail(sentence: str) -> int:
    say(f"error: {' '.join(sentence.split())}")
    return 2
