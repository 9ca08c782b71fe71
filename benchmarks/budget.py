"""Budgets against sweeps: what a budget of bytes gives in one run, and what forty settings give.

Per network: five byte targets and one drop of accuracy, one run each, and one sweep of 40 trials, all from the same
float network with the same epochs. Everything is chosen on validation data; test accuracy is beside it in the rows. A
last part times one and two workers on the same sweep. Finished runs and trials are kept, so the same command goes on.

    python benchmarks/budget.py --data DIR [--networks NAME ...] [--work DIR]
    python benchmarks/budget.py --workers       # one and two worker processes, on a machine that is otherwise idle
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewbits import recipe as recipes
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.job import sweep
from fewbits.pipeline import compress
from fewbits.recipe.variation import Sweep, changed
from fewbits.report import provenance
from fewbits.search.sweep.queue import Queue
from fewbits.search.sweep.storage import opened
from fewbits.search.sweep.worker import work

RESULT = Path(__file__).parent.parent / "results" / "budget.json"
DROP = 1.0  # points, of the runs with a budget of accuracy

COMMON: dict[str, Any] = {
    "assign": {"method": "ecqx", "bits": 4, "options": {"zero_floor": 0.5, "momentum": 0.95}},
    "measure": {"name": "magnitude", "every": 4},
    "rounds": 10,
}
STAGES = [None, {"sparsity": 0.5}, {"sparsity": 0.8, "schedule": "cubic"}]  # no pruning, before the rest, on the way


def section(low: float, high: float) -> dict[str, Any]:
    """The sweep of a network; only the range of lambda differs, so that it covers the targets."""
    return {
        "trials": 40,
        "objectives": ["accuracy", "bytes"],
        "over": {
            "assign.lam": {"from": low, "to": high, "log": True},
            "assign.bits": [2, 3, 4, 5],
            "assign.options.p": {"from": 0.1, "to": 0.8},
            "train.distill": [0.0, 0.5],
            "prune": STAGES,
        },
    }


@dataclass(frozen=True)
class Experiment:
    """A network on a data set: its recipe, its sweep, and byte targets."""

    recipe: dict[str, Any]
    sweep: dict[str, Any]
    targets: tuple[str, ...]


EXPERIMENTS = {
    "digits": Experiment(
        {
            "network": {"name": "digits-net"},
            "data": {"name": "digits", "batch_size": 32},
            "pretrain": {"epochs": 15, "lr": 2e-3},
            "train": {"epochs": 12, "lr": 6e-3, "distill": 0.5, "learn": True},
        },
        section(0.1, 3.0),
        ("16 KB", "11 KB", "8 KB", "5.5 KB", "4 KB"),
    ),
    "fashion": Experiment(
        {
            "network": {"name": "lenet-300-100"},
            "data": {"name": "fashion-mnist", "batch_size": 256},
            "pretrain": {"epochs": 6, "lr": 1e-3},
            "train": {"epochs": 1, "lr": 2e-3, "distill": 0.5, "learn": True},
        },
        section(0.1, 1.5),
        ("40 KB", "28 KB", "20 KB", "14 KB", "10 KB"),
    ),
    "activity": Experiment(
        {
            "network": {"name": "lenet-300-100", "options": {"inputs": 768, "classes": 6}},
            "data": {"name": "activity", "batch_size": 64},
            "pretrain": {
                "epochs": 12, "optimizer": "sgd", "lr": 0.02, "weight_decay": 5e-3, "label_smoothing": 0.1,
            },
            "train": {"epochs": 4, "lr": 2e-3, "distill": 0.5, "learn": True},
        },
        section(0.1, 3.0),
        ("32 KB", "22 KB", "14 KB", "9 KB", "6 KB"),
    ),
}  # fmt: skip


def recipe_for(name: str, options: argparse.Namespace, **changes: Any) -> recipes.Recipe:
    values = copy.deepcopy(COMMON | EXPERIMENTS[name].recipe)
    if options.data:
        values["data"]["folder"] = options.data
    return recipes.make(values | changes)


def prepared(name: str, options: argparse.Namespace) -> jobs.Job:
    """The job, with the float network that all its runs share; trained here once."""
    path = outputs.folder(options.work / name) / outputs.FLOAT
    recipe = recipe_for(name, options)
    if not path.exists():
        job = jobs.prepare(recipe)
        outputs.save_float(job.network, path, job.dataset.normalisation)
    return jobs.prepare(recipe, trained=path)


def budget(job: jobs.Job, recipe: recipes.Recipe) -> dict[str, Any]:
    """One run to a budget, on validation data, and its file's test accuracy."""
    assert recipe.data is not None
    begin = time.perf_counter()
    found = compress(
        job.network,
        job.dataset.loader("train", recipe.data.batch_size, shuffle=True, seed=recipe.seed + 1),
        evaluate=job.evaluate("validation"),
        recipe=recipe,
    )
    seconds, report = time.perf_counter() - begin, found.report
    return {
        "model": report.model, "data": report.data, "method": "budget", "seed": recipe.seed, "split": "test",
        "accuracy": job.evaluate("test")(found.into(job.skeleton())),
        "baseline_accuracy": job.evaluate("test")(job.network),
        "validation_accuracy": report.accuracy_after, "validation_baseline": report.accuracy_before,
        "bytes": report.file_bytes, "float_bytes": report.float_bytes, "ratio": report.ratio,
        "sparsity": 100 * report.zeros, "bits": report.tensors[0].bits, "epochs": recipe.train.epochs,
        "seconds": seconds,
        "target_bytes": report.target, "max_drop": report.max_drop, "met": report.met, "identical": report.identical,
        "written": next(t.what for t in report.search if t.kept), "tries": len(report.search),
    }  # fmt: skip


