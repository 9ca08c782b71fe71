"""What benchmarks say of machines and of entropy, derived a second way."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import fewbits as fb
from benchmarks import derived
from benchmarks.kinds.edge_chain import entropy_bits
from benchmarks.priced import DECISION_PJ, decisions, priced
from fewbits.plan import Affine, Clustered, Plan
from networks import small_network

LEVELS = torch.tensor([[0, 0, 1, -2], [3, 0, 0, -1]], dtype=torch.int16)


def test_decisions_of_a_weight_by_hand() -> None:
    # zero: 1; 1 and -1: not zero, sign, no larger; and one more for each step up
    expected = {0: 1, 1: 3, -1: 3, -2: 4, 3: 5}
    mean = sum(expected[int(level)] for level in LEVELS.flatten()) / LEVELS.numel()
    assert decisions(Plan({"w": Clustered(LEVELS, 4, step=0.1)})) == mean


def test_a_decoder_adds_its_own_energy_and_changes_the_outer_memory_alone() -> None:
    net = small_network().eval()
    small = fb.compress(net, recipe={"assign": {"method": "ecq", "lam": 0.2}, "train": None}, progress=None)
    found = priced(small.plan, net, (1, 8, 8), ["stc", "eyeriss-v2"])
    weights = sum(entry.levels.numel() for entry in small.plan.clustered.values())
    for name in ("stc", "eyeriss-v2"):
        decoder = found[f"decoder_microjoules@{name}"]
        assert decoder == pytest.approx(1e-6 * weights * decisions(small.plan) * DECISION_PJ)
        saved = found[f"outer_microjoules@{name}"] - found[f"coded_outer_microjoules@{name}"]
        before, after = found[f"microjoules@{name}"], found[f"coded_microjoules@{name}"]
        assert after - before == pytest.approx(decoder - saved, rel=0.1)
        assert saved > 0


def test_entropy_of_each_tensor_by_counting() -> None:
    def affine(levels: torch.Tensor) -> Affine:
        return Affine(levels.to(torch.int8), torch.ones(levels.shape[0]))

    plan = Plan({"a": affine(LEVELS), "b": affine(LEVELS[:1]), "bias": affine(LEVELS[0])})
    expected = 0.0
    for levels in (LEVELS, LEVELS[:1]):
        counts = Counter(levels.flatten().tolist())
        expected -= sum(n * math.log2(n / levels.numel()) for n in counts.values())
    assert entropy_bits(SimpleNamespace(plan=plan)) == (pytest.approx(expected), 12)


def test_the_best_mix_of_each_machine_is_one_of_those_that_lost_little() -> None:
    shared = {"pattern": "none", "channels": 1, "sparsity": 50.0}
    rows = [
        {"key": "a", "bits": 2, "validation_accuracy": 80.0, "microjoules@x": 1.0, "microjoules@y": 1.0},
        {"key": "b", "bits": 3, "validation_accuracy": 90.5, "microjoules@x": 4.0, "microjoules@y": 9.0},
        {"key": "c", "bits": 4, "validation_accuracy": 91.0, "microjoules@x": 8.0, "microjoules@y": 6.0},
    ]
    found = derived.best_mixes(pd.DataFrame([row | shared for row in rows]))
    told = {(row.best_on, row.machine): (row.key, row.ratio) for row in found.itertuples()}
    assert told == {("x", "x"): ("b", 1), ("x", "y"): ("b", 1.5), ("y", "x"): ("c", 2), ("y", "y"): ("c", 1)}
    own = derived.own_best(pd.DataFrame([row | shared for row in rows]))
    assert [(row.machine, row.key) for row in own.itertuples()] == [("x", "b"), ("y", "c")]
