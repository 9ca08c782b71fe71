"""Damaged streams straight into the coder in use, without the checksums and checks of a file in front of it.

Each is refused with a ValueError, or decodes to levels within their grid. ``make sanitize`` runs this against a coder
that also reports what C itself leaves undefined.
"""

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest

from fewbits.codec.coder import bits, layout

MORE = int(os.environ.get("FEWBITS_FUZZ", "1"))
"""How many times as many random streams as usual."""

SHAPES = ((3, 50), (2, 3, 3, 3), (40,), (1, 2, 5, 5), (1, 300, 3, 3), (2, 5000))
"""Lines and kernels, rows of one and of several segments."""


def sample(shape: tuple[int, ...], spread: float, filled: float) -> np.ndarray:
    chance = np.random.default_rng(0)
    levels = np.round(chance.standard_normal(shape) * spread).clip(-32767, 32767)
    return np.ascontiguousarray(levels * (chance.random(shape) < filled), np.int16)


def damaged(stream: bytes, chance: random.Random) -> Iterator[bytes]:
    """Truncations, flipped bits, new bytes and inserted runs, at every place of a short stream; and noise."""
    count = len(stream) if len(stream) <= 40 else min(20 * MORE, len(stream))
    for at in chance.sample(range(len(stream)), count):
        yield stream[:at]
        yield stream[:at] + bytes([stream[at] ^ 1 << chance.randrange(8)]) + stream[at + 1 :]
        yield stream[:at] + bytes([chance.choice([0, 1, 127, 128, 255])]) + stream[at + 1 :]
        yield stream[:at] + chance.randbytes(chance.randint(1, 8)) + stream[at:]
    yield stream + b"\1" * 64  # is left over: no coder reads so far ahead
    for _ in range(5 * MORE):
        yield chance.randbytes(chance.randrange(2 * len(stream) + 4))
        yield stream[:1] + chance.randbytes(chance.randrange(2 * len(stream) + 4))  # rANS: the first byte is a shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["levels", "small", "plain", "fast"])
def test_damaged_levels_are_refused_or_fit_their_grid(kind: str, shape: tuple[int, ...]) -> None:
    encode, decode = getattr(bits, f"{kind}_encode"), getattr(bits, f"{kind}_decode")
    rows, columns, kernel = layout(shape)
    chance = random.Random(0)
    refused = 0
    for spread, filled in ((0.6, 0.1), (2.0, 0.6), (9000.0, 1.0)):
        levels = sample(shape, spread, filled)
        lowest, highest = min(int(levels.min()), 0), max(int(levels.max()), 0)
        for grid in ((lowest, highest), (-32768, 32767)):
            stream = encode(levels.reshape(-1).data, rows, columns, kernel, *grid)
            for mutant in damaged(stream, chance):
                back = np.zeros(levels.size, np.int16)
                try:
                    decode(mutant, back.data, rows, columns, kernel, *grid)
                except ValueError:
                    refused += 1
                    continue
                assert grid[0] <= back.min() <= back.max() <= grid[1]
            back = np.zeros(levels.size, np.int16)
            decode(stream, back.data, rows, columns, kernel, *grid)
            assert np.array_equal(back, levels.reshape(-1))
    assert refused


@pytest.mark.parametrize("stride", [0, 1, 7, 500])
def test_damaged_bytes_are_refused_or_decode(stride: int) -> None:
    chance = random.Random(0)
    text = bytes(chance.choice(b"aab\0\xff") for _ in range(300))
    stream = bits.bytes_encode(text, stride, b"prime")
    refused = 0
    for mutant in damaged(stream, chance):
        try:
            bits.bytes_decode(mutant, bytearray(len(text)), stride, b"prime")
        except ValueError:
            refused += 1
    assert refused
    back = bytearray(len(text))
    bits.bytes_decode(stream, back, stride, b"prime")
    assert back == text
