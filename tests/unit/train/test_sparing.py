"""Less memory in a step of a large network, and the same bits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.train import _sparing, optimizers
from fewbits.train.hold import QATCallback

RECIPES = {
    "ecq": {"target": "1 KB", "assign": {"method": "ecq"}},
    "ecqx": {"target": "1 KB", "assign": {"method": "ecqx"}, "measure": {"every": 2}},
    "ternary, SGD": {
        "target": "1 KB",
        "assign": {"method": "ternary"},
        "train": {"optimizer": "sgd", "lr": 1e-2, "weight_decay": 1e-4, "learn": True},
    },
    "clipped": {"target": "1 KB", "assign": {"method": "ecq"}, "train": {"clip": 1.0}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_sparing_run_writes_the_same_file(name: str, trained, train, monkeypatch) -> None:
    seen: list[bool] = []
    real = QATCallback.before_update

    def before_update(self: QATCallback, outputs: Any, batch: Any) -> None:
        seen.append(all(weight.grad is None for weight in self.weights.values()))
        real(self, outputs, batch)

    monkeypatch.setattr(QATCallback, "before_update", before_update)
    steps, recipe = 6, {"rounds": 2} | RECIPES[name]
    whole = fb.compress(trained, train, recipe=recipe, steps=steps)
    assert not any(seen), "gradients were there"
    seen.clear()
    monkeypatch.setattr(_sparing, "LARGE", 0)
    spared = fb.compress(trained, train, recipe=recipe, steps=steps)
    assert spared.data == whole.data
    every_gradient = {"clipped": steps, "ecqx": seen.count(False)}.get(name, 0)  # where every second step measures
    assert seen.count(False) == every_gradient
    assert any(seen) == (name != "clipped")


@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_optimizers_are_torchs_all_at_once_and_one_by_one(kind: str) -> None:
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01} | ({"momentum": 0.9} if kind == "SGD" else {})
    torch.manual_seed(0)
    begin, gradients = [torch.randn(3), torch.randn(2, 2)], [[torch.randn(3), torch.randn(2, 2)] for _ in range(3)]

    def trained_by(cls: Any, *, single: bool) -> list[torch.Tensor]:
        parameters = [nn.Parameter(t.clone()) for t in begin]
        optimizer = cls(parameters, **options)
        for step in gradients:
            for p, g in zip(parameters, step, strict=True):
                p.grad = g.clone()
            if single:
                for p in reversed(parameters):
                    optimizers.step_one(optimizer, optimizer.param_groups[0], p)
                    assert p.grad is None
            else:
                optimizer.step()
                optimizer.zero_grad()
        assert set(optimizer.state) == set(parameters)
        return [p.detach() for p in parameters]

    wanted = trained_by(getattr(torch.optim, kind), single=False)
    for single in (False, True):
        found = trained_by(getattr(optimizers, kind), single=single)
        assert all(map(torch.equal, found, wanted))


def test_no_compiler_is_loaded() -> None:
    program = """
import sys, torch, fewbits as fb
data = [(torch.randn(8, 16), torch.randint(0, 10, (8,)))]
fb.compress(torch.nn.Linear(16, 10), data, steps=1, target="1 KB", progress=None)
print([name for name in ("torch._dynamo", "torch.distributed.tensor", "sympy") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_freed_memory_can_be_given_back_anywhere(monkeypatch) -> None:
    _sparing.trim()
    monkeypatch.setattr(_sparing, "_release", lambda: None)
    _sparing.trim()
