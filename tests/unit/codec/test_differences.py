"""Plans of differences: what comes back, what they cost, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewbits import codec
from fewbits.channel_masks import ChannelMasks
from fewbits.codec import Base, base_of, decode, encode, examine, inspect, measure, shapes
from fewbits.codec._parts import SHARED_LIMIT
from fewbits.errors import FormatError, RecipeError, UnsupportedError
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan, unchanged

DRAW = torch.Generator().manual_seed(0)


def levels(*shape: int, share: float = 1.0) -> Tensor:
    drawn = torch.randint(-3, 4, shape, generator=DRAW, dtype=torch.int16)
    return drawn * (torch.rand(shape, generator=DRAW) < share)


def origin(aliases: dict[str, str] | None = None) -> Base:
    numbers = torch.randn(9, 7, generator=DRAW)
    plan = Plan(
        {
            "a.weight": Clustered(levels(20, 9, 3, 3), 3, step=0.1),
            "a.bias": Dense(torch.randn(20, generator=DRAW).half()),
            "b.weight": Masked(numbers, numbers > 0.3),
            "b.bias": Dense(torch.randn(9, generator=DRAW)),
            "index": Dense(torch.arange(5)),
            "double": Dense(torch.randn(3, generator=DRAW).double()),
        },
        aliases=aliases,
    )
    return base_of(encode(plan))


BASE = origin()
NOTHING = Plan(
    {n: Dense(torch.zeros_like(t), t) if t.dtype == torch.float32 else Dense(t) for n, t in BASE.tensors.items()}
)


def again(plan: Plan, base: Base = BASE) -> Plan:
    data = encode(plan, base=base)
    found = decode(data, plan.tensors(), base=base)
    assert found.equals(plan)
    assert found.digest() == plan.digest()
    assert all(torch.equal(t, plan.tensors()[name]) for name, t in found.tensors().items())
    return found


@pytest.mark.parametrize(
    "entry",
    [
        Clustered(levels(20, 9, 3, 3, share=0.1), 3, step=0.01),
        Clustered(levels(20, 9, 3, 3, share=0.1).clamp(-1, 1), 2, codebook=(-0.02, 0.0, 0.01), lowest=-1),
        Clustered(torch.ones(20, 9, 3, 3, dtype=torch.int16), 3, step=0.01),
        Dense(torch.randn(20, 9, 3, 3, generator=DRAW).half()),
        Dense(torch.full((20, 9, 3, 3), 0.25)),
        Masked(torch.randn(20, 9, 3, 3, generator=DRAW), levels(20, 9, 3, 3, share=0.1) != 0),
        Masked(torch.randn(20, 9, 3, 3, generator=DRAW).bfloat16(), torch.ones(20, 9, 3, 3, dtype=torch.bool)),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_each_kind_of_difference_comes_back_to_the_bit(entry: Clustered | Dense | Masked) -> None:
    base = BASE.tensors["a.weight"]
    found = again(NOTHING.updated({"a.weight": replace(entry, base=base)}))
    assert torch.equal(found["a.weight"].values(), base + entry.values())
    assert type(found["a.weight"]) is type(entry)
    assert found["a.weight"].base is not None


def test_what_is_the_same_costs_next_to_nothing_whatever_its_kind() -> None:
    base = BASE.tensors["a.weight"]
    zero = torch.zeros(20, 9, 3, 3)
    kinds: list[Entry] = [
        Dense(-zero, base),
        Clustered(zero.short(), 4, step=0.1, base=base),
        Clustered(zero.short(), 2, codebook=(-1.0, 0.0, 1.0), lowest=-1, base=base),
        Masked(zero + 1, zero > 0, base=base),
    ]
    files = set()
    for entry in kinds:
        assert unchanged(entry)
        plan = NOTHING.updated({"a.weight": entry})
        assert plan.equals(NOTHING)
        assert plan.digest() == NOTHING.digest()
        files.add(encode(plan, base=BASE))
    assert len(files) == 1
    assert len(files.pop()) < 70
    assert not unchanged(Dense(zero + 1e-30, base))
    assert not unchanged(Dense(zero))


def test_tensors_that_are_absent_alone_and_of_another_shape() -> None:
    entries = dict(NOTHING) | {"b.weight": Dense(torch.ones(3, 7)), "c": Clustered(levels(4, 5), 3, step=1.0)}
    del entries["index"]
    found = again(Plan(entries))
    assert "index" not in found
    assert found["b.weight"].base is None
    kinds = {t.name: (t.kind, t.difference) for t in inspect(encode(Plan(entries), base=BASE), BASE).tensors}
    assert kinds["b.weight"] == ("dense", False)
    assert kinds["a.bias"] == ("same", True)


def test_other_integers_stand_alone() -> None:
    found = again(NOTHING.updated({"index": Dense(torch.arange(5) * 2), "double": Dense(torch.ones(3).double())}))
    assert found["index"].values().tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"t": "a.weight"}, {"t": "a.weight"}),
        ({"t": "a.weight"}, {"t": "b.weight"}),
        ({}, {"t": "a.weight", "u": "c"}),
        ({"t": "a.weight", "u": "b.bias"}, {"t": "c", "u": "b.bias"}),
    ],
)
def test_other_names_are_those_of_the_network(before: dict[str, str], after: dict[str, str]) -> None:
    base = origin(before)
    same = {n: Dense(torch.zeros_like(t), t) if t.dtype == torch.float32 else Dense(t) for n, t in base.tensors.items()}
    found = again(Plan(same | {"c": Dense(torch.ones(2))}, aliases=after), base)
    assert found.aliases == after


@pytest.mark.parametrize("kept", [{}, {"u": "b.bias"}])
def test_other_names_that_only_the_base_has_are_taken_away(kept: dict[str, str]) -> None:
    """As of a classifier made from a language model, whose output layer was its embedding."""
    base = origin({"t": "a.weight", "u": "b.bias"})
    same = {n: Dense(torch.zeros_like(t), t) for n, t in base.tensors.items() if t.dtype == torch.float32}
    found = again(Plan(same | {"c": Dense(torch.ones(2))}, aliases=kept), base)
    assert found.aliases == kept
    without = Plan({n: e for n, e in same.items() if n not in ("a.weight", "b.bias")})
    assert decode(encode(without, base=base), without.tensors(), base=base).aliases == {}


def test_levels_of_small_tensors_share_a_section_and_large_ones_have_their_own() -> None:
    large = Base(
        bytes(16), Plan({"l": Dense(torch.zeros(SHARED_LIMIT)), "s": Dense(torch.zeros(9)), "t": Dense(torch.zeros(5))})
    )
    entries = {
        n: Clustered(levels(len(t)), bits, step=0.1, base=t)
        for (n, t), bits in zip(large.tensors.items(), (3, 3, 5), strict=True)
    }
    data = encode(Plan(entries), base=large)
    rows = measure(data, base=large)
    assert [(row.name, row.count) for row in rows] == [("l", SHARED_LIMIT), ("s", 14)]
    assert [row.name for row in examine(data, base=large).sections] == ["l", "s"]
    sizes = {t.name: t.coded_bytes for t in inspect(data, large).tensors}
    assert sum(sizes.values()) == len(data) - inspect(data, large).overhead_bytes
    decode(data, Plan(entries).tensors(), base=large)


def test_a_wrong_base_is_refused_by_the_encoder() -> None:
    other = replace(NOTHING["b.bias"], base=BASE.tensors["b.bias"] + 1)  # type: ignore[type-var]
    with pytest.raises(RecipeError, match=r"b\.bias is a difference to other numbers"):
        encode(NOTHING.updated({"b.bias": other}), base=BASE)
    with pytest.raises(RecipeError, match="lacks"):
        encode(NOTHING.updated({"new": Dense(torch.ones(2), torch.ones(2))}), base=BASE)
    with pytest.raises(RecipeError, match="base="):
        encode(NOTHING)


def test_whole_plans_stand_alone() -> None:
    plan = NOTHING.updated({"a.weight": Clustered(levels(20, 9, 3, 3), 3, step=0.01, base=BASE.tensors["a.weight"])})
    whole = plan.whole()
    assert plan.relative
    assert not whole.relative
    assert whole.whole() is whole
    found = decode(encode(whole), whole.tensors())
    assert all(torch.equal(found.tensors()[name], tensor) for name, tensor in plan.tensors().items())


def test_what_cannot_be_a_difference_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        encode(Plan({"q": Affine(torch.ones(2, 3, dtype=torch.int8), torch.ones(2))}), base=BASE)
    masks = ChannelMasks({"a.bias": (torch.arange(40) % 2 == 0,)}, {})
    with pytest.raises(UnsupportedError):
        encode(Plan(dict(NOTHING), masks), base=BASE)
    lost = Plan({"v": Dense(torch.ones(20))}, ChannelMasks({"v": (torch.arange(40) % 2 == 0,)}, {}))
    with pytest.raises(UnsupportedError, match="lost channels"):
        base_of(encode(lost))


def test_limits_without_a_network_count_what_the_base_has_already() -> None:
    many = Base(bytes(16), Plan({"w": Dense(torch.zeros(1 << 20))}))
    few = Clustered((torch.arange(1 << 20) == 5).short(), 2, step=1.0, base=many.tensors["w"])
    data = encode(Plan({"w": few}), base=many)
    assert decode(data, shapes(data, base=many), base=many)["w"].values().sum() == 1
    with pytest.raises(FormatError, match="limit"):
        shapes(data, limit=10, base=many)
    with pytest.raises(FormatError):
        base_of(encode(many.plan), limit=10)


def test_threads_do_not_change_the_bytes() -> None:
    plan = NOTHING.updated({"a.weight": Clustered(levels(20, 9, 3, 3), 3, step=0.01, base=BASE.tensors["a.weight"])})
    assert encode(plan, base=BASE, threads=1) == encode(plan, base=BASE, threads=4)
    assert codec.inspect(encode(plan, base=BASE)).base == BASE.identity.hex()
