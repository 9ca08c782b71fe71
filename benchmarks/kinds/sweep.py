"""A sweep over a recipe's settings: its trials, and the one that validation data would have chosen for each budget."""

import shutil
from functools import partial

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit
from fewbits.job import folder as outputs
from fewbits.job import sweep
from fewbits.recipe.notation import parse_size


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row per trial (accuracy on validation data), and one per budget with the best trial's test accuracy."""
    assert unit.recipe is not None
    job = prepared(unit, place, unit.recipe.updated(sweep=None))
    out = outputs.folder(place.work / unit.key)
    shutil.copy(place.float_file(unit.recipe), out / outputs.FLOAT)
    found = sweep(place.located(unit.recipe), out, threads=1, progress=partial(print, unit.experiment, flush=True))
    rows = [{"seed": unit.seed, **unit.labels, **row, "method": "sweep"} for row in found.rows]
    base = job.evaluate("validation")(job.network)
    for budget in [*unit.options["targets"], unit.options["max_drop"]]:
        row: Row = unit.labels | {"method": "best trial", "split": "test"}
        if isinstance(budget, str):
            row |= {"target": budget, "target_bytes": parse_size(budget), "max_drop": None}
            fits = [t for t in found.rows if t["bytes"] <= parse_size(budget)]
            best = max(fits, key=lambda t: (t["accuracy"], -t["bytes"]), default=None)
        else:
            row |= {"target_bytes": None, "max_drop": budget}
            fits = [t for t in found.rows if t["accuracy"] >= base - budget]
            best = min(fits, key=lambda t: t["bytes"], default=None)
        row["trials_that_fit"] = len(fits)
        if best is not None:
            row |= {"best_bytes": best["bytes"], "best_validation_accuracy": best["accuracy"]}
            row["best_accuracy"] = job.evaluate("test")(job.decoded(out / best["file"]))
        rows.append(row)
    return rows
