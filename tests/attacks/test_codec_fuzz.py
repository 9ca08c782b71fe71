"""Random damage behind repaired checksums: a FileError or a valid plan, nothing else, and soon."""

import os
import random
import struct
import time
from dataclasses import replace

import pytest
import torch
from seal import mutate, seal, take_apart

from conftest import encode_with
from fewbits.channel_masks import ChannelMasks
from fewbits.codec import decode, encode, inspect
from fewbits.codec._container import open_file
from fewbits.codec._directory import PRIME, bits, pack, unpack
from fewbits.errors import FileError
from fewbits.plan import Clustered, Dense, Masked, Plan

GENERATOR = torch.Generator().manual_seed(7)


def sample_plan() -> Plan:
    wide = (torch.randn(6, 20, generator=GENERATOR) * 9000).clamp(-32767, 32767)
    conv = torch.randn(5, 3, 3, 3, generator=GENERATOR).round()
    book = torch.randint(-1, 2, (30,), generator=GENERATOR)
    return Plan(
        {
            "conv.weight": Clustered(conv.to(torch.int16), 4, step=0.1),
            "wide.weight": Clustered(wide.to(torch.int16), 16, step=0.01),
            "book.weight": Clustered(book.to(torch.int16), 2, codebook=(-1.0, 0.0, 1.0), lowest=-1),
            "bias": Dense(torch.randn(17, generator=GENERATOR)),
            "scale": Dense(torch.rand(17, generator=GENERATOR)),
            "half": Dense(torch.randn(40, generator=GENERATOR).half()),
            "ones": Dense(torch.ones(4, 4)),
            "flags": Dense(torch.rand(50, generator=GENERATOR) > 0.5),
            "pruned.weight": Masked(
                torch.randn(5, 4, 3, 3, generator=GENERATOR), torch.rand(5, 4, 3, 3, generator=GENERATOR) > 0.7
            ),
            "half.pruned": Masked(torch.ones(3, 20).half(), torch.rand(3, 20, generator=GENERATOR) > 0.5),
        }
    )


PLAN = sample_plan()
DATA = {name: encode_with(name, PLAN, header={"a": [1, {"b": None}]}) for name in ("mixing", "small", "plain", "fast")}
SIZES = {name: [section.size for section in open_file(data).sections] for name, data in DATA.items()}
MORE = int(os.environ.get("FEWBITS_FUZZ", "1"))
"""How many times as many files as usual: 30 makes 10**5."""


def attempt(data: bytes) -> bool:
    """Whether the file decoded, to something that obeys its own rules."""
    started = time.process_time()
    try:
        inspect(data)
        plan = decode(data, PLAN.tensors())
    except FileError:
        return False
    finally:
        assert time.process_time() - started < 1
    for name, entry in plan.items():
        assert entry.shape == PLAN[name].shape
        assert torch.isfinite(entry.values().float()).all()
    assert decode(encode(plan), PLAN.tensors()).equals(plan)
    return True


@pytest.mark.parametrize("coder", DATA)
@pytest.mark.parametrize("section", range(len(SIZES["small"])))
def test_damaged_sections(section: int, coder: str) -> None:
    """A section whose length still holds (the directory is rewritten with it)."""
    chance = random.Random(section)
    head, chunks = take_apart(DATA[coder], SIZES[coder])
    directory = unpack(head)
    records, sections, header = directory.records, directory.sections, directory.header
    decoded = 0
    for _ in range(80 * MORE):
        changed = list(chunks)
        changed[section] = mutate(chunks[section], chance)
        resized = [replace(s, size=len(chunk)) for s, chunk in zip(sections, changed, strict=True)]
        decoded += attempt(seal(pack(records, resized, header), changed))
    assert decoded < 80 * MORE


def test_damaged_directory() -> None:
    """The content of the head, before coding: fields that lie."""
    chance = random.Random(99)
    head, chunks = take_apart(DATA["small"], SIZES["small"])
    content = bytearray(_content(head))
    refused = 0
    for _ in range(1500 * MORE):
        refused += not attempt(seal(b"\0" + mutate(bytes(content), chance), chunks))
    assert refused > 1000 * MORE
    assert attempt(seal(b"\0" + bytes(content), chunks))


def test_damaged_masks_of_channels() -> None:
    """A directory that lies about removed channels: refused, or a plan whose masks fit its tensors."""
    mask = torch.arange(12) % 5 != 0
    small = int(mask.sum())
    entries = {
        "w": Clustered(torch.ones(small, 3, dtype=torch.int16), 4, step=0.5),
        "b": Dense(torch.arange(float(small))),
        "v": Dense(torch.zeros(2, small)),
    }
    plan = Plan(entries, ChannelMasks({"w": (mask, None), "b": (mask,), "v": (None, mask)}, {"pad": (1, 2)}))
    like = {"w": torch.zeros(12, 3), "b": torch.zeros(12), "v": torch.zeros(2, 12)}
    data, chance, refused = encode(plan), random.Random(5), 0
    head, chunks = take_apart(data, [section.size for section in open_file(data).sections])
    content = bytes(_content(head, len(plan)))
    for _ in range(1500 * MORE):
        try:
            found = decode(seal(b"\0" + mutate(content, chance), chunks), like)
        except FileError:
            refused += 1
            continue
        assert found.channels is None or all(
            found.channels.full(name, e.shape) == tuple(like[name].shape) for name, e in found.items()
        )
    assert 1000 * MORE < refused < 1500 * MORE


def test_damaged_coded_head() -> None:
    chance = random.Random(5)
    head, chunks = take_apart(DATA["small"], SIZES["small"])
    assert sum(attempt(seal(mutate(head, chance), chunks)) for _ in range(300 * MORE)) < 300 * MORE


def test_random_heads() -> None:
    chance = random.Random(6)
    for _ in range(300 * MORE):
        head = chance.choice([b"\0", b"\1\xff\x1f", b"\1\x40"]) + chance.randbytes(chance.randrange(120))
        assert not attempt(seal(head, [chance.randbytes(9)]))


def _content(head: bytes, tensors: int = len(PLAN)) -> bytes:
    size = head[1] & 127 | head[2] << 7 if head[1] > 127 else head[1]
    content = bytearray(size)
    bits.bytes_decode(head[3 if head[1] > 127 else 2 :], content, 0, PRIME)
    assert struct.pack("B", tensors) == content[:1]
    return bytes(content)
