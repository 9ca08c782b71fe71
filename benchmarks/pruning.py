"""Which weights to prune, at equal budgets: Global MP with its floor, and what else costs the same.

Every method starts from the same trained float network and gets the same steps, data order, optimizer and schedule;
only the choice of the weights differs. Settings were chosen on the validation split (--tune prints those runs);
accuracy is on the test set, looked at once per row. Finished rows are kept, so an interrupted run goes on. With a GPU
the same code runs the papers' schedules (--schedule paper is the default there).

    python benchmarks/pruning.py --data DIR --weights DIR [--experiment NAME ...] [--methods NAME ...] [--seeds 0 1 2]

Experiments: selection, lenet, fastgrnn, collapse, extreme, repair, pipeline, resnet-32, mobilenet-v2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits.hardware import count
from fewbits.job import job as jobs
from fewbits.pipeline import compress
from fewbits.plan import Plan
from fewbits.report import provenance
from pruning_parts import collapse, extreme, pipeline, repair, selection
from pruning_settings import METHODS, SETTINGS, recipe_of, trained

RESULT = Path(__file__).parent.parent / "results" / "pruning.json"
KEY = ("experiment", "model", "method", "target_sparsity", "seed", "schedule")


def figures(model: nn.Module, plan: Plan, shape: tuple[int, ...]) -> dict[str, Any]:
    """Sparsity over both denominators, multiplications, and layers that lost everything."""
    dense, pruned = count(model, shape), count(model, shape, plan)
    return {
        "sparsity": 100 * pruned.zeros / pruned.weights,
        "sparsity_denominator": "weights of linear and convolutional layers",
        "weights": pruned.weights,
        "zeros": pruned.zeros,
        "parameters": pruned.parameters,
        "sparsity_of_parameters": 100 * pruned.zeros / pruned.parameters,
        "macs": dense.macs,
        "macs_left": pruned.nonzero_macs,
        "fewest_survivors": min(layer.nonzero for layer in pruned.layers),
        "collapsed_layers": sum(layer.nonzero == 0 for layer in pruned.layers),
    }


def one(name: str, method: str, sparsity: float, seed: int, schedule: str, options: Any) -> dict[str, Any]:
    recipe = recipe_of(name, method, sparsity, seed, schedule, options)
    job = jobs.prepare(recipe, trained=trained(name, seed, schedule, options))
    assert recipe.data is not None
    loader = job.dataset.loader(
        "train", recipe.data.batch_size, shuffle=True, augment=recipe.data.augment, seed=seed + 1
    )
    found = compress(job.network, loader, recipe=recipe)
    after = found.into(job.skeleton())
    if torch.cuda.is_available():
        after = after.cuda()
    validation = job.evaluate("validation")(after)
    row: dict[str, Any] = {
        "experiment": name, "model": recipe.network.name if recipe.network else "", "data": job.dataset.name,
        "method": method, "target_sparsity": sparsity, "seed": seed, "schedule": schedule, "split": "test",
        "validation_accuracy": validation,
    }  # fmt: skip
    if not options.tune:
        row["accuracy"] = job.evaluate("test")(after)
    row |= figures(job.skeleton(), found.plan, job.dataset.input_shape)
    return row | {
        "min_kept": SETTINGS[name].floor if method.endswith("+floor") else None,
        "bytes": found.report.file_bytes,
        "float_bytes": found.report.float_bytes,
        "ratio": found.report.ratio,
        "identical": found.report.identical,
        "lr": recipe.train.lr,
        "precision": recipe.train.precision,
        "epochs": recipe.train.epochs,
        "steps": found.report.steps,
        "seconds": found.report.seconds,
        "commit": provenance("pruning", "")["commit"],
    }


def baseline(name: str, seed: int, schedule: str, options: Any, rows: list[dict[str, Any]]) -> float:
    """Test accuracy of the float network all methods start from; taken from earlier rows where there are any."""
    shared = SETTINGS[name].weights is not None
    for row in rows:
        if row["experiment"] == name and "baseline_accuracy" in row and (shared or row["seed"] == seed):
            return float(row["baseline_accuracy"])
    recipe = recipe_of(name, "dense", 0.0, seed, schedule, options)
    job = jobs.prepare(recipe, trained=trained(name, seed, schedule, options))
    return job.evaluate("test")(job.network)


def runs(name: str, options: Any, schedule: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of one trained experiment that are not there yet: seed by seed, so that all methods advance together."""
    setting = SETTINGS[name]
    known = {tuple(row.get(k) for k in KEY) for row in rows}
    for seed in options.seeds:
        for sparsity in options.sparsities or setting.sparsities:
            for method in setting.methods:
                if options.methods and method not in options.methods:
                    continue
                key = (name, setting.network["name"], method, sparsity, seed, schedule)
                if key in known or (method == "dense" and sparsity != setting.sparsities[0]):
                    continue
                row = one(name, method, sparsity, seed, schedule, options)
                if options.tune:
                    print(json.dumps(row), flush=True)
                    continue
                yield row | {"baseline_accuracy": baseline(name, seed, schedule, options, rows)}


def rows_in(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


OTHERS = {"selection": selection, "collapse": collapse, "extreme": extreme, "repair": repair, "pipeline": pipeline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: FEWBITS_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of trained .safetensors")
    parser.add_argument("--experiment", nargs="+", default=[*OTHERS, *SETTINGS], choices=[*OTHERS, *SETTINGS])
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--sparsities", nargs="+", type=float, help="instead of the experiment's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedule", choices=("cpu", "paper"), default="paper" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=float, help="fine-tuning epochs, instead of the schedule's")
    parser.add_argument("--lr", type=float, help="learning rate, instead of the schedule's")
    parser.add_argument("--numbers", type=float, default=1e8, help="selection: how many weights")
    parser.add_argument("--tune", action="store_true", help="print validation accuracy only; write and test nothing")
    parser.add_argument("--work", default="out/pruning", help="folder for float networks trained here")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.data is None:
        from fewbits.data.load import home

        options.data = home()
    rows = rows_in(options.result)
    for name in options.experiment:
        found = OTHERS[name](options, rows) if name in OTHERS else runs(name, options, options.schedule, rows)
        for row in found:
            print(json.dumps(row), flush=True)
            if not options.tune:
                rows[:] = [*rows_in(options.result), row]  # another experiment may have written meanwhile
                head = provenance("pruning", "python benchmarks/pruning.py --data DIR --weights DIR")
                options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
