"""Run experiments: what is not in the result files yet, row by row.

    python -m benchmarks.run                          # what there is, and how much of it is done
    python -m benchmarks.run resnet-20 --where "method == 'ecq'" --seeds 0 --set train.epochs=2
    python -m benchmarks.run --gpu --minutes 9 --out results-gpu      # experiments/gpu.yaml, most worth first
    python -m benchmarks.run --take results-gpu       # rows from another machine into results/

A row is written whole or not at all. A stopped run leaves its state in --work, and the same command goes on from
there; float networks stay there, too. With --minutes no row is started that, by its estimate, would not end in time.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import experiments, results
from benchmarks.unit import Place, Row, Unit
from fewbits.errors import RecipeError


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if a row failed."""
    options = parser().parse_args(given)
    if options.minutes and options.workers > 1:
        parser().error("--minutes asks for one worker: rows side by side would not end by their estimates")
    if options.take:
        print(f"{results.take(options.take)} rows added")
        return 0
    known = results.Known([options.out] if options.again else [results.FOLDER, options.out])
    try:
        wanted = list((_listed if options.gpu else _named)(options))
    except RecipeError as error:
        parser().error(str(error))
    found: dict[tuple[str, str], Unit] = {}
    for unit in wanted:
        if options.validation or unit not in known:
            found.setdefault((unit.result, unit.key), unit)  # a recipe may go by several names
    left = list(found.values())
    if options.dry or not (options.names or options.gpu):
        return _told(wanted, left, options)
    if options.data is not None:
        os.environ["FEWBITS_DATA"] = str(options.data)  # where an experiment's own code looks
    more = dict(text.split("=", 1) for text in options.more)
    place = Place(options.work, options.weights, options.data, options.validation, more)
    place.work.mkdir(parents=True, exist_ok=True)
    failed = False
    try:
        for unit, rows in _measured(left, place, options):
            if isinstance(rows, BaseException):
                failed = True
                print(f"failed: {_name(unit)}: {type(rows).__name__}: {rows}", flush=True)
            else:
                _note(unit, rows, options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there")
        return 130
    return int(failed)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("names", nargs="*", metavar="NAME", help="of files in benchmarks/experiments")
    made.add_argument("--where", help="only rows whose settings meet this condition, as pandas reads it")
    made.add_argument("--seeds", type=int, nargs="+", help="instead of the experiment's")
    made.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of every recipe, as in YAML")
    made.add_argument("--gpu", action="store_true", help="work off experiments/gpu.yaml")
    made.add_argument("--minutes", type=float, help="start no row that would not end in this time")
    made.add_argument("--out", type=Path, default=results.FOLDER, help="folder of result files (default: results)")
    made.add_argument("--take", type=Path, metavar="FOLDER", help="add the rows of result files there to results/")
    made.add_argument("--again", action="store_true", help="heed only the rows in --out")
    made.add_argument("--validation", action="store_true", help="only print rows, measured on validation data")
    made.add_argument("--dry", action="store_true", help="only list what is left")
    made.add_argument("--data", type=Path, help="folder of the data sets (default: FEWBITS_DATA)")
    made.add_argument("--weights", type=Path, default=Path("weights"), help="folder of trained .safetensors")
    made.add_argument("--work", type=Path, default=Path("out/benchmarks"), help="folder of float networks and files")
    made.add_argument("--workers", type=int, default=1, help="processes side by side")
    made.add_argument("--threads", type=int, default=1, help="of each worker")
    made.add_argument("--more", nargs="+", default=[], metavar="KEY=VALUE", help="what single experiments ask for")
    made.add_argument("--experiments", type=Path, default=experiments.FOLDER, help=argparse.SUPPRESS)
    return made


def _named(options: argparse.Namespace) -> Iterator[Unit]:
    changes = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in options.set)}
    for name in options.names or experiments.names(options.experiments):
        found = experiments.units(name, options.experiments, changes, options.seeds)
        yield from experiments.where(found, options.where)


def _listed(options: argparse.Namespace) -> Iterator[Unit]:
    """The units of the work list, most worth first, with their estimates for one large GPU."""
    for entry in yaml.safe_load((options.experiments / "gpu.yaml").read_text(encoding="utf-8")):
        found = experiments.units(entry["experiment"], options.experiments, entry.get("set"), entry.get("seeds"))
        for unit in experiments.where(found, entry.get("where")):
            yield dataclasses.replace(unit, minutes=entry["minutes"], float_minutes=entry.get("float_minutes", 0.0))


def one(unit: Unit, place: Place, threads: int) -> list[Row]:
    """Measure a unit; in a worker, too."""
    torch.set_num_threads(threads)
    rows = import_module(f"benchmarks.kinds.{unit.kind}").measure(unit, place)
    return results.stamped(unit, [row | {"split": "validation"} for row in rows] if place.validation else rows)


def _measured(left: list[Unit], place: Place, options: argparse.Namespace) -> Iterator[tuple[Unit, Any]]:
    """Each unit that was started, with its rows or what went wrong: the other rows must not wait for one that fails."""
    end = time.monotonic() + 60 * (options.minutes or float("inf"))
    if options.workers == 1:
        for unit in left:
            needs = place.minutes(unit)
            if time.monotonic() + 60 * needs > end:
                print(f"not started, takes {needs:g} minutes: {_name(unit)}", flush=True)
                continue
            try:
                found: Any = one(unit, place, options.threads)
            except Exception as error:
                found = error
            yield unit, found
        return
    # A fork of a process that has used a GPU cannot use it.
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(one, unit, place, options.threads): unit for unit in left}
        for future in as_completed(running):
            yield running[future], future.exception() or future.result()


def _note(unit: Unit, rows: list[Row], options: argparse.Namespace) -> None:
    for row in rows:
        print(json.dumps({k: v for k, v in row.items() if not isinstance(v, dict | list)}), flush=True)
    if not options.validation:
        results.add(unit.result, rows, options.out, f"python -m benchmarks.run {unit.experiment}")


def _name(unit: Unit) -> str:
    return f"{unit.experiment}, " + ", ".join(f"{k} {v}" for k, v in ({"seed": unit.seed} | unit.labels).items())


def _told(wanted: list[Unit], left: list[Unit], options: argparse.Namespace) -> int:
    """Say what is left: of each experiment, or of those named, each row."""
    for unit in left if options.names or options.gpu else ():
        print(f"{unit.key} {unit.minutes:6g} min  {_name(unit)}")
    for name in dict.fromkeys(unit.experiment for unit in wanted):
        count, rest = sum(u.experiment == name for u in wanted), [u.minutes for u in left if u.experiment == name]
        print(f"{name:24} {count - len(rest):4} of {count:4} done, {sum(rest):g} minutes left")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
