"""Estimators of each channel's Hessian trace: how well they rank channels, what they cost, what they hold.

EHAP (arXiv 2306.07030) prunes channels by ``Omega_c = tr H_cc / (2 p_c) ||w_c||^2``, its traces from hundreds of
Hessian-vector products. Here every estimator sees the same training images; the reference is the exact trace, which
for these networks is the Gauss-Newton trace. Hutchinson's probes come in blocks, and between the blocks the cheap
estimators take their turns, so a machine whose speed drifts does not favour either. Peak memory is measured in a
process of its own: resident memory above what was there before, or what the GPU's allocator held.

    python benchmarks/curvature.py --weights FOLDER [--data FOLDER] [--only resnet-20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewbits import data as sets
from fewbits import zoo
from fewbits.measure import Curvature, curvature, sensitivity
from fewbits.report import provenance
from fewbits.report.correlation import spearman
from fewbits.weights import select
from fewbits.zoo.weights import normalisation

FILES = {
    "resnet-20": "cifar10_resnet20.safetensors",
    "resnet-32": "cifar10_resnet32.safetensors",
    "resnet-56": "cifar10_resnet56.safetensors",
}
BLOCKS = (1, 1, 8, 40, 150)  # probes; the first n blocks are the rows of 1, 10, 50 and 200 probes
CHEAP = (("sketched", 1), ("sketched", 2), ("sketched", 5), ("sampled", 1), ("sampled", 5))
VERSUS = "hutchinson, 200 probes, float32"
RESULT = Path(__file__).parent.parent / "results" / "curvature.json"
Batches = list[tuple[Tensor, Tensor]]


def prepare(name: str, options: argparse.Namespace, images: int) -> tuple[nn.Module, Batches]:
    """The trained network, and training images in batches."""
    model = zoo.build(name, seed=0)
    found = normalisation(zoo.load_weights(model, options.weights / FILES[name]))
    assert found is not None
    loader = (
        sets.load("cifar10", options.data).normalised(found).loader("train", min(options.batch, images), shuffle=True)
    )
    batches = []
    for x, y in loader:
        batches.append((x.to(options.device), y.to(options.device)))
        if sum(len(x) for x, _ in batches) >= images:
            break
    return model.to(options.device), batches


def timed(model: nn.Module, batches: Batches, **settings: Any) -> tuple[float, Curvature]:
    begin = time.perf_counter()
    found = curvature(model, batches, **settings)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, found


def joined(trace: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in trace.values()]).double().cpu()


class Judge:
    """Compares traces with the exact ones."""

    def __init__(self, model: nn.Module, exact: Curvature) -> None:
        self.weights, self.exact = select(model), exact
        self.trace, self.omega = joined(exact.trace), self.cost(exact.trace)

    def cost(self, trace: dict[str, Tensor]) -> Tensor:
        found = Curvature(trace, {}, "channel", "", 0, 0)
        return joined(sensitivity(found, self.weights))

    def compare(self, trace: dict[str, Tensor]) -> dict[str, float | None]:
        found, omega = joined(trace), self.cost(trace)
        alive = self.trace > 0  # the others have no relative error
        half = len(omega) // 2
        pruned, right = (set(o.argsort(stable=True)[:half].tolist()) for o in (omega, self.omega))
        return {
            "rank_correlation": spearman(omega, self.omega),
            "trace_correlation": spearman(found, self.trace),
            "median_relative_error": float(((found - self.trace).abs() / self.trace)[alive].median()),
            "agreement": len(pruned & right) / half,
            "negative": float((found < 0).double().mean()),
        }


def over_seeds(judged: list[dict[str, float | None]]) -> dict[str, Any]:
    """Means over seeds, and the worst rank correlation."""
    row: dict[str, Any] = {}
    for key in judged[0]:
        values = [j[key] for j in judged]
        row[key] = None if None in values else statistics.mean(v for v in values if v is not None)
    return row | {"rank_correlation_min": min(j["rank_correlation"] or 0.0 for j in judged), "seeds": len(judged)}


def mean_of(blocks: list[Curvature]) -> dict[str, Tensor]:
    """The traces of all probes of several blocks."""
    total = sum(b.draws for b in blocks)
    return {name: sum(b.draws / total * b.trace[name] for b in blocks) for name in blocks[0].trace}  # type: ignore[misc]


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    model, batches = prepare(name, options, options.images)
    curvature(model, [(batches[0][0][:4], batches[0][1][:4])])  # warm up
    exact_seconds, exact = timed(model, batches, estimator="exact")
    judge = Judge(model, exact)
    rows: list[dict[str, Any]] = []

    def row(method: str, draws: int, seconds: float, judged: dict[str, Any], **more: Any) -> None:
        head = {"model": name, "data": "cifar10", "split": "train", "images": exact.samples, "method": method}
        rows.append(head | {"draws": draws, "precision": "float32", "seconds": seconds} | judged | more)

    blocks: list[Curvature] = []
    seconds: list[float] = []
    cheap: dict[tuple[str, int], list[tuple[float, Curvature]]] = {setting: [] for setting in CHEAP}
    for index, probes in enumerate(BLOCKS):
        took, found = timed(model, batches, estimator="hutchinson", draws=probes, seed=100 + index)
        blocks.append(found)
        seconds.append(took)
        for method, draws in CHEAP:
            cheap[method, draws].append(timed(model, batches, estimator=method, draws=draws, seed=index))
        print(f"{name}: block of {probes} probes in {took:.1f} s", flush=True)
    base = sum(seconds)
    row("exact", 1, exact_seconds, judge.compare(exact.trace), channels=len(judge.trace))
    for (method, draws), runs in cheap.items():
        judged = over_seeds([judge.compare(f.trace) for _, f in runs])
        row(method, draws, statistics.median(s for s, _ in runs), judged)
    took, found = timed(model, batches, estimator="empirical")
    row("empirical", 1, took, judge.compare(found.trace))
    for count in (1, 3, 4, 5):
        trace = mean_of(blocks[:count])
        row("hutchinson", sum(BLOCKS[:count]), sum(seconds[:count]), judge.compare(trace))
    low(model, batches, judge, blocks, seconds, row, options)
    row("magnitude", 0, 0.0, judge.compare({n: torch.ones_like(t) for n, t in exact.trace.items()}))
    # The released code divides its scale by 256 before each probe and never divides it out: the factors of its 300
    # probes are 256, 1, 2^-8, ... Those beyond the second add less than 2^-15 of the first and are left out here.
    released = {n: (256 * blocks[0].trace[n] + blocks[1].trace[n]) / 300 for n in exact.trace}
    row("released schedule", 300, 1.5 * base, judge.compare(released), extrapolated="seconds, from 200 probes")
    for r in rows:
        r["time_ratio"], r["versus"] = r["seconds"] / base, VERSUS
    rows += many(name, options)
    return rows


def low(
    model: nn.Module,
    batches: Batches,
    judge: Judge,
    blocks: list[Curvature],
    seconds: list[float],
    row: Any,
    options: argparse.Namespace,
) -> None:
    """Low precision against float32 on the same probes."""
    cuda, small = options.device == "cuda", len(judge.weights) < 25
    # On a CPU without hardware for it float16 is emulated, at ten times the cost of float32 and more: one probe of
    # the smallest network shows its error.
    plans = {"bfloat16": 5 if cuda else 4 if small else 3, "float16": 5 if cuda else int(small)}
    for precision, count in plans.items():
        runs = [
            timed(model, batches, estimator="hutchinson", draws=probes, seed=100 + index, precision=precision)
            for index, probes in enumerate(BLOCKS[:count])
        ]
        if not runs:
            continue
        trace, same = mean_of([f for _, f in runs]), mean_of(blocks[:count])
        took = sum(s for s, _ in runs)
        a, b = joined(trace), joined(same)
        row(
            "hutchinson", sum(BLOCKS[:count]), took, judge.compare(trace), precision=precision,
            time_v_float32=took / sum(seconds[:count]),
            same_probes_rank_correlation=spearman(judge.cost(trace), judge.cost(same)),
            same_probes_median_relative_error=float(((a - b).abs() / b.abs())[b != 0].median()),
        )  # fmt: skip


def many(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cheap estimators on more images, for which 200 probes would take too long."""
    model, batches = prepare(name, options, options.many)
    took, exact = timed(model, batches, estimator="exact")
    judge = Judge(model, exact)
    head = {"model": name, "data": "cifar10", "split": "train", "images": exact.samples, "precision": "float32"}
    rows = [head | {"method": "exact", "draws": 1, "seconds": took} | judge.compare(exact.trace)]
    for method in ("sketched", "sampled"):
        runs = [timed(model, batches, estimator=method, seed=seed) for seed in range(5)]
        judged = over_seeds([judge.compare(f.trace) for _, f in runs])
        rows.append(head | {"method": method, "draws": 1, "seconds": statistics.median(s for s, _ in runs)} | judged)
    return rows


