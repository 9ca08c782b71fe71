"""What several commands take: a recipe with changes, a folder; and how they end at Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewbits.recipe import Recipe

MISSED = 3
"""Exit code of a command that did its work, and did not reach what was asked for."""

Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change a recipe entry, for example --set train.epochs=5.")
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="Instead of the recipe's network: mine.py:Net, package.module:function, torchvision:..., timm:..., "
        "transformers:..., net.onnx, or one of the zoo. Code of your own is run.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Instead of the recipe's data: mine.py:loaders, which is run, or a data set's name."),
]
Base = Annotated[
    Path | None,
    typer.Option("--base", help="The file that this one holds differences to, if it is not in the same file."),
]
Member = Annotated[str | None, typer.Option("--member", help="Which network, of a file of several.")]


class Interrupted(Exception):  # noqa: N818 - it is none
    """Ctrl-C, with what became of the work. No KeyboardInterrupt: typer would swallow it."""


def interrupted(out: Path) -> Interrupted:
    """What an interrupted command says of its folder."""
    from fewbits.job import folder as outputs

    kept = outputs.left(out)
    if kept is None:
        return Interrupted("interrupted before there was anything to keep; the same command starts anew")
    return Interrupted(f"interrupted; what was reached is kept in {kept}, and the same command goes on from there")


def given(source: str | None, changes: list[str] | None, network: str | None = None, data: str | None = None) -> Recipe:
    """The recipe that a command names, with its ``--set`` changes.

    Args:
        source: of the recipe; ``None`` for an empty one.
        network, data: of one's own, instead of the recipe's, without its options.

    Raises:
        RecipeError: no such recipe, or an impossible change.
    """
    import yaml

    from fewbits import recipe as recipes
    from fewbits.errors import RecipeError
    from fewbits.recipe.yaml_text import parse

    values = {} if source is None else recipes.load(source).model_dump(by_alias=True, exclude_unset=True)
    for section, name in (("network", network), ("data", data)):
        if name is not None:
            values[section] = {"name": name}
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
        try:
            place[last] = parse(text)
        except yaml.YAMLError:
            raise RecipeError(f"--set {change}: {text!r} is not a YAML value") from None
    if source is None and not {"network", "data"} <= set(values):
        raise RecipeError("give a recipe, or --network (as mine.py:Net) and --data (as mine.py:loaders), both")
    return recipes.make(values)
