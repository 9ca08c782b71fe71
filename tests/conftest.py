"""Shared fixtures: a small real network, trained on handwriting in a moment."""

from __future__ import annotations

import copy
import signal
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fewbits.codec import coder, encode
from fewbits.data import DataSet, digits
from fewbits.plan import Plan
from fewbits.recipe.training import Training
from fewbits.task import accuracy
from fewbits.train import pretrain
from networks import small_network

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs of a shell; processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing here: the first one of torch's operators, or a busy machine, takes long.
# All else is the profile that Hypothesis takes by itself; where ``CI`` is set, its examples are the same every time.
settings.register_profile("fewbits", settings.default, deadline=None)
settings.load_profile("fewbits")


@pytest.fixture(scope="session")
def handwriting() -> DataSet:
    return digits()


@pytest.fixture(scope="session")
def _trained(handwriting: DataSet) -> nn.Module:
    torch.manual_seed(0)
    network = small_network()
    loader = handwriting.loader("train", 32, shuffle=True)
    pretrain(network, loader, Training(epochs=6, lr=5e-3), seed=0)
    assert accuracy(network, handwriting.loader("validation", 256)) > 90
    return network.eval()


@pytest.fixture
def trained(_trained: nn.Module) -> nn.Module:
    """The trained small network; each test gets its own copy."""
    return copy.deepcopy(_trained)


@pytest.fixture
def train(handwriting: DataSet) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of 64, shuffled the same way each time."""
    return handwriting.loader("train", 64, shuffle=True, seed=1)


def encode_with(name: str, plan: Plan, **options: Any) -> bytes:
    """The file with all levels coded by one coder, whichever a profile would take."""
    (chosen,) = (c for c in coder.CODERS.values() if c.name == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "PROFILES", {"only": (chosen, chosen, -1)})
        return encode(plan, profile="only", **options)
