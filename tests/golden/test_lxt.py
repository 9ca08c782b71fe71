"""Relevance of language models is LXT's, which computes it by gradients of a rewritten forward pass."""

from __future__ import annotations

import dataclasses
import json

import pytest
from lxt_values import MODELS, STORED, chosen_of, small
from relevance_values import numbers

from fewbits.measure.relevance import COMPOSITES, Epsilon, Tape, propagate

SHARP = 1e-12
RULES = dataclasses.replace(COMPOSITES["epsilon"], dense=Epsilon(SHARP), weight=Epsilon(SHARP), eps=SHARP)


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_relevance_is_that_of_lxt(name: str) -> None:
    pytest.importorskip("transformers", reason="transformers, of the extra networks, is not installed")
    expected = json.loads(STORED.read_text())[name]
    model, embedded = small(name)
    tape = Tape(model)
    with tape.watch():
        logits = model(inputs_embeds=embedded, use_cache=False).logits
    start = chosen_of(logits) * logits.detach()
    found = propagate(logits, start, RULES, tape, inputs=True)
    relevance = {"inputs": found.inputs, **found.weights}
    assert expected.keys() <= relevance.keys()
    for weight, (projected, total) in expected.items():
        assert numbers(relevance[weight]) == pytest.approx([projected, total], rel=0, abs=1e-7 * total), weight
