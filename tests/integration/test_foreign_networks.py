"""Relevance on the list of networks that nobody here wrote (``benchmarks/networks.yaml``)."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kinds.relevance import total, unsettled, without
from benchmarks.networks import Network, networks
from fewbits.measure.relevance import COMPOSITES

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("chosen", networks(), ids=lambda chosen: chosen.label)
def test_relevance_is_conserved_and_reaches_every_weight(chosen: Network) -> None:
    try:
        model = unsettled(chosen.build().double())
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    inputs = chosen.inputs(dtype=torch.float64)
    assert total(model, lambda: chosen.run(model, inputs)) == pytest.approx(1, abs=1e-6)
    for name in ("epsilon", "plus"):
        assert without(model, lambda: chosen.run(model, inputs), COMPOSITES[name]) == 0


def test_the_list_is_of_fifty_five_and_each_is_there_once() -> None:
    labels = [chosen.label for chosen in networks()]
    assert len(labels) == len(set(labels)) == 55


def test_a_total_that_is_not_one_is_noticed() -> None:
    """Softmax by its derivative does not conserve relevance: the same books then do not close."""
    chosen = next(n for n in networks() if n.label == "own/transformer-encoder")
    model, inputs = unsettled(chosen.build().double()), chosen.inputs(dtype=torch.float64)
    kept = total(model, lambda: chosen.run(model, inputs), attention="half")
    assert abs(kept - 1) > 1e-4
