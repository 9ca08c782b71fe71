"""Decoding a file without its network: bits against entropy, and limits on what it may claim."""

import math

import pytest
import torch

from fewbits.codec import decode, encode, inspect, measure, shapes
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
    for function in (shapes, measure):
        function(data, limit=625)
        with pytest.raises(FormatError, match=r"declares 625 numbers; the limit without its network is 624"):
            function(data, limit=624)


def test_jobs_keep_their_order_and_errors_come_through():
    jobs = [lambda i=i: i * i for i in range(40)]
    assert run(jobs, 4) == run(jobs, 1) == run(jobs) == [i * i for i in range(40)]
    assert run([], 4) == []

    def fail() -> int:
        raise FormatError("broken")

    for threads in (1, 3):
        with pytest.raises(FormatError, match="broken"):
            run([*jobs, fail, *jobs], threads)