def steered(name: str, options: argparse.Namespace, changes: dict[str, Any], **steer: Any) -> recipes.Recipe:
    """The recipe of a budget with changes at dotted keys."""
    values = recipe_for(name, options, **steer).model_dump(by_alias=True, exclude_unset=True)
    return recipes.make(changed(values, changes))


def budgets(name: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    chosen = EXPERIMENTS[name]
    wanted: list[dict[str, Any]] = [{"target": t} for t in chosen.targets] + [{"max_drop": DROP}]
    known = [(r["experiment"], r.get("target"), r.get("max_drop")) for r in rows if r["method"] == "budget"]
    todo = [w for w in wanted if (name, w.get("target"), w.get("max_drop")) not in known]
    if not todo:
        return
    job = prepared(name, options)
    for steer in todo:
        row = budget(job, steered(name, options, {"assign.bits": "auto"}, **steer))
        rows.append({"experiment": name, "target": steer.get("target"), **row, "commit": commit()})
        print(json.dumps(rows[-1]), flush=True)
        save(options.result, rows)


VARIANTS = {  # of a budget's recipe; the first ones led, on validation data, to `bits: auto`
    "4 bits": {},
    "4 bits, at once": {"train.arrive": 0.0},
    "2 bits, at once": {"train.arrive": 0.0, "assign.bits": 2},
    "auto, at once": {"train.arrive": 0.0, "assign.bits": "auto"},
    "auto, at half": {"train.arrive": 0.5, "assign.bits": "auto"},
}


def variants(name: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """All targets again with another recipe: bits that are given, or the size reached at once."""
    job = prepared(name, options)
    for target in EXPERIMENTS[name].targets:
        for variant, changes in VARIANTS.items():
            if any((r["experiment"], r.get("variant"), r.get("target")) == (name, variant, target) for r in rows):
                continue
            row = budget(job, steered(name, options, changes, target=target)) | {"method": "budget, variant"}
            rows.append({"experiment": name, "target": target, "variant": variant, **row, "commit": commit()})
            print(json.dumps(rows[-1]), flush=True)
            save(options.result, rows)


def swept(name: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The sweep's trials as rows, and beside every budget the best trial that is no larger."""
    prepared(name, options)
    recipe = recipe_for(name, options, sweep=EXPERIMENTS[name].sweep | {"trials": options.trials})
    done = sweep(recipe, options.work / name, threads=1, progress=lambda *state: print(name, *state, flush=True))
    mine = [{"experiment": name, **row, "method": "sweep", "commit": commit()} for row in done.rows]
    others = [row for row in rows if (row["experiment"], row["method"]) != (name, "sweep")]
    job = prepared(name, options)
    for row in others:
        if row["experiment"] == name and row["method"] == "budget":
            compare(row, mine, job, options.work / name)
    rows[:] = others + mine
    print(name, "failed:", list(done.failed), flush=True)
    save(options.result, rows)


def compare(row: dict[str, Any], trials: list[dict[str, Any]], job: jobs.Job, folder: Path) -> None:
    """Beside a budget, the trial that validation data would have chosen for it."""
    if row["max_drop"] is not None:
        fits = [t for t in trials if t["accuracy"] >= row["validation_baseline"] - row["max_drop"]]
        best = min(fits, key=lambda t: t["bytes"], default=None)
    else:
        fits = [t for t in trials if t["bytes"] <= row["target_bytes"]]
        best = max(fits, key=lambda t: (t["accuracy"], -t["bytes"]), default=None)
    row["trials_that_fit"] = len(fits)
    if best is not None:
        row["best_bytes"], row["best_validation_accuracy"] = best["bytes"], best["accuracy"]
        row["best_accuracy"] = job.evaluate("test")(job.decoded(folder / best["file"]))


WORKED = EXPERIMENTS["digits"].recipe | {"train": {"epochs": 6, "lr": 6e-3, "distill": 0.5, "learn": True}}


def workers(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The same sweep as a command with one worker and with two, from the same float network; one thread each."""
    work = outputs.folder(options.work / "workers")
    part = EXPERIMENTS["digits"].sweep | {"trials": options.worker_trials, "batch": 8}
    recipe = recipes.make(copy.deepcopy(COMMON | WORKED | {"sweep": part}))
    outputs.write_text(
        work / "recipe.yaml",
        json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"schema": 2}),
    )
    if not (work / outputs.FLOAT).exists():
        job = jobs.prepare(recipe)
        outputs.save_float(job.network, work / outputs.FLOAT, job.dataset.normalisation)
    seconds, fronts = {}, {}
    for count in (1, 2):
        out = work / str(count)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copy(work / outputs.FLOAT, outputs.folder(out) / outputs.FLOAT)
        command = ["sweep", str(work / "recipe.yaml"), "--out", str(out), "--workers", str(count), "--threads", "1"]
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fewbits", *command], check=True, stdout=subprocess.DEVNULL)
        seconds[count] = time.perf_counter() - begin
        found = json.loads((out / "sweep.json").read_text())["rows"]
        fronts[count] = sorted((r["trial"], r["accuracy"], r["bytes"]) for r in found if r["front"])
        print(count, "workers:", seconds[count], "s,", len(found), "trials", flush=True)
    rows[:] = [row for row in rows if row["method"] != "two workers"]
    rows.append(
        {
            "experiment": "workers", "model": "digits-net", "data": "digits", "method": "two workers", "seed": 0,
            "seconds": seconds[2], "seconds_of_one": seconds[1], "time": seconds[2] / seconds[1],
            "speedup": seconds[1] / seconds[2], "versus": "one worker", "trials": options.worker_trials,
            "load": os.getloadavg()[1],  # processes that wanted a core, over five minutes
            "same_front": fronts[1] == fronts[2], "front_points": len(fronts[1]), "commit": commit(),
        }
    )  # fmt: skip
    save(options.result, rows)


class Waiting:
    """Trials that wait instead of computing: what is left is what sharing them costs, however busy the machine is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, point: int, params: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
        time.sleep(self.seconds)
        return [90.0 + params["assign.bits"], 100.0 * params["assign.bits"]], {}


def wait(folder: Path, seconds: float, ready: Any) -> None:
    """A worker of waiting trials; starts with the others."""
    part = Sweep.model_validate({"over": {"assign.bits": {"from": 1, "to": 99}}, "trials": 24, "batch": 8})
    queue = Queue(opened(None, folder), "waiting", part, {})
    ready.wait()
    work(queue, Waiting(seconds))  # type: ignore[arg-type]


def waiting(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One and two workers on 24 trials of two seconds in which nothing is computed."""
    context, seconds = multiprocessing.get_context("spawn"), {}
    for count in (1, 2):
        folder = options.work / "waiting" / str(count)
        shutil.rmtree(folder, ignore_errors=True)
        outputs.folder(folder.parent)
        ready = context.Barrier(count + 1)
        team = [context.Process(target=wait, args=(outputs.folder(folder), 2.0, ready)) for _ in range(count)]
        for process in team:
            process.start()
        ready.wait()
        begin = time.perf_counter()
        for process in team:
            process.join()
        seconds[count] = time.perf_counter() - begin
        print(count, "workers on waiting trials:", seconds[count], "s", flush=True)
    rows[:] = [row for row in rows if row["method"] != "two workers, waiting trials"]
    rows.append(
        {
            "experiment": "workers", "method": "two workers, waiting trials", "seed": 0, "trials": 24,
            "seconds": seconds[2], "seconds_of_one": seconds[1], "time": seconds[2] / seconds[1],
            "speedup": seconds[1] / seconds[2], "versus": "one worker", "load": os.getloadavg()[1], "commit": commit(),
        }
    )  # fmt: skip
    save(options.result, rows)


def commit() -> str | None:
    found = provenance("budget", "")["commit"]
    return None if found is None else str(found)


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, and those of other parts that another process has written meanwhile."""
    mine = {(row["experiment"], row["method"]) for row in rows}
    there = list(json.loads(path.read_text())["rows"]) if path.exists() else []
    rows.extend(row for row in there if (row["experiment"], row["method"]) not in mine)
    head = provenance("budget", "python benchmarks/budget.py --data DIR; python benchmarks/budget.py --workers")
    path.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the data sets")
    parser.add_argument("--networks", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--only", choices=("budgets", "sweep", "variants"), help="one part of it")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", action="store_true", help="time one and two workers instead")
    parser.add_argument("--waiting", action="store_true", help="with --workers: only the trials that compute nothing")
    parser.add_argument("--worker-trials", type=int, default=32)
    parser.add_argument("--work", type=Path, default=Path("out/budget"), help="folder for float networks and trials")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(json.loads(options.result.read_text())["rows"]) if options.result.exists() else []
    if options.workers:
        if not options.waiting:
            workers(options, rows)
        waiting(options, rows)
        return
    for name in options.networks:
        if options.only == "variants":
            variants(name, options, rows)
            continue
        if options.only != "sweep":
            budgets(name, options, rows)
        if options.only != "budgets":
            swept(name, options, rows)


if __name__ == "__main__":
    main()
