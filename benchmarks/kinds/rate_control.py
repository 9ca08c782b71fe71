"""What it costs to steer a compression: its share of the training's CPU time, files coded, and the peak of memory.

Networks have random weights and random data: neither times nor memory depend on them. Each row is measured in a fresh
process. Its memory counts from the end of the imports, and once more from where a compression of a network of a few
numbers leaves it: torch imports parts of itself when an optimizer is made.
"""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import fewbits as fb
from benchmarks.networks import torchvision
from benchmarks.unit import Place, Row, Unit
from fewbits import zoo
from fewbits.pipeline import _candidates, _final, _finish, _rounds
from fewbits.pipeline.stages import _hold
from fewbits.recipe import load


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row."""
    words = [sys.executable, "-m", "benchmarks.kinds.rate_control", json.dumps(unit.asked)]
    settings = {"OMP_NUM_THREADS": "1"}
    if unit.asked["mmap_threshold"]:
        settings["MALLOC_MMAP_THRESHOLD_"] = str(unit.asked["mmap_threshold"])
    told = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | settings)
    return [unit.asked | json.loads(told.stdout.splitlines()[-1])]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(samples, length, 3, 8, width // 8).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(samples, length, width)
        x = x + self.out(seen)
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class Transformer(nn.Module):
    """18.9 million numbers in blocks, 0.5 million in the embedding."""

    def __init__(self, words: int = 1000, width: int = 512, blocks: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(x)).mean(1))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "transformer":
        return Transformer()
    if name == "resnet18":
        return torchvision().models.get_model(name, weights=None)
    return zoo.build(name, seed=0)


def data(name: str, samples: int, batch: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 10, (samples,), generator=generator)
    if name == "transformer":
        inputs = torch.randint(0, 1000, (samples, 32), generator=generator)
    else:
        inputs = torch.randn(samples, 3, 32, 32, generator=generator)
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


class Clock:
    """CPU seconds inside some functions, and how often they were called; calls within calls count once."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.inside = 0.0, 0, False

    def watch(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            if self.inside:
                return real(*args, **options)
            self.inside, begin = True, time.process_time()
            try:
                return real(*args, **options)
            finally:
                self.seconds += time.process_time() - begin
                self.calls, self.inside = self.calls + 1, False

        setattr(owner, name, timed)


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(chosen: Row) -> Row:
    """The row, measured in this process."""
    torch.set_num_threads(1)
    imported = peak()
    tiny = nn.Linear(16, 10)
    fb.compress(tiny, [(torch.randn(8, 16), torch.randint(0, 10, (8,)))], steps=1, target="1 KB", progress=None)
    everything = peak()
    model = network(chosen["model"])
    batches = data(chosen["model"], chosen["samples"], chosen["batch"])
    rate, coded, whole, sizes = Clock(), Clock(), Clock(), Clock()
    for name in ("first", "next"):
        rate.watch(_rounds.Rounds, name)
    rate.watch(_final.Final, "choose")
    coded.watch(_candidates.codec, "encode")
    whole.watch(_hold, "fit")
    sizes.watch(_finish, "general_purpose")
    begin, seen = time.perf_counter(), list[float]()

    def hear(done: int, total: int, line: str) -> None:
        seen.append(time.perf_counter() - begin)

    hear.every_step = True  # type: ignore[attr-defined]  # as a bar
    floats = 4 * sum(p.numel() for p in model.parameters())
    target = round(floats / chosen["over"])
    first = time.process_time()
    chosen_recipe = load("ecq-4bit").updated(rounds=chosen["rounds"])
    steps = round(chosen["epochs"] * len(batches))
    found = fb.compress(model, batches, recipe=chosen_recipe, target=target, steps=steps, progress=hear)
    total = time.process_time() - first
    training = total - rate.seconds - sizes.seconds
    return {
        "method": "ecq", "parameters": floats // 4, "steps": found.report.steps,
        "files_coded": coded.calls, "rate_seconds": rate.seconds, "seconds": total, "training_seconds": training,
        "rate_percent": 100 * rate.seconds / training, "comparison_seconds": sizes.seconds, "first_told_after": seen[0],
        "peak_bytes": peak() - imported, "peak_ratio": (peak() - imported) / floats,
        "peak_ratio_all_imported": (peak() - everything) / floats,
        "bytes": found.report.file_bytes, "target": target, "of_target": 100 * found.report.file_bytes / target,
        "met": found.report.met, "ratio": found.report.ratio, "identical": found.report.identical,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
