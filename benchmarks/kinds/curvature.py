"""Estimators of each channel's Hessian trace: how well they rank channels, what they cost, what they hold."""

import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.process import forget_peak, resident
from benchmarks.unit import Place, Row, Unit
from fewbits import data, zoo
from fewbits.measure import Curvature, curvature, sensitivity
from fewbits.report.correlation import spearman
from fewbits.weights import select

BLOCKS = (1, 1, 8, 40, 150)  # probes; the first n blocks are the rows of 1, 10, 50 and 200 probes
VERSUS = "hutchinson, 200 probes, float32"
CHEAP = (("sketched", 1), ("sketched", 2), ("sketched", 5), ("sampled", 1), ("sampled", 5))
DRAWS = {"sketched": 1, "sampled": 1, "hutchinson": 2}  # where memory is measured
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Batches = list[tuple[Tensor, Tensor]]


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row per estimator, number of draws and precision; of the cheap ones also on ``many`` images."""
    name, weights, chosen = unit.labels["model"], place.weights / unit.options["file"], unit.options
    model, batches = prepare(name, weights, place.data, chosen["images"])
    rows = compared(model, batches)
    for row in rows:
        where = (name, str(weights), str(place.data or ""), row["method"], row["precision"], str(chosen["peak_images"]))
        if row["method"] in ("exact", *DRAWS) and (row["precision"] != "float16" or DEVICE == "cuda"):
            told = subprocess.run([sys.executable, "-m", __name__, *where], capture_output=True, text=True, check=True)
            row |= {"peak_bytes": int(told.stdout.split()[-1]), "peak_images": chosen["peak_images"]}
    base = next(r for r in rows if f"{r['method']}, {r['draws']} probes, {r['precision']}" == VERSUS)
    for row in rows:
        row |= {"time_ratio": row["seconds"] / base["seconds"], "versus": VERSUS}
        row |= {"peak_ratio": row["peak_bytes"] / base["peak_bytes"]} if "peak_bytes" in row else {}
    model, batches = prepare(name, weights, place.data, chosen["many"])
    judge, exact = judged(model, batches)
    rows += [exact, *(over_seeds(judge, model, batches, method, 1) for method in ("sketched", "sampled"))]
    return [unit.labels | {"data": "cifar10", "split": "train", "device": DEVICE} | row for row in rows]


def prepare(name: str, weights: Path, folder: Path | None, images: int) -> tuple[nn.Module, Batches]:
    """The trained network, and training images in batches of at most 64."""
    model = zoo.build(name, seed=0)
    found = zoo.normalisation(zoo.load_weights(model, weights))
    assert found is not None
    loader = data.load("cifar10", folder).normalised(found).loader("train", min(64, images), shuffle=True)
    batches = [(x.to(DEVICE), y.to(DEVICE)) for x, y in islice(loader, -(-images // 64))]
    return model.to(DEVICE), batches


def timed(model: nn.Module, batches: Batches, **settings: Any) -> tuple[float, Curvature]:
    begin, found = time.perf_counter(), curvature(model, batches, **settings)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, found


class Judge:
    """Compares traces with the exact ones."""

    def __init__(self, model: nn.Module, exact: Curvature) -> None:
        self.weights, self.exact, self.trace = select(model), exact, joined(exact.trace)
        self.omega = self.cost(exact.trace)

    def cost(self, trace: dict[str, Tensor]) -> Tensor:
        """EHAP's criterion of every channel."""
        return joined(sensitivity(replace(self.exact, trace=trace), self.weights))

    def row(self, method: str, draws: int, seconds: float, trace: dict[str, Tensor], precision: str = "float32") -> Row:
        """How well traces rank channels, and what they took."""
        found, omega = joined(trace), self.cost(trace)
        alive = self.trace > 0  # the others have no relative error
        half = len(omega) // 2
        pruned, right = (set(o.argsort(stable=True)[:half].tolist()) for o in (omega, self.omega))
        return {
            "images": self.exact.samples, "method": method, "draws": draws, "precision": precision, "seconds": seconds,
            "rank_correlation": spearman(omega, self.omega), "trace_correlation": spearman(found, self.trace),
            "median_relative_error": float(((found - self.trace).abs() / self.trace)[alive].median()),
            "agreement": len(pruned & right) / half, "negative": float((found < 0).double().mean()),
        }  # fmt: skip


def joined(trace: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in trace.values()]).double().cpu()


def judged(model: nn.Module, batches: Batches) -> tuple[Judge, Row]:
    """The judge, and the row of what it judges by."""
    seconds, exact = timed(model, batches, estimator="exact")
    judge = Judge(model, exact)
    return judge, judge.row("exact", 1, seconds, exact.trace) | {"channels": len(judge.trace)}


