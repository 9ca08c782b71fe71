"""What relevance costs: time of an ECQx training step over an ECQ step, on the same network and batch."""

import dataclasses
import statistics
import time
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.unit import Place, Row, Unit
from fewbits import assign, zoo
from fewbits.attach import attach
from fewbits.measure import RelevanceScorer
from fewbits.measure.relevance import Rules, rules_of
from fewbits.recipe import Finetuning
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.train.objectives import plain as plain_objective
from fewbits.weights import select

INPUTS = {"mlp-gsc": (255,), "vgg16": (3, 32, 32), "resnet-20": (3, 32, 32)}


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: the median ratio over the repeats, on as many threads as the option says."""
    chosen = unit.asked
    every = chosen["every"]
    samples = chosen["samples"] if chosen["samples"] < chosen["batch"] else None  # all of them need no second pass
    torch.set_num_threads(chosen["threads"])
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(chosen["batch"], *INPUTS[chosen["model"]], generator=generator)
    targets = torch.randint(10, (len(inputs),), generator=generator)
    rules = dataclasses.replace(rules_of(chosen["rules"]), precision=chosen["precision"])
    plain, explained = (Stepper(chosen["model"], method, rules, samples, every) for method in ("ecq", "ecqx"))
    for stepper in (plain, explained):
        for _ in range(every):
            stepper.step(inputs, targets)
    ratios = []
    for _ in range(chosen["repeats"]):  # of `every` steps one measures relevance; all reassign with what is known
        base = sum(plain.step(inputs, targets) for _ in range(every))
        ratios.append(sum(explained.step(inputs, targets) for _ in range(every)) / base)
    return [
        {
            **chosen, "method": "ecqx", "versus": "ecq step", "time_ratio": statistics.median(ratios),
            "time_ratio_min": min(ratios), "time_ratio_max": max(ratios),
        }
    ]  # fmt: skip


class Stepper:
    """One training step after another, as the training loop makes them."""

    def __init__(self, name: str, method: str, rules: Rules, samples: int | None, every: int) -> None:
        model, settings = zoo.build(name, seed=0), Finetuning()
        weights = select(model)
        maker = partial(getattr(assign, method), zero_floor=0.5)
        plan, state = maker(lam=0.3).update(weights, None, maker(lam=0.3).init(weights))
        attach(model, plan)
        scorer = RelevanceScorer(model, rules, samples=samples) if method == "ecqx" else None
        self.qat = QATCallback(
            model, lambda lam, _: maker(lam=lam), state, 0.3, scorer=scorer, every=every, settings=settings,
            accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
        )  # fmt: skip
        self.model, self.objective, self.done = model.train(), plain_objective(), 0
        self.optimizer = optimizer_of(finetuning_groups(model, settings), settings)

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Seconds of one step."""
        begin = time.perf_counter()
        with self.qat.watch():
            logits = self.model(inputs)
        loss = self.objective(logits, (inputs, targets))
        loss.backward(retain_graph=self.qat.keeps_graph())
        self.qat.before_update(logits, (inputs, targets))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        self.qat.after_update(self.done, 10**9, 0.0)
        return time.perf_counter() - begin
