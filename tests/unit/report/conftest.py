"""A small network, its compression by thresholding, and everything said about it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from fewbits.plan import Clustered, Dense, Plan
from fewbits.report import Explanation, Report, Round, explain
from fewbits.report.sizes import float_bytes, general_purpose, tensor_rows
from fewbits.weights import select


@dataclass(frozen=True, eq=False)
class Example:
    before: nn.Module
    after: nn.Module
    plan: Plan
    batches: list[tuple[Tensor, Tensor]]
    images: Tensor
    targets: Tensor


@pytest.fixture(scope="session")
def example() -> Example:
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        before = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    entries: dict[str, Clustered | Dense] = {name: Dense(t) for name, t in before.state_dict().items()}
    for name, weight in select(before).items():
        step = float(weight.detach().abs().max()) / 7
        levels = (weight.detach() / step).round()
        levels[weight.abs() < weight.abs().median()] = 0
        entries[name] = Clustered(levels.to(torch.int16), 4, step=step)
    plan = Plan(entries)
    after = copy.deepcopy(before)
    after.load_state_dict(plan.tensors())
    images = torch.rand(40, 1, 6, 6, generator=generator)
    targets = torch.arange(40) % 3
    batches = [(images[:16], targets[:16]), (images[16:], targets[16:])]
    return Example(before, after, plan, batches, images, targets)


@pytest.fixture(scope="session")
def explanation(example: Example) -> Explanation:
    x = example
    return explain(x.before, x.after, x.plan, x.batches, x.images, x.targets, classes=["cat", "dog", "owl"])


@pytest.fixture(scope="session")
def report(example: Example) -> Report:
    original = dict(example.before.state_dict())
    return Report(
        model="tiny",
        data="noise",
        method="ecqx",
        tensors=tensor_rows(example.plan, {"0.weight": 31, "3.weight": 77}),
        file_bytes=250,
        float_bytes=float_bytes(original),
        floats_bytes=142,
        others=general_purpose(original, example.plan),
        accuracy_before=91.25,
        accuracy_after=90.5,
        split="test",
        identical=True,
        target=300,
        met=True,
        seconds=12.34,
        steps=120,
        history=(Round(60, 1e-3, 400, 0.3, 91.0), Round(120, 2e-2, 250, 0.5, None)),
        recipe={"method": "ecqx", "bits": 4},
        versions={"fewbits": "0.1.0"},
    )


@pytest.fixture
def rows() -> list[dict[str, object]]:
    """Two methods, two settings each, three seeds."""
    return [
        {
            "model": "tiny", "data": "noise", "method": method, "seed": seed, "bits": bits, "split": "test",
            "accuracy": 80.0 + bits + seed + offset, "bytes": 1000 * bits + 10 * seed,
            "baseline_accuracy": 90.0 + seed, "measured": 0.1 * seed + bits,
        }
        for method, offset in (("ecqx", 1.0), ("ecq", 0.0))
        for bits in (2, 4)
        for seed in range(3)
    ]  # fmt: skip
