"""What the entropy coder's own code length gains as the rate term: `rate: coder` against first-order entropy.

The demo's network with the same float weights, data, epochs and byte targets, three seeds; only the rate term
differs. Accuracy is on the test set, on which nothing was chosen. Finished rows are kept.

With --weights, also without training: bytes at equal squared error on really trained networks, for several lambdas.

    python benchmarks/rate.py --weights DIR
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from demo_controls import SEEDS, prepared, recipe_for
from fewbits import assign, codec
from fewbits import recipe as recipes
from fewbits.job import job as jobs
from fewbits.report import provenance
from rows import row_of

METHODS = ("ecq", "ecqx")
RATES = ("entropy", "coder")
TARGETS = ("5 KB", "3.5 KB")
RESULT = Path(__file__).parent.parent / "results" / "rate.json"


def recipe_with(method: str, rate: str, target: str, seed: int, epochs: float) -> recipes.Recipe:
    values = recipe_for(method, target, seed, epochs).model_dump(by_alias=True, exclude_unset=True)
    # As the kept rows have it: the demo has other steps by now, and shorter floats.
    values["assign"]["options"] = values["assign"]["options"] | {"rate": rate, "step_rule": "range"}
    return recipes.make(values | {"significand": None})


def one(method: str, rate: str, target: str, seed: int, epochs: float, work: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    recipe = recipe_with(method, rate, target, seed, epochs)
    job = jobs.prepare(recipe, trained=Path(work) / f"float-{seed}.safetensors")
    out = Path(work) / f"{method}-{rate}-{target}-{seed}".replace(" ", "")
    report = jobs.run(job, out, resume=False).report
    commit = provenance("rate", "")["commit"]
    return row_of(report, recipe, commit) | {"method": method, "rate": rate, "target": target}


def at_equal_error(path: Path) -> list[dict[str, Any]]:
    """Bytes with `rate: coder` over bytes with `rate: entropy` at the same mean relative squared error of the layers.

    The entropy curve is interpolated in logarithms between its two nearest lambdas.
    """
    weights = {k: v.float() for k, v in load_file(path).items() if v.dim() >= 2}

    def point(rate: str, lam: float) -> tuple[float, int]:
        assigner = assign.ecq(lam=lam, rate=rate, refresh=1, zero_floor=0.5)
        state = assigner.init(weights)
        for _ in range(4 if rate == "coder" else 1):  # until the levels and what the coder says of them agree
            plan, state = assigner.update(weights, None, state)
        errors = [
            float((e.values() - weights[n]).square().sum() / weights[n].square().sum())
            for n, e in plan.clustered.items()
        ]
        return sum(errors) / len(errors), len(codec.encode(plan))

    curve = sorted(point("entropy", float(lam)) for lam in np.geomspace(0.005, 8, 24))
    errors, sizes = (np.log(np.array(values)) for values in zip(*curve, strict=True))
    rows = []
    for lam in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
        error, size = point("coder", lam)
        plain = float(np.exp(np.interp(np.log(error), errors, sizes)))
        row = {"model": path.stem, "lam": lam, "error": error, "bytes": size, "bytes_ratio": size / plain}
        rows.append(row | {"commit": provenance("rate", "")["commit"]})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--work", default="out/rate", help="folder for the files")
    parser.add_argument("--weights", type=Path, help="folder with the safetensors files of ResNet-20 and ResNet-56")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    kept = json.loads(options.result.read_text()) if options.result.exists() else {"rows": []}
    done, distortion = kept["rows"], kept.get("distortion", [])
    if options.weights:
        files = [options.weights / f"cifar10_resnet{depth}.safetensors" for depth in (20, 56)]
        distortion = [row for file in files for row in at_equal_error(file)]
    known = {(r["method"], r["rate"], r["target"], r["seed"]) for r in done}
    work = prepared(options.work)
    todo = [
        (m, r, t, s) for t in reversed(TARGETS) for s in SEEDS for m in METHODS for r in RATES
        if (m, r, t, s) not in known
    ]  # fmt: skip
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(one, *setting, options.epochs, str(work)): setting for setting in todo}
        for run in as_completed(runs):
            done.append(run.result())
            print(json.dumps(done[-1]), flush=True)
            done.sort(key=lambda r: (METHODS.index(r["method"]), RATES.index(r["rate"]), -r["bytes"], r["seed"]))
            head = provenance("rate", "python benchmarks/rate.py --weights DIR")
            options.result.write_text(json.dumps(head | {"rows": done, "distortion": distortion}, indent=1) + "\n")
    if not todo:
        options.result.write_text(json.dumps(kept | {"distortion": distortion}, indent=1) + "\n")


if __name__ == "__main__":
    main()
