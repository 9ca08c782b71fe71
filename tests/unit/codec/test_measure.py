"""Decoding a file without its network: bits against entropy, and limits on what it may claim."""

import math

import pytest
import torch

from fewbits.codec import decode, encode, examine, inspect, measure, shapes
from fewbits.codec._work import run
from fewbits.errors import FormatError
from fewbits.plan import Clustered, Dense, Plan

GENERATOR = torch.Generator().manual_seed(2)
LEVELS = (torch.rand(20, 30, generator=GENERATOR) < 0.3).to(torch.int16) * 2
PLAN = Plan(
    {
        "w": Clustered(LEVELS, 4, step=0.5),
        "flat": Clustered(torch.zeros(9, dtype=torch.int16), 4, step=0.5),
        "a": Dense(torch.randn(11, generator=GENERATOR)),
        "b": Dense(torch.randn(5, generator=GENERATOR)),
        "none": Dense(torch.zeros(0, 4)),
    }
)


@pytest.mark.parametrize("profile", ["small", "fast"])
def test_bits_entropy_and_time_of_every_section(profile):
    data = encode(PLAN, profile=profile)
    rows = {row.name: row for row in measure(data)}
    assert set(rows) == {"w", "a"}  # constants have no section, and small dense tensors share one
    ones = float((LEVELS != 0).float().mean())
    entropy = -ones * math.log2(ones) - (1 - ones) * math.log2(1 - ones)
    assert rows["w"].entropy_bits == pytest.approx(entropy, rel=1e-6)
    assert rows["w"].coded_bits * 600 == 8 * next(t.coded_bytes for t in inspect(data).tensors if t.name == "w")
    assert (rows["a"].count, rows["a"].entropy_bits) == (16, None)
    assert all(row.seconds > 0 for row in rows.values())


def test_a_file_decodes_by_its_own_shapes_up_to_a_limit():
    data = encode(PLAN)
    assert decode(data, shapes(data)).equals(PLAN)
    assert all(tensor.device.type == "meta" for tensor in shapes(data).values())
    for function, count in ((shapes, 625), (measure, 616)):  # constants have no section that could be measured
        function(data, limit=count)
        with pytest.raises(
            FormatError, match=f"declares {count} numbers; the limit without its network is {count - 1}"
        ):
            function(data, limit=count - 1)
    assert examine(data, limit=615).sections == []
    assert [row.name for row in examine(data, limit=616).sections] == ["w", "a"]


@pytest.mark.parametrize("profile", ["small", "fast"])
def test_a_section_that_is_measured_strip_by_strip_has_the_entropy_of_the_whole(profile):
    levels = torch.randint(-1, 2, (1500, 1000), generator=GENERATOR).to(torch.int16)
    data = encode(Plan({"w": Clustered(levels, 4, step=0.5)}), profile=profile)
    (row,) = measure(data)
    share = levels.flatten().add(1).bincount().double() / levels.numel()
    assert row.entropy_bits == pytest.approx(float(-(share * share.log2()).sum()), rel=1e-9)
    assert row.count == levels.numel()


def test_a_causal_mask_of_minus_infinity_can_be_measured():
    plan = Plan({"mask": Dense(torch.triu(torch.full((9, 9), -math.inf), 1))})
    assert [row.name for row in measure(encode(plan))] == ["mask"]


ALL_BUT_ONE = torch.zeros(1 << 20, dtype=torch.int16)
ALL_BUT_ONE[7] = 1


def test_a_sound_file_with_too_much_for_its_bytes_wants_its_network_or_a_limit():
    plan = Plan({"w": Clustered(ALL_BUT_ONE.reshape(1024, 1024), 4, step=0.5)})
    data = encode(plan)
    assert len(data) < 100
    for function in (shapes, measure):
        with pytest.raises(FormatError, match=r"declares 1,048,576 numbers, .*give the network, or a limit"):
            function(data)
    assert decode(data, plan.tensors()).equals(plan)
    assert decode(data, shapes(data, limit=1 << 20)).equals(plan)
    found = examine(data)
    assert (found.summary, found.sections) == (inspect(data), [])
    assert examine(data, limit=1 << 20).left is None


def test_a_tensor_of_zeros_takes_no_work_to_measure_but_has_to_fit_a_decoded_plan():
    data = encode(Plan({"w": Clustered(torch.zeros(1 << 20, dtype=torch.int16), 4, step=0.5)}))
    assert measure(data) == []
    with pytest.raises(FormatError, match="1,048,576 numbers"):
        shapes(data)


def test_jobs_keep_their_order_and_errors_come_through():
    jobs = [lambda i=i: i * i for i in range(40)]
    assert run(jobs, 4) == run(jobs, 1) == run(jobs) == [i * i for i in range(40)]
    assert run([], 4) == []

    def fail() -> int:
        raise FormatError("broken")

    for threads in (1, 3):
        with pytest.raises(FormatError, match="broken"):
            run([*jobs, fail, *jobs], threads)