def mean_over(rows: list[Row]) -> Row:
    """Means over seeds, and the worst rank correlation; seconds are the median."""
    row = {k: statistics.mean(r[k] for r in rows) if isinstance(v, float) else v for k, v in rows[0].items()}
    row |= {"rank_correlation_min": min(r["rank_correlation"] or 0.0 for r in rows), "seeds": len(rows)}
    return row | {"seconds": statistics.median(r["seconds"] for r in rows)}


def over_seeds(judge: Judge, model: nn.Module, batches: Batches, method: str, draws: int) -> Row:
    runs = [timed(model, batches, estimator=method, draws=draws, seed=seed) for seed in range(5)]
    return mean_over([judge.row(method, draws, seconds, found.trace) for seconds, found in runs])


def compared(model: nn.Module, batches: Batches) -> list[Row]:
    """Every estimator on the same images, the cheap ones between blocks of Hutchinson's probes."""
    curvature(model, [(batches[0][0][:4], batches[0][1][:4])])  # warm up
    judge, exact = judged(model, batches)
    blocks: list[tuple[float, Curvature]] = []
    cheap: dict[tuple[str, int], list[Row]] = {setting: [] for setting in CHEAP}
    for index, probes in enumerate(BLOCKS):
        blocks.append(timed(model, batches, estimator="hutchinson", draws=probes, seed=100 + index))
        for method, draws in CHEAP:
            seconds, found = timed(model, batches, estimator=method, draws=draws, seed=index)
            cheap[method, draws].append(judge.row(method, draws, seconds, found.trace))
    seconds, found = timed(model, batches, estimator="empirical")
    rows = [exact, *map(mean_over, cheap.values()), judge.row("empirical", 1, seconds, found.trace)]
    rows += [judge.row("hutchinson", *together(blocks[:n])) for n in (1, 3, 4, 5)]
    # On a CPU without hardware for it float16 is emulated, at ten times the cost of float32 and more: one probe of
    # the smallest network shows its error.
    small = len(judge.weights) < 25
    counts = {"bfloat16": 5, "float16": 5} if DEVICE == "cuda" else {"bfloat16": 4 if small else 3, "float16": small}
    for precision, n in counts.items():
        if n:
            rows.append(lower(judge, model, batches, blocks[: int(n)], precision))
    rows.append(judge.row("magnitude", 0, 0.0, {k: torch.ones_like(t) for k, t in judge.exact.trace.items()}))
    # The released code divides its scale by 256 before each probe and never divides it out: the factors of its 300
    # probes are 256, 1, 2^-8, ... Those beyond the second add less than 2^-15 of the first and are left out here.
    first, second = (found.trace for _, found in blocks[:2])
    released = {key: (256 * first[key] + second[key]) / 300 for key in first}
    told = {"extrapolated": "seconds, from 200 probes"}
    return [*rows, judge.row("released schedule", 300, 1.5 * sum(s for s, _ in blocks), released) | told]


def together(blocks: list[tuple[float, Curvature]]) -> tuple[int, float, dict[str, Tensor]]:
    """Probes, seconds and traces of several blocks."""
    total = sum(b.draws for _, b in blocks)
    parts = [{name: b.draws / total * t for name, t in b.trace.items()} for _, b in blocks]
    return total, sum(s for s, _ in blocks), {n: torch.stack([p[n] for p in parts]).sum(0) for n in parts[0]}


def lower(judge: Judge, model: nn.Module, batches: Batches, blocks: list[tuple[float, Curvature]], low: str) -> Row:
    """Hutchinson in low precision against float32 on the same probes."""
    settings = {"estimator": "hutchinson", "precision": low}
    runs = [timed(model, batches, draws=n, seed=100 + i, **settings) for i, n in enumerate(BLOCKS[: len(blocks)])]
    (probes, seconds, trace), (_, plain, same) = together(runs), together(blocks)
    a, b = joined(trace), joined(same)
    return judge.row("hutchinson", probes, seconds, trace, low) | {
        "time_v_float32": seconds / plain,
        "same_probes_rank_correlation": spearman(judge.cost(trace), judge.cost(same)),
        "same_probes_median_relative_error": float(((a - b).abs() / b.abs())[b != 0].median()),
    }


def peak(name: str, weights: str, folder: str, method: str, precision: str, images: str) -> int:
    """Bytes that one estimator held above the network and the data, in this process."""
    model, batches = prepare(name, Path(weights), Path(folder) if folder else None, int(images))
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if DEVICE == "cuda" else forget_peak()
    curvature(model, batches, estimator=method, draws=DRAWS.get(method), precision=precision)
    return (torch.cuda.max_memory_allocated() if DEVICE == "cuda" else resident()) - before


if __name__ == "__main__":
    print(peak(*sys.argv[1:]))
