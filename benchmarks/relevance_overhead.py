"""What relevance costs: time of an ECQx training step over an ECQ step, on the same network and batch.

The paper (arXiv 2109.04236, 4.3) pays 1.2x on its MLP, 2.4x on VGG16 and 3.2x on ResNet-18. Steps of both kinds
alternate in one process, and the ratio is taken pair by pair, so a machine whose speed drifts does not matter.

    python benchmarks/relevance_overhead.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from fewbits import assign, zoo
from fewbits.attach import attach
from fewbits.graph.traced import trace
from fewbits.measure import RelevanceScorer
from fewbits.measure.relevance import Rules, rules_of
from fewbits.recipe.training import Finetuning
from fewbits.report import provenance
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.train.objectives import plain
from fewbits.weights import select

INPUTS = {"mlp-gsc": (255,), "vgg16": (3, 32, 32), "resnet-20": (3, 32, 32)}
RESULT = Path(__file__).parent.parent / "results" / "relevance_overhead.json"


class Stepper:
    """One training step after another, as the training loop makes them."""

    def __init__(self, name: str, method: str, rules: Rules, samples: int | None, every: int) -> None:
        model = zoo.build(name, seed=0)
        traced = trace(model)
        maker = getattr(assign, method)
        options = {"zero_floor": 0.5}
        weights = select(model)
        assigner = maker(lam=0.3, **options)
        plan, state = assigner.update(weights, None, assigner.init(weights))
        attach(model, plan)
        settings = Finetuning()
        scorer = RelevanceScorer(model, traced, rules, samples=samples) if method == "ecqx" else None
        self.qat = QATCallback(
            model, lambda lam, _: maker(lam=lam, **options), state, 0.3, scorer=scorer, every=every, settings=settings,
            accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
        )  # fmt: skip
        self.model = model.train()
        self.optimizer = optimizer_of(finetuning_groups(model, settings), settings)
        self.objective = plain()
        self.done = 0

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Seconds of one step."""
        begin = time.perf_counter()
        with self.qat.watch():
            logits = self.model(inputs)
        loss = self.objective(logits, targets, inputs)
        loss.backward()
        self.qat.before_update(logits, targets)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        self.qat.after_update(self.done, 10**9, 0.0)
        return time.perf_counter() - begin


def measure(
    name: str, rules: str, samples: int | None, precision: str, every: int, repeats: int, batch: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, *INPUTS[name], generator=generator)
    targets = torch.randint(10, (batch,), generator=generator)
    chosen = dataclasses.replace(rules_of(rules), precision=precision)
    plain, explained = (Stepper(name, method, chosen, samples, every) for method in ("ecq", "ecqx"))
    for stepper in (plain, explained):
        for _ in range(every):
            stepper.step(inputs, targets)
    ratios = []
    for _ in range(repeats):  # of `every` steps one measures relevance, and all reassign with what is known
        base = sum(plain.step(inputs, targets) for _ in range(every))
        ratios.append(sum(explained.step(inputs, targets) for _ in range(every)) / base)
    return {
        "model": name,
        "method": "ecqx",
        "versus": "ecq step",
        "rules": rules,
        "precision": precision,
        "batch": batch,
        "samples": samples or batch,
        "every": every,
        "threads": torch.get_num_threads(),
        "time_ratio": statistics.median(ratios),
        "time_ratio_min": min(ratios),
        "time_ratio_max": max(ratios),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="more than one needs an idle machine")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in INPUTS:
            for rules, samples, precision, every in (
                ("paper", None, "float32", 1),
                ("plus", None, "float32", 1),
                ("plus", None, "bfloat16", 1),
                ("plus", options.batch // 4, "float32", 1),
                ("plus", options.batch // 4, "float32", 2),
                ("plus", options.batch // 8, "float32", 2),
                ("plus", None, "float32", 4),
            ):
                rows.append(measure(name, rules, samples, precision, every, options.repeats, options.batch))
                print(json.dumps(rows[-1]), flush=True)
    head = provenance("relevance_overhead", "python benchmarks/relevance_overhead.py")
    options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
