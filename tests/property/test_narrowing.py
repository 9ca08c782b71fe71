"""Surgery is the same as zeros: for random networks, random attention and every network of the zoo."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from channel_networks import Attention, Drawn, disagreement, removal
from fewbits import zoo
from fewbits.attach import plan_of
from fewbits.channels.load import load_plan
from fewbits.codec import decode, encode
from networks import randomised

BLOCKS = ["plain", "residual", "concat", "depthwise", "grouped", "gate", "split"]
SHAPES = {
    "digits-net": (1, 8, 8), "fastgrnn": (6, 8), "lenet-300-100": (784,), "lenet-5": (1, 28, 28), "mlp-gsc": (255,),
}  # fmt: skip
OPTIONS = {"fastgrnn": {"rank_w": 4, "rank_u": 8, "steps": 8}}


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4),
    st.sampled_from([4, 6]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_narrowed_network_computes_what_the_silenced_one_does(
    blocks: list[str], width: int, flat: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = randomised(Drawn(blocks, width, flat), seed).eval()
    error, small = disagreement(model, removal(model, (2, 6, 6), seed), torch.randn(3, 2, 6, 6).double())
    assert error < 1e-12
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@settings(max_examples=12)
@given(st.sampled_from([(3, -1), (-1, 4), (3, 4)]), st.booleans(), st.integers(0, 99))
def test_attention_loses_heads_or_places_in_heads(layout: tuple[int, int], fused: bool, seed: int) -> None:
    torch.manual_seed(seed)
    model = Attention(*layout, fused=fused).double().eval()
    error, _ = disagreement(model, removal(model, (7, 5), seed), torch.randn(2, 7, 5).double())
    assert error < 1e-12


@pytest.mark.parametrize("name", [name for name in zoo.NETWORKS if not name.startswith(("wrn", "soft-hebb"))])
def test_every_network_of_the_zoo(name: str) -> None:
    """Also from a file of the smaller tensors, read into an untrained network of the class: bit-equal outputs."""
    shape = SHAPES.get(name, (3, 32, 32))
    model = randomised(zoo.build(name, seed=0, **OPTIONS.get(name, {}))).float().eval()
    inputs = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model(inputs)
        error, small = disagreement(model, _half(model, shape), inputs)
        assert error < 1e-3
        if name in ("resnet-20", "digits-net", "fastgrnn"):  # the others differ in size only
            plan = plan_of(small)
            data = encode(plan)
            fresh = zoo.build(name, seed=1, **OPTIONS.get(name, {}))
            decoded = decode(data, like=fresh)
            assert decoded.equals(plan)
            load_plan(fresh, decoded)
            assert torch.equal(fresh.eval()(inputs), small(inputs))
            assert {n: t.shape for n, t in fresh.state_dict().items()} == {
                n: t.shape for n, t in small.state_dict().items()
            }


def _half(model: torch.nn.Module, shape: tuple[int, ...]) -> object:
    """Every second unit, which leaves channels in every layer."""
    from fewbits.channels import dependencies

    found = dependencies(model, shape)
    return found.without([unit for group in found.groups for unit in group[1::2]])
