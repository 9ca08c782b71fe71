"""The command that shows which weights mattered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fewbits.cli._common import Base, Data, Member, Network, Set, given
from fewbits.cli._console import Json, out_console, say, show
from fewbits.cli._progress import progress
from fewbits.errors import FileError, visible


def explain(
    recipe: Annotated[
        str | None, typer.Argument(help="The recipe the file was made with; or give --network and --data.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--net", help="The .few file (default: out/net.few; of demo out/demo/net.few).")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The float network (default: float.safetensors beside the file).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the pictures (default: the file's).")] = None,
    rules: Annotated[
        str, typer.Option(help="Relevance rules: plus, paper, alpha-beta, gamma, epsilon, released.")
    ] = "plus",
    vocabulary: Annotated[
        Path | None,
        typer.Option(help='Texts of tokens: JSON of {"token": number} or a list, or a file with a token on each line.'),
    ] = None,
    network: Network = None,
    data: Data = None,
    base: Base = None,
    member: Member = None,
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Which weights mattered: relevance before and after compression, in pictures and numbers."""
    file = file or Path("out/demo/net.few" if recipe == "demo" else "out/net.few")
    loaded = given(recipe, changes, network, data)
    words = None if vocabulary is None else _vocabulary(vocabulary)

    from fewbits import codec
    from fewbits import job as jobs
    from fewbits.job import folder as outputs
    from fewbits.pipeline import opened
    from fewbits.report import page as make_page
    from fewbits.report import write_page

    codec.inspect(
        *opened(file, base or loaded.base, member)
    )  # a wrong path or damaged file is found before anything is trained
    beside = file.parent / outputs.FLOAT
    trained = weights or (beside if beside.is_file() else None)
    with progress() as stage:
        job = jobs.prepare(loaded, progress=stage("train"), trained=trained, say=say)
    explanation = jobs.explain(job, file, rules, base, member, words)
    target = outputs.folder(out or file.parent)
    written = outputs.write_pictures(explanation, target)
    report, why = outputs.report_beside(file)
    if why:
        show(why)
    if report is not None:
        write_page(target / "report.html", make_page(report, explanation))
        written.append("report.html")
    out_console.print(_explained(explanation))
    same = ""
    if explanation.agreement is not None:
        same = f"{100 * explanation.agreement:.1f} % of the decisions on "
        same += f"{explanation.samples} validation samples are the same before and after; "
    show(f"{same}share = part of the layer's absolute relevance on weights that are not zero")
    show(f"written to {target}: {', '.join(written)}")
    if json_file is not None:
        outputs.write_text(json_file, json.dumps(explanation.as_dict(), indent=1))


def _vocabulary(path: Path) -> dict[int, str]:
    """The text of each token by its number.

    Raises:
        FileError: the file cannot be read, or is no vocabulary.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise FileError(f"the vocabulary {path} cannot be read: {error}") from error
    if isinstance(found, list) and all(isinstance(word, str) for word in found):
        return dict(enumerate(found))
    if isinstance(found, dict) and all(isinstance(number, int) for number in found.values()):
        return {number: word for word, number in found.items()}
    raise FileError(f'the vocabulary {path} is neither {{"token": number}} nor a list of tokens: give one of these')


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
            visible(layer.name),
            percent(layer.weights_kept),
            percent(layer.relevance_kept),
            percent(layer.relevance_kept_by_magnitude),
            number(layer.spearman),
            number(layer.pearson_signed),
        )
    return table
