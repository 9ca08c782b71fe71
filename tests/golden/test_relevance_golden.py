"""Relevance is what another engine, which read networks with ``torch.fx``, said it was."""

from __future__ import annotations

import json

import pytest
from relevance_values import LARGE, SMALL, STORED, values


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.long) for name in LARGE)])
def test_relevance_is_that_of_the_traced_graph(name: str) -> None:
    expected, found = json.loads(STORED.read_text())[name], values(name)
    assert found.keys() == expected.keys()
    for key, weights in expected.items():
        if name.startswith("wrn") and not key.startswith(("paper", "released")):
            continue  # there, normalisations follow no layer: relevance used to pass them unchanged, and had poles
        assert found[key].keys() == weights.keys()
        for weight, (projected, total) in weights.items():
            assert found[key][weight] == pytest.approx([projected, total], rel=0, abs=1e-8 * total), (key, weight)
