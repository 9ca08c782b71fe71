"""What two workers do to a sweep's time: on real trials, and on trials that wait and compute nothing."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits.job import folder as outputs
from fewbits.recipe import Sweep
from fewbits.search.sweep.queue import Queue
from fewbits.search.sweep.storage import opened
from fewbits.search.sweep.worker import work


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row, with the option ``waiting`` of trials that wait: what sharing costs, however busy the machine is."""
    once = _waiting if unit.options.get("waiting") else _swept
    seconds, fronts = zip(*(once(unit, place, count) for count in (1, 2)), strict=True)
    row = {
        "trials": unit.options["trials"], "seconds": seconds[1], "seconds_of_one": seconds[0],
        "time": seconds[1] / seconds[0], "speedup": seconds[0] / seconds[1], "versus": "one worker",
        "load": os.getloadavg()[1],  # processes that wanted a core, over five minutes
    }  # fmt: skip
    row |= {"same_front": fronts[0] == fronts[1], "front_points": len(fronts[0])} if fronts[0] else {}
    return [unit.labels | row]


def _swept(unit: Unit, place: Place, workers: int) -> tuple[float, list[Any]]:
    """Seconds of the sweep as a command, one thread each, from one float network; and what front it found."""
    assert unit.recipe is not None
    prepared(unit, place, unit.recipe.updated(sweep=None))
    out = place.work / f"{unit.key}-{workers}"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copy(place.float_file(unit.recipe), outputs.folder(out) / outputs.FLOAT)
    words = {"schema": 2} | place.located(unit.recipe).model_dump(mode="json", by_alias=True, exclude_unset=True)
    outputs.write_text(out / "recipe.yaml", json.dumps(words))
    command = ["sweep", str(out / "recipe.yaml"), "--out", str(out), "--workers", str(workers), "--threads", "1"]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fewbits", *command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    found = json.loads((out / "sweep.json").read_text())["rows"]
    return seconds, sorted((r["trial"], r["accuracy"], r["bytes"]) for r in found if r["front"])


class Waiting:
    """Trials that wait instead of computing."""

    def run(self, point: int, params: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
        time.sleep(2.0)
        return [90.0 + params["assign.bits"], 100.0 * params["assign.bits"]], {}


def wait(folder: Path, trials: int, ready: Any) -> None:
    """A worker of waiting trials; starts with the others."""
    part = Sweep.model_validate({"over": {"assign.bits": {"from": 1, "to": 99}}, "trials": trials, "batch": 8})
    queue = Queue(opened(None, folder), "waiting", part, {})
    ready.wait()
    work(queue, Waiting())


def _waiting(unit: Unit, place: Place, workers: int) -> tuple[float, list[Any]]:
    out = place.work / f"{unit.key}-{workers}"
    shutil.rmtree(out, ignore_errors=True)
    outputs.folder(out)
    context, trials = multiprocessing.get_context("spawn"), unit.options["trials"]
    ready = context.Barrier(workers + 1)
    team = [context.Process(target=wait, args=(out, trials, ready)) for _ in range(workers)]
    for process in team:
        process.start()
    ready.wait()
    begin = time.perf_counter()
    for process in team:
        process.join()
    return time.perf_counter() - begin, []
