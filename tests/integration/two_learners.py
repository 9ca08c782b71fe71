"""What each process of ``test_rules_in_two_processes.py`` does: train by every rule, and leave weights in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from fewbits.recipe.training import Training
from fewbits.train import fit, plain
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.rules import RULES, rule_of

torch.set_num_threads(1)


def batches(size: int) -> list[tuple[Tensor, Tensor]]:
    """The same 64 samples in batches of a size."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 1, 6, 6, generator=generator), torch.arange(64) % 3
    return [(x[i : i + size], y[i : i + size]) for i in range(0, 64, size)]


def trained(name: str, size: int) -> dict[str, Tensor]:
    """Weights after an epoch, of a network in which samples do not see each other."""
    set_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    options: dict[str, Any] = {"warm_up": 1} if "target" in name else {}
    settings = Training(epochs=1, lr=0.02, optimizer="sgd")
    optimizer = optimizer_of(parameter_groups(network, settings), settings)
    fit(network, batches(size), plain(), optimizer, settings, rule=rule_of(name, options))
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def main(out: Path) -> None:
    accelerator = Accelerator()
    assert accelerator.num_processes == 2
    found = {name: trained(name, 8) for name in RULES}
    torch.save(found, out / f"{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
