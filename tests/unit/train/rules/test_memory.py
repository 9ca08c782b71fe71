"""What a step of a rule holds at once, by torch's own count."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kinds.rule_cost import Steps
from benchmarks.memory import peak_bytes

SHAPE = {"width": 8, "size": 8, "batch": 32}


def beside_directions(name: str, layers: int) -> int:
    """Bytes at most, less the directions, which every rule leaves for all weights."""
    step = Steps(name, {}, SHAPE | {"layers": layers}, 0)
    return peak_bytes(step) - step.weight_bytes


def test_the_peak_is_counted_to_the_byte() -> None:
    def call() -> torch.Tensor:
        first, second = torch.zeros(1000), torch.zeros(2000)
        del first
        return torch.zeros(500) + second[0]

    assert peak_bytes(call) == pytest.approx(4 * 3000, abs=16)


@pytest.mark.parametrize("name", ["mono-forward", "forward-forward", "scff", "hebbian", "soft-hebb"])
def test_local_rules_hold_one_layer_however_deep_the_network(name: str) -> None:
    assert beside_directions(name, 12) == pytest.approx(beside_directions(name, 6), rel=0.01)


def test_backpropagation_holds_all_layers() -> None:
    assert beside_directions("backprop", 12) > 1.5 * beside_directions("backprop", 6)
