"""Files of networks that lost channels: what they hold, and what a reader accepts as the network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.channel_masks import ChannelMasks
from fewbits.codec import decode, encode, inspect, shapes
from fewbits.errors import MismatchError
from fewbits.plan import Clustered, Dense, Masked, Plan

MASK = torch.arange(20) % 3 == 0  # 7 of 20


def plan() -> Plan:
    levels = torch.arange(7 * 5).reshape(7, 5).remainder(5).sub(2).to(torch.int16)
    return Plan(
        {
            "a.weight": Clustered(levels, 3, step=0.5),
            "a.bias": Dense(torch.arange(7.0)),
            "b.weight": Masked(torch.ones(2, 7), torch.arange(14).reshape(2, 7) % 2 == 0),
            "b.bias": Dense(torch.zeros(2)),
            "b.steps": Dense(torch.tensor(3)),
        },
        ChannelMasks({"a.weight": (MASK, None), "a.bias": (MASK,), "b.weight": (None, MASK)}, {"pad": (0, 3)}),
    )


LARGE = {
    "a.weight": torch.zeros(20, 5), "a.bias": torch.zeros(20), "b.weight": torch.zeros(2, 20), "b.bias": torch.zeros(2),
    "b.steps": torch.tensor(0),
}  # fmt: skip


def test_the_larger_and_the_smaller_network_read_it() -> None:
    data = encode(plan())
    small = {name: torch.zeros(entry.shape) for name, entry in plan().items()}
    for like in (LARGE, small, shapes(data)):
        assert decode(data, like=like).equals(plan())
    assert [t.shape for t in inspect(data).tensors] == [(7, 5), (7,), (2, 7), (2,), ()]
    assert encode(decode(data, like=LARGE)) == data


def test_a_mixture_of_both_is_refused() -> None:
    for name in ("a.weight", "a.bias", "b.weight"):
        with pytest.raises(MismatchError, match=name):
            decode(encode(plan()), like=LARGE | {name: torch.zeros(plan()[name].shape)})
    with pytest.raises(MismatchError, match=r"\[20, 5\] in the file and \[21, 5\]"):
        decode(encode(plan()), like=LARGE | {"a.weight": torch.zeros(21, 5)})


def test_a_mask_is_written_once_and_costs_its_bits() -> None:
    """Beside each dimension's reference, of which there are 2 + 1 + 2, and three kinds."""
    without = len(encode(Plan(dict(plan()))))
    assert len(encode(plan())) - without < 3 + 5 + 3 + 1 + 4 + 2 + 8  # mask, references, kinds, padding, larger sizes
    again = plan().updated({f"{i}.bias": Dense(torch.arange(7.0) + i) for i in range(20)})
    assert again.channels is not None
    more = ChannelMasks(dict(again.channels.kept) | {f"{i}.bias": (MASK,) for i in range(20)}, {})
    assert len(encode(Plan(dict(again), more))) - len(encode(Plan(dict(again)))) < 20 * 2.5 + 30


def test_files_without_removed_channels_have_the_bytes_they_had() -> None:
    whole = Plan(dict(plan()))
    assert encode(Plan(dict(plan()), ChannelMasks({}, {}))) == encode(whole)
    assert decode(encode(whole), like=shapes(encode(whole))).channels is None


@settings(max_examples=30)
@given(st.data())
def test_any_masks_come_back(data: st.DataObject) -> None:
    entries, kept = {}, {}
    for i in range(data.draw(st.integers(1, 4))):
        full = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
        masks = []
        for size in full:
            drawn = data.draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
            masks.append(torch.tensor(drawn) if drawn is not None and any(drawn) else None)
        small = [s if m is None else int(m.sum()) for s, m in zip(full, masks, strict=True)]
        entries[str(i)] = Dense(torch.randn(small))
        kept[str(i)] = tuple(masks)
    found = Plan(entries, ChannelMasks(kept, {"p": (1, 2)}))
    assert found.channels is not None
    like = {n: torch.zeros(found.channels.full(n, e.shape)) for n, e in entries.items()}
    decoded = decode(encode(found), like=like)
    if found.channels.kept:
        assert decoded.equals(found)
    else:
        assert decoded.channels is None
