"""Files of every kind, damaged behind repaired checksums, and looked at without their network.

Each is refused with a FormatError or shown, within a second of the processor and 64 MiB beside four times the file.
``make test-all`` looks at 10**5 of them, ``make test`` at some.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from seal import mutate, seal, take_apart

import fewbits as fb
from fewbits.codec import encode, examine
from fewbits.codec._container import open_file
from fewbits.codec._directory import HEAD_LIMIT, PRIME, bits, pack, unpack
from fewbits.errors import FormatError
from fewbits.plan import Clustered, Dense, Masked, Plan

TOLD_APART = ("codec_difference.few", "codec_family.few")  # with other heads: test_difference_hostile.py
GOLDEN = sorted(p for p in (Path(__file__).parents[1] / "golden").glob("*.few") if p.name not in TOLD_APART)
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def network() -> bytes:
    """Shapes as networks have them, in some 8 KB."""
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int, share: float = 0.1) -> torch.Tensor:
        values = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < share)
        return (values * 3).round().clamp(-7, 7).to(torch.int16)

    return encode(
        Plan(
            {
                "features.0.weight": Clustered(weights(16, 3, 3, 3, share=0.8), 4, step=0.1),
                "features.3.weight": Clustered(weights(32, 16, 3, 3), 4, step=0.1),
                "head.weight": Clustered(weights(10, 800), 4, codebook=tuple(0.1 * i for i in range(15)), lowest=-7),
                "pruned.weight": Masked(torch.randn(40, 50, generator=generator), weights(40, 50) != 0),
                "head.bias": Dense(torch.randn(10, generator=generator)),
                "norm.running_var": Dense(torch.rand(900, generator=generator)),
                "norm.num_batches_tracked": Dense(torch.tensor(300)),
            }
        ),
        header={"model": "net", "classes": ["a", "b"]},
    )


def content(head: bytes) -> bytes:
    """The head before coding."""
    if head[0] == 0:
        return head[1:]
    size, at, shift = 0, 1, 0
    while True:
        size |= (head[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if head[at - 1] < 128:
            break
    out = bytearray(min(size, HEAD_LIMIT))
    bits.bytes_decode(head[at:], out, 0, PRIME)
    return bytes(out)


def mutants(seed: int) -> Iterator[bytes]:
    """Without end: bytes of the file, of its coded and raw head, of its sections, and sizes and fields that lie."""
    chance = random.Random(seed)
    sources = [*(path.read_bytes() for path in GOLDEN), network()]
    parts = []
    for data in sources:
        sizes = [section.size for section in open_file(data).sections]
        head, chunks = take_apart(data, sizes)
        parts.append((data, head, content(head), chunks, unpack(head)))
    while True:
        data, head, raw, chunks, directory = chance.choice(parts)
        what = chance.randrange(10)
        if what == 0:
            yield mutate(data, chance)
        elif what == 1:
            yield seal(mutate(head, chance), chunks)
        elif what <= 5:
            yield seal(b"\0" + mutate(raw, chance), chunks)
        else:
            changed = [mutate(c, chance) if chance.random() < 0.3 else c for c in chunks]
            if what == 6:
                changed = [c[: chance.choice([0, 1, 4])] for c in changed]
            resized = [replace(s, size=len(c)) for s, c in zip(directory.sections, changed, strict=True)]
            records = [lying(record, chance) if what > 7 else record for record in directory.records]
            if what == 9:
                coder = chance.choice([1, 3, 4, 5])
                resized = [replace(s, coder=coder) if s.levels else s for s in resized]
            try:
                packed = pack(records, resized, directory.header, directory.paddings, directory.aliases)
            except Exception:  # a lie that cannot be written
                continue
            yield seal(packed, changed)


def lying(record, chance: random.Random):
    """A record of another size, or with another grid; often just below what is decoded without a network."""
    if chance.random() < 0.5:
        return record
    shape = list(record.shape)
    for _ in range(chance.randint(1, 2)):
        if shape:
            shape[chance.randrange(len(shape))] = chance.choice([1, 2, 9, 1 << 9, 1 << 16, 1 << 18, 1 << 20, 1 << 40])
    changed = replace(record, shape=tuple(shape), kept=None)
    if record.bits and chance.random() < 0.5:
        changed = replace(changed, bits=chance.choice([2, 3, 8, 16] if record.axis is None else [2, 8]))
    return changed


def kibibytes(field: str) -> int:
    return int(re.search(rf"{field}:\s*(\d+)", STATUS.read_text())[1])


def look_at(count: int, seed: int) -> tuple[int, int, float, int]:
    """How many were shown and decoded, the most seconds, and the most memory beyond 4 times the file, in KiB."""
    fb.inspect(GOLDEN[0])
    shown = decoded = most = 0
    slowest, words = 0.0, set()
    watched = PEAK.exists() and STATUS.exists()
    before = kibibytes("VmRSS") if watched else 0
    for _, data in zip(range(count), mutants(seed), strict=False):
        if watched:
            PEAK.write_text("5")
        started = time.process_time()
        try:
            summary = fb.inspect(data)
            shown += 1
            found = examine(data)
            decoded += found.left is None
            assert found.summary == summary
        except FormatError as error:
            words.add(len(str(error)))
        slowest = max(slowest, time.process_time() - started)
        if watched:
            most = max(most, kibibytes("VmHWM") - before - 4 * len(data) // 1024)
    assert 10 < min(words) <= max(words) < 400
    return shown, decoded, slowest, most


@pytest.mark.parametrize("count", [500, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_damaged_file_is_refused_or_shown_in_a_moment(count: int) -> None:
    shown, decoded, slowest, most = look_at(count, seed=count)
    print(f"{count} files: {shown} shown, {decoded} decoded, slowest {slowest:.2f} s, memory {most / 1024:.1f} MiB")
    assert count / 10 < shown < count
    assert decoded
    assert slowest < 1
    assert most < 64 * 1024


def test_mutants_are_of_every_kind() -> None:
    """What is damaged is looked at closely enough: some decode, some are too large, and a sound one is shown."""
    found = set()
    for _, data in zip(range(250), mutants(3), strict=False):
        try:
            found.add("left" if examine(data).left else "decoded")
        except FormatError as error:
            found.add(re.sub(r"'.*'|\d+", "", str(error)))
    assert {"left", "decoded"} < found
    assert len(found) > 15
    assert np.isfinite(examine(network()).sections[0].coded_bits)
