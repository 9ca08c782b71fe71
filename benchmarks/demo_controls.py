"""Is relevance worth its cost? ECQx against ECQ and against other scores in the same place, at equal budgets.

Every method gets the same float network, training data, epochs, learning rate and byte targets; only the scores that
weigh zeroing differ. Three seeds (of the float network and of everything after it). Accuracy is on the test set,
on which nothing was chosen. Finished rows are kept, so an interrupted run goes on.

    python benchmarks/demo_controls.py
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fewbits import recipe as recipes
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.report import provenance
from rows import row_of, with_method

QUARTER = "ecqx, quarter batch"  # relevance of a quarter of each mini-batch: is the rest worth its time?
BFLOAT16 = "ecqx, bfloat16"  # its convolutions at a lower precision: does anything suffer?
METHODS = ("ecq", "ecqx", QUARTER, BFLOAT16, "taylor", "fisher", "magnitude", "random")
TARGETS = ("5 KB", "3.5 KB", "2.5 KB")
SEEDS = (0, 1, 2)
RESULT = Path(__file__).parent.parent / "results" / "demo_controls.json"


def recipe_for(method: str, target: str, seed: int, epochs: float) -> recipes.Recipe:
    demo = recipes.load("demo").model_dump(by_alias=True, exclude_unset=True)
    demo |= {"seed": seed, "target": target, "train": demo["train"] | {"epochs": epochs}}
    if method == QUARTER:
        demo["measure"] = demo["measure"] | {"samples": demo["data"]["batch_size"] // 4}
    elif method == BFLOAT16:
        demo["measure"] = demo["measure"] | {"precision": "bfloat16"}
    else:
        demo = with_method(demo, method)
    return recipes.make(demo)


def one(method: str, target: str, seed: int, epochs: float, work: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    recipe = recipe_for(method, target, seed, epochs)
    float_file = Path(work) / f"float-{seed}.safetensors"
    job = jobs.prepare(recipe, trained=float_file)
    out = Path(work) / f"{method}-{target}-{seed}".replace(" ", "")
    report = jobs.run(job, out, resume=False).report
    commit = provenance("demo_controls", "")["commit"]  # per row: an interrupted run may go on with other code
    return row_of(report, recipe, commit) | {"method": method, "target": target}


def prepared(work: str) -> Path:
    """The folder, with one trained float network per seed in it, which all methods share."""
    folder = outputs.folder(Path(work))
    for seed in SEEDS:
        float_file = folder / f"float-{seed}.safetensors"
        if not float_file.exists():
            job = jobs.prepare(recipe_for("ecq", TARGETS[0], seed, epochs=1))  # pretraining has epochs of its own
            outputs.save_float(job.network, float_file, job.dataset.normalisation)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--work", default="out/demo_controls", help="folder for the files")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    done = json.loads(options.result.read_text())["rows"] if options.result.exists() else []
    known = {(r["method"], r["target"], r["seed"]) for r in done}
    work = prepared(options.work)
    todo = [(m, t, s) for t in TARGETS for s in SEEDS for m in METHODS if (m, t, s) not in known]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(one, m, t, s, options.epochs, str(work)): (m, t, s) for m, t, s in todo}
        for run in as_completed(runs):
            done.append(run.result())
            print(json.dumps(done[-1]), flush=True)
            done.sort(key=lambda r: (METHODS.index(r["method"]), -r["bytes"], r["seed"]))
            head = provenance("demo_controls", "python benchmarks/demo_controls.py")
            options.result.write_text(json.dumps(head | {"rows": done}, indent=1) + "\n")


if __name__ == "__main__":
    main()
