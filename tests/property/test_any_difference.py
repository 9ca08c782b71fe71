"""Any base and any network beside it: what comes back is the network, to the bit, and never smaller than it can be."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.codec import base_of, decode, encode, inspect
from fewbits.plan import Clustered, Dense, Entry, Masked, Plan

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
NAMES = st.sampled_from("abcdefgh")


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@st.composite
def entries(draw: st.DrawFn, shape: tuple[int, ...], base: torch.Tensor | None = None) -> Entry:
    seed, kind = draw(st.integers(0, 1000)), draw(st.sampled_from(["step", "book", "dense", "half", "masked", "zero"]))
    values = numbers(shape, seed)
    levels = (values * 2).round().clamp(-3, 3).to(torch.int16)
    if kind == "step":
        return Clustered(levels, draw(st.integers(3, 5)), step=0.25, base=base)
    if kind == "book":
        return Clustered(levels.clamp(-1, 1), 2, codebook=(-0.5, 0.0, 0.75), lowest=-1, base=base)
    if kind == "masked":
        return Masked(values, values > draw(st.sampled_from([-9.0, 0.5, 9.0])), base=base)
    return Dense(torch.zeros(shape) if kind == "zero" else values.half() if kind == "half" else values, base)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Plan, Plan, dict[str, torch.Tensor]]:
    """A base, and a network of which each tensor is the same, differs, is missing, or stands alone."""
    shapes = draw(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=5))
    origin = {name: draw(entries(shape)) for name, shape in shapes.items()}
    if draw(st.booleans()):
        origin["integers"] = Dense(torch.arange(4))
    base = Plan(origin)
    tensors, found = base.tensors(), dict[str, Entry]()
    for name in draw(st.permutations([*origin])):
        what = draw(st.sampled_from(["same", "differs", "missing", "alone"]))
        tensor = tensors[name]
        if what == "missing":
            continue
        if what == "alone" or tensor.dtype != torch.float32:
            found[name] = Dense(tensor) if what == "same" else draw(entries(draw(SHAPES)))
        else:
            found[name] = Dense(torch.zeros_like(tensor), tensor) if what == "same" else draw(
                entries(tuple(tensor.shape), tensor)
            )  # fmt: skip
    found |= {f"new{n}": draw(entries(shape)) for n, shape in enumerate(draw(st.lists(SHAPES, max_size=2)))}
    others = [n for n in "xyz" if found and draw(st.booleans())]
    aliases = {other: draw(st.sampled_from([*found])) for other in others}
    return base, Plan(found, aliases=aliases), tensors


@given(pairs())
def test_a_network_beside_any_base_comes_back_to_the_bit(pair: tuple[Plan, Plan, dict[str, torch.Tensor]]) -> None:
    before, plan, _ = pair
    base = base_of(encode(before))
    data = encode(plan, base=base)
    found = decode(data, plan.tensors(), base=base)
    assert found.equals(plan)
    assert found.digest() == plan.digest()
    for name, tensor in plan.tensors().items():
        mine = found.tensors()[name]
        assert mine.dtype == tensor.dtype
        assert torch.equal(mine, tensor)
    assert {t.name for t in inspect(data, base).tensors} == set(plan)
    whole = plan.whole()
    assert decode(encode(whole), whole.tensors()).tensors().keys() == found.tensors().keys()
