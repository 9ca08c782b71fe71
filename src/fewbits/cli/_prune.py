"""The command that searches how much to prune in each layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fewbits.cli._common import MISSED, Interrupted, Set, given, interrupted
from fewbits.cli._console import Json, say, show, show_table
from fewbits.cli._progress import progress

if TYPE_CHECKING:
    from fewbits.recipe import Recipe
    from fewbits.search.layer_rates import Outcome

METHODS = "purl, qlp, global-magnitude, lamp, erk, uniform, random or greedy"

RECIPE, FOUND, ANSWERS = "pruned.yaml", "search.json", "search.journal"


def prune_search(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes along.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out"),
    method: Annotated[str, typer.Option(help=f"{METHODS}. The first two need the extra rl.")] = "global-magnitude",
    sparsity: Annotated[float, typer.Option(help="Share of zeros to reach, 0 to 1.")] = 0.8,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that may be lost, on the proxy samples.")] = 1.0,
    evaluations: Annotated[int, typer.Option(help="How often the network may be run.")] = 200,
    min_kept: Annotated[str, typer.Option(help="Weights of each layer that stay: a number, or percent of all.")] = "0",
    reward: Annotated[str, typer.Option(help="Of an agent: raw, potential, sparsity or terminal.")] = "potential",
    proxy: Annotated[int, typer.Option(help="Training samples that accuracy is taken on.")] = 500,
    calibration: Annotated[int, typer.Option(help="Other ones, for normalisation statistics.")] = 128,
    precision: Annotated[str, typer.Option(help="Of the evaluations: float32 or bfloat16.")] = "float32",
    json_file: Json = None,
    changes: Set = None,
) -> None:
    """Search how much to prune in each layer; writes the recipe that prunes so. Ctrl-C keeps the best so far.

    The recipe's own prune section, if it has one, is replaced. The same command goes on after an interruption.
    Exit code 3: not both targets are met.
    """
    from fewbits import job as jobs
    from fewbits.errors import RecipeError
    from fewbits.job import folder as outputs
    from fewbits.search.layer_rates import run

    if precision not in ("float32", "bfloat16"):
        raise RecipeError(f"precision is float32 or bfloat16, not {precision!r}")
    least = int(min_kept) if min_kept.isdecimal() else min_kept
    run.check(
        method, sparsity=sparsity, max_drop=max_drop, evaluations=evaluations, min_kept=least, reward=reward
    )  # fmt: skip
    loaded = given(recipe, changes)
    if loaded.task.name != "classification":
        raise RecipeError(f"a search counts right classes, and the recipe's task is {loaded.task.name}")

    from fewbits.job.batches import proxies
    from fewbits.search.layer_rates import search
    from fewbits.weights import select

    with progress() as stage:
        trained = outputs.trained_before(loaded, outputs.folder(out))
        state = out / outputs.TRAINING
        try:
            job = jobs.prepare(loaded, say=say, progress=stage("train"), trained=trained, state_file=state)
        except KeyboardInterrupt:
            raise interrupted(out) from None
        words = {"recipe": loaded.model_dump_json(), **job.words}
        outputs.save_float(job.network, out / outputs.FLOAT, job.dataset.normalisation, **words)
        job.safe()
        found = search(
            job.network,
            *proxies(job.dataset, job.feed, proxy, calibration, loaded.seed),
            method=method,
            sparsity=sparsity,
            max_drop=max_drop,
            evaluations=evaluations,
            min_kept=least,
            reward=reward,
            include=loaded.select.include,
            exclude=loaded.select.exclude,
            precision=precision,
            seed=loaded.seed,
            journal=out / ANSWERS,
            progress=stage("search"),
        )
    outputs.write_text(out / RECIPE, _written(loaded, found, out / outputs.FLOAT))
    outputs.write_text(out / FOUND, json.dumps(found.as_dict(), indent=1))
    if json_file is not None:
        outputs.write_text(json_file, json.dumps(found.as_dict(), indent=1))
    _show(found, {name: weight.numel() for name, weight in select(job.network).items()})
    show(f"written to {out}: {RECIPE}, {FOUND}, {outputs.FLOAT}; next: fewbits compress {out / RECIPE}")
    if not found.finished:
        raise Interrupted(
            f"interrupted after {found.evaluations} evaluations; the best so far is kept, and the same command goes on"
        )
    if not found.met:
        raise typer.Exit(MISSED)


def _written(recipe: Recipe, found: Outcome, weights: Path) -> str:
    """The recipe with the rates that were found, on the network that they were found for."""
    import yaml

    from fewbits import recipe as recipes
    from fewbits.recipe.places import written_to

    values = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    before: dict[str, Any] = values.get("prune") or {}
    values["prune"] = found.recipe()["prune"] | {
        key: before[key] for key in ("schedule", "begin", "end", "regrow") if key in before
    }
    values["network"] = values["network"] | {"weights": str(weights)}
    values.pop("pretrain", None)
    recipes.make(values)
    values = written_to(values, weights.parent)
    return str(yaml.safe_dump({"schema": 1} | values, sort_keys=False, width=120))


def _show(found: Outcome, sizes: dict[str, int]) -> None:
    from fewbits.report.words import percent

    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for title in ("weights", "kept", "zeros %"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, rate in found.rates.items():
        table.add_row(name, f"{sizes[name]:,}", f"{round((1 - rate) * sizes[name]):,}", percent(rate))
    show_table(table)
    reached = "both targets are met" if found.met else "NOT both targets are met"
    show(
        f"{found.method}, seed {found.seed}: {percent(found.sparsity)} % zeros, {found.accuracy:.2f} % on the proxy "
        f"samples (dense {found.dense_accuracy:.2f} %), without training; {reached}; "
        f"{found.evaluations} of {found.budget} evaluations"
    )
