"""What the entropy coder's own code length gains as the rate term: `rate: coder` against first-order entropy.

The demo's network with the same float weights, data, epochs and byte targets, three seeds; only the rate term
differs. Accuracy is on the test set, on which nothing was chosen. Finished rows are kept.

    python benchmarks/rate.py
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from demo_controls import SEEDS, recipe_for
from fewbits import job as jobs
from fewbits import recipe as recipes
from fewbits.report import provenance
from rows import row_of

METHODS = ("ecq", "ecqx")
RATES = ("entropy", "coder")
TARGETS = ("5 KB", "3.5 KB")
RESULT = Path(__file__).parent.parent / "results" / "rate.json"


def recipe_with(method: str, rate: str, target: str, seed: int, epochs: float) -> recipes.Recipe:
    values = recipe_for(method, target, seed, epochs).model_dump(by_alias=True, exclude_unset=True)
    values["assign"]["options"] = values["assign"]["options"] | {"rate": rate}
    return recipes.make(values)


def one(method: str, rate: str, target: str, seed: int, epochs: float, work: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    recipe = recipe_with(method, rate, target, seed, epochs)
    job = jobs.prepare(recipe, trained=Path(work) / f"float-{seed}.safetensors")
    out = Path(work) / f"{method}-{rate}-{target}-{seed}".replace(" ", "")
    report = jobs.run(job, out, resume=False).report
    commit = provenance("rate", "")["commit"]
    return row_of(report, recipe, commit) | {"method": method, "rate": rate, "target": target}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--work", default="out/rate", help="folder for the files")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    done = json.loads(options.result.read_text())["rows"] if options.result.exists() else []
    known = {(r["method"], r["rate"], r["target"], r["seed"]) for r in done}
    work = jobs.folder(Path(options.work))
    for seed in SEEDS:
        float_file = work / f"float-{seed}.safetensors"
        if not float_file.exists():
            job = jobs.prepare(recipe_for("ecq", TARGETS[0], seed, options.epochs))
            jobs.save_float(job.network, float_file, job.dataset.normalisation)
    todo = [
        (m, r, t, s) for t in reversed(TARGETS) for s in SEEDS for m in METHODS for r in RATES
        if (m, r, t, s) not in known
    ]  # fmt: skip
    with ProcessPoolExecutor(options.workers) as pool:
        runs = {pool.submit(one, *setting, options.epochs, str(work)): setting for setting in todo}
        for run in as_completed(runs):
            done.append(run.result())
            print(json.dumps(done[-1]), flush=True)
            done.sort(key=lambda r: (METHODS.index(r["method"]), RATES.index(r["rate"]), -r["bytes"], r["seed"]))
            head = provenance("rate", "python benchmarks/rate.py")
            options.result.write_text(json.dumps(head | {"rows": done}, indent=1) + "\n")


if __name__ == "__main__":
    main()