def peak(options: argparse.Namespace) -> int:
    """Bytes that one estimator held above the network and the data, in this process."""
    name, method, precision = options.peak.split(":")
    model, batches = prepare(name, options, options.peak_images)
    draws = {"sketched": 1, "sampled": 1, "hutchinson": 2}.get(method)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        curvature(model, batches, estimator=method, draws=draws, precision=precision)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    curvature(model, batches, estimator=method, draws=draws, precision=precision)
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes, from the process's own status (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {key} in /proc/self/status")


def peaks(name: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Add the peaks to the rows of one network."""
    settings = {
        (r["method"], r["precision"])
        for r in rows
        if r["method"] not in ("magnitude", "released schedule", "empirical")
    }
    settings -= set() if torch.cuda.is_available() else {("hutchinson", "float16")}  # emulated here
    found: dict[tuple[str, str], int] = {}
    for method, precision in sorted(settings):
        command = [sys.executable, *sys.argv, "--peak", f"{name}:{method}:{precision}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[method, precision] = int(done.stdout.strip().splitlines()[-1])
    for r in rows:
        held = found.get((r["method"], r["precision"]))
        if held is not None and "versus" in r:
            r["peak_bytes"], r["peak_images"] = held, options.peak_images
            r["peak_ratio"] = held / found["hutchinson", "float32"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the trained weights")
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--only", choices=sorted(FILES))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--peak-images", type=int, default=64, help="images for the peaks of memory")
    parser.add_argument("--many", type=int, default=128, help="images for the cheap estimators alone")
    parser.add_argument("--batch", type=int, default=64, help="most images in a batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.peak:
        print(peak(options))
        return
    rows: list[dict[str, Any]] = []
    command = "python benchmarks/curvature.py --weights FOLDER"
    head = provenance("curvature", command) | {"threads": torch.get_num_threads(), "device": options.device}
    for name in FILES:
        if options.only not in (None, name):
            continue
        found = measure(name, options)
        peaks(name, found, options)
        rows += found
        options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
        for r in found:
            print(json.dumps(r), flush=True)


if __name__ == "__main__":
    main()
