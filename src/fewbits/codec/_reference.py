"""The bit coder of ``.few`` files in plain Python: fallback without the C extension, and its oracle in tests.

Same functions, same bytes as ``csrc/_coder.c``; ``docs/format.md`` (part 2) defines both. All arithmetic is on
integers, so that every machine writes the same file. Some 300 times slower than C.
"""

from __future__ import annotations

import array
from abc import ABC, abstractmethod
from collections import defaultdict

Buffer = bytes | bytearray | memoryview

FLAGS = 2
SUFFIX = 32
FRESH = 1 << 31
WEIGHT_BOUND = 1 << 22
MASK32 = 0xFFFFFFFF

# Probabilities (of 65536) at log-odds -8, -7.5 .. 8 nats.
SQUASH_NODES = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108,
    4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)  # fmt: skip


def _squash_table() -> list[int]:
    """Probability of 65536 for log-odds -2048 .. 2047 (256 = one nat): straight lines between the nodes."""
    table = []
    for x in range(4096):
        node, part = divmod(x, 128)
        table.append((SQUASH_NODES[node] * (128 - part) + SQUASH_NODES[node + 1] * part + 64) >> 7)
    return table


def _stretch_table(squash: list[int]) -> list[int]:
    """Log-odds for a probability of 4096: the smallest whose squash reaches it."""
    table: list[int] = []
    for x, p in enumerate(squash):
        table.extend([x - 2048] * ((p >> 4) + 1 - len(table)))
    return table + [2047] * (4096 - len(table))


SQUASH = _squash_table()
STRETCH = _stretch_table(SQUASH)
RATE = [131072 // (2 * n + 3) for n in range(1024)]


def _learn(slots: dict[int, int], key: int, bit: int) -> None:
    slot = slots[key]
    count, p = slot & 1023, slot >> 10
    if bit:
        p += (4194303 - p) * RATE[count] >> 16
    else:
        p -= p * RATE[count] >> 16
    slots[key] = p << 10 | (count + (count < 1023))


class _BitCoder(ABC):
    """What an encoder and a decoder share: prediction and learning. ``code`` alone differs."""

    chance = 0  # what the latest mixed bit was coded with

    @abstractmethod
    def code(self, p: int, bit: int) -> int:
        """Code one bit whose probability of being 1 is ``p / 65536``; returns the bit."""

    def single(self, slots: dict[int, int], key: int, bit: int) -> int:
        """One bit predicted by one slot."""
        bit = self.code(min(max(slots[key] >> 16, 32), 65504), bit)
        _learn(slots, key, bit)
        return bit

    def mixed(self, slots: list[tuple[dict[int, int], int]], weights: list[int], bit: int) -> int:
        """One bit predicted by several slots, mixed in log-odds with weights (65536 = 1.0) that learn."""
        inputs = [STRETCH[table[key] >> 20] for table, key in slots]
        odds = sum(x * w for x, w in zip(inputs, weights, strict=True)) >> 16
        self.chance = p = SQUASH[min(max(odds, -2047), 2047) + 2048]
        bit = self.code(p, bit)
        error = (bit << 16) - p
        for i, (table, key) in enumerate(slots):
            weight = weights[i] + ((inputs[i] * error + (1 << 18)) >> 19)
            weights[i] = min(max(weight, -WEIGHT_BOUND), WEIGHT_BOUND)
            _learn(table, key, bit)
        return bit


class Encoder(_BitCoder):
    """A range coder that writes: 32-bit range, carries resolved by holding back a byte and a run of 0xFF."""

    def __init__(self) -> None:
        self.low, self.range = 0, MASK32
        self.cache, self.pending = -1, 0
        self.out = bytearray()

    def code(self, p: int, bit: int) -> int:
        bound = (self.range >> 16) * p
        if bit:
            self.range = bound
        else:
            self.low += bound
            self.range -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            self._shift()
        return bit

    def _shift(self) -> None:
        if self.low < 0xFF000000 or self.low > MASK32:
            carry = self.low >> 32
            if self.cache >= 0:
                self.out.append(self.cache + carry)
            self.out += bytes([(0xFF + carry) & 255]) * self.pending
            self.pending = 0
            self.cache = self.low >> 24 & 255
        else:
            self.pending += 1
        self.low = (self.low & 0xFFFFFF) << 8

    def finish(self) -> bytes:
        """The bytes: the value in the last interval with most trailing zeros, without trailing zero bytes."""
        for bits in range(32, -1, -1):
            mask = (1 << bits) - 1
            value = (self.low + mask) & ~mask
            if value - self.low < self.range:
                self.low = value
                break
        for _ in range(5):
            self._shift()
        return bytes(self.out).rstrip(b"\0")


class Decoder(_BitCoder):
    """A range coder that reads; zeros follow the end of the data."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 4
        self.range = MASK32
        self.value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def code(self, p: int, bit: int) -> int:
        bound = (self.range >> 16) * p
        if self.value < bound:
            bit, self.range = 1, bound
        else:
            bit = 0
            self.value -= bound
            self.range -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            following = self.data[self.position] if self.position < len(self.data) else 0
            self.value = (self.value << 8 | following) & MASK32
            self.position += 1
        return bit

    def finish(self) -> None:
        """Raises ValueError where bytes are left over."""
        if self.position < len(self.data):
            raise ValueError("coded data that breaks the rules of the coder")


def _slots() -> dict[int, int]:
    return defaultdict(lambda: FRESH)


def _track(share: int, bit: int, rate: int) -> int:
    """A running share of ones (65535 = all), moved towards ``bit`` by ``2 ** -rate``."""
    return share + ((65535 - share) >> rate) if bit else share - (share >> rate)


def _class_of(share: int) -> int:
    """One of 16 classes of a running share, evenly spaced in log-odds."""
    return (STRETCH[share >> 4] + 2048) >> 8


def _trit(level: int) -> int:
    return 0 if level == 0 else 2 if level < 0 else 1


class _Levels:
    """Model 1: integer levels, row by row (``docs/format.md``, section 7)."""

    def __init__(self, coder: _BitCoder, lowest: int, highest: int) -> None:
        self.coder, self.lowest, self.highest = coder, lowest, highest
        self.zero = [_slots() for _ in range(6)]
        self.sign = [_slots() for _ in range(3)]
        self.more = [_slots() for _ in range(3)]
        self.prefix, self.suffix = _slots(), _slots()
        self.zero_weights = [[11000] * 6 for _ in range(13)]
        self.sign_weights = [21000] * 3
        self.more_weights = [[21000] * 3 for _ in range(FLAGS)]

    def escape(self, size_class: int, value: int) -> int:
        """``value >= 1`` as Exp-Golomb: its bit length in unary, then the bits below the top one."""
        n, length = 0, value.bit_length() - 1
        while n < 15 and self.coder.single(self.prefix, size_class * 16 + n, n < length):
            n += 1
        got = 1
        for i in range(n - 1, -1, -1):
            bit = value >> i & 1
            if got < SUFFIX:
                bit = self.coder.single(self.suffix, n * SUFFIX + got, bit)
            else:
                bit = self.coder.code(32768, bit)
            got = got << 1 | bit
        return got

    def run(
        self, levels: array.array[int], rows: int, columns: int, kernel: int, chances: memoryview | None = None
    ) -> None:
        """Code ``levels`` in place: an encoder reads them, a decoder overwrites them.

        ``chances`` receives the probability of each level not to be zero.
        """
        mixed = self.coder.mixed
        reach = kernel if kernel > 1 else 3
        line, lean, channels = [0] * columns, [32768] * columns, [0] * (columns // kernel + 1)
        above = above2 = [0] * columns
        fast = slow = 8192
        average = 256
        for r in range(rows):
            row, row_lean = slow, 32768
            now = [0] * columns
            place = channel = filled = 0
            for j in range(columns):
                if r == 0:
                    line[j] = fast
                    if place == 0:
                        channels[channel] = fast
                left = now[j - 1] if j >= 1 else 0
                left2 = now[j - 2] if j >= 2 else 0
                behind = now[j - reach] if j >= reach else 0
                behind2 = now[j - 2 * reach] if j >= 2 * reach else 0
                up = above[j]
                a, b, d, e, f, h = (min(abs(x), 2) for x in (left, left2, behind, behind2, up, above2[j]))
                busy = a + b + d + e + f + h
                spot, recent = min(place, 63), _class_of(fast)
                keys = (
                    (((a * 3 + b) * 3 + d) * 3 + f) * 3 + e,
                    _class_of(line[j]) * 16 + _class_of(row),
                    spot * 9 + ((d > 0) + (e > 0)) * 3 + (f > 0) + (h > 0),
                    recent * 13 + busy,
                    _class_of(channels[channel]) * 16 + min(filled, 15),
                    _class_of(slow) * 16 + recent,
                )
                value = levels[r * columns + j]
                weights = self.zero_weights[busy]
                nonzero = mixed(list(zip(self.zero, keys, strict=True)), weights, int(value != 0))
                if chances is not None:
                    chances[r * columns + j] = self.coder.chance
                if nonzero:
                    negative = int(value < 0)
                    if self.lowest < 0 < self.highest:
                        before = _trit(behind)
                        keys3 = (
                            (_trit(left) * 3 + before) * 3 + _trit(up),
                            spot * 3 + before,
                            (lean[j] >> 12) * 16 + (row_lean >> 12),
                        )
                        negative = mixed(list(zip(self.sign, keys3, strict=True)), self.sign_weights, negative)
                    else:
                        negative = int(self.lowest < 0)
                    near = min(sum(min(abs(x), 7) for x in (left, left2, behind, up)), 15)
                    size = self.magnitude(abs(value), negative, near, average, spot)
                    value = -size if negative else size
                    average += (size << 5) - (average >> 3)
                    filled += 1
                    lean[j] = _track(lean[j], 1 - negative, 3)
                    row_lean = _track(row_lean, 1 - negative, 4)
                else:
                    value = 0
                levels[r * columns + j] = now[j] = value
                fast = _track(fast, nonzero, 4)
                slow = _track(slow, nonzero, 9)
                row = _track(row, nonzero, 6)
                line[j] = _track(line[j], nonzero, 4)
                channels[channel] = _track(channels[channel], nonzero, 5)
                place += 1
                if place == kernel:
                    place = filled = 0
                    channel += 1
            above, above2 = now, above

    def magnitude(self, target: int, negative: int, near: int, average: int, spot: int) -> int:
        """A magnitude from 1 up: flags "larger than k", then an escape."""
        bound = -self.lowest if negative else self.highest
        if bound == 0:
            raise ValueError("coded levels that break the rules of the coder")
        usual = min(average >> 7, 15)
        size = more = 1
        while more and size <= FLAGS and size < bound:
            k = size - 1
            keys = (k * 16 + near, (k * 16 + usual) * 2 + negative, k * 64 + spot)
            slots = list(zip(self.more, keys, strict=True))
            more = self.coder.mixed(slots, self.more_weights[k], int(target > size))
            size += more
        if more and size < bound:
            size += self.escape(min((average >> 8).bit_length(), 15), max(target - size + 1, 1)) - 1
            if size > bound:
                raise ValueError("coded levels that break the rules of the coder")
        return size


def _bytes(coder: _BitCoder, data: bytearray, size: int, stride: int, prime: bytes) -> None:
    """Model 2: bytes (``docs/format.md``, section 8). An encoder reads ``data``, a decoder overwrites it."""
    tables = [_slots() for _ in range(6)]
    weights = [[12000 if stride else 20000] * 6 for _ in range(8 * 2 * 8)]
    _run_bytes(Encoder(), tables, weights, bytearray(prime), len(prime), 0)
    _run_bytes(coder, tables, weights, data, size, stride)


def _run_bytes(
    coder: _BitCoder,
    tables: list[dict[int, int]],
    weights: list[list[int]],
    data: bytearray,
    size: int,
    stride: int,
) -> None:
    history = 0
    for i in range(size):
        plane = min(i // stride, 7) if stride else 0
        up = data[i - stride] if stride and i >= stride else 0
        hash2 = (history & 0xFFFF) * 0x9E3779B1
        hash3 = (history & 0xFFFFFF) * 0x9E3779B1
        hash5 = ((history * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF) >> 32
        node = 1
        first = (plane * 2 + (up > 0)) * 8
        chosen = weights[first : first + 8]
        for depth in range(8):
            salt = node * 0x85EBCA6B
            keys = (
                plane << 8 | node,
                (history & 255) << 8 | node,
                up << 8 | node,
                ((hash2 + salt) & MASK32) >> 16,
                ((hash3 + salt) & MASK32) >> 16,
                ((hash5 + salt) & MASK32) >> 16,
            )
            bit = data[i] >> (7 - depth) & 1
            node = node << 1 | coder.mixed(list(zip(tables, keys, strict=True)), chosen[depth], bit)
        data[i] = node & 255
        history = (history << 8 | data[i]) & 0xFFFFFFFFFF


def levels_encode(levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> bytes:
    """Code int16 ``levels`` of ``rows * columns`` elements, all in ``[lowest, highest]`` around 0."""
    values = array.array("h", bytes(levels))
    if len(values) != rows * columns or min(values) < lowest or max(values) > highest:
        raise ValueError("levels that do not fit their grid")
    coder = Encoder()
    _Levels(coder, lowest, highest).run(values, rows, columns, kernel)
    return coder.finish()


def levels_decode(
    data: Buffer, levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int
) -> None:
    """Fill the int16 buffer ``levels``; ValueError where the data breaks the rules of the coder."""
    values = array.array("h", bytes(2 * rows * columns))
    coder = Decoder(bytes(data))
    _Levels(coder, lowest, highest).run(values, rows, columns, kernel)
    coder.finish()
    memoryview(levels).cast("B")[:] = values.tobytes()


def levels_chances(levels: Buffer, chances: Buffer, rows: int, columns: int, kernel: int) -> None:
    """Fill ``chances`` (uint16) with the probability, of 65536, that each level is not zero."""
    values = array.array("h", bytes(levels))
    _Levels(Encoder(), -32768, 32767).run(values, rows, columns, kernel, memoryview(chances).cast("B").cast("H"))


def bytes_encode(data: Buffer, stride: int, prime: Buffer) -> bytes:
    """Code bytes; ``stride`` is the length of one plane (0: no planes), ``prime`` is learnt from first."""
    coder = Encoder()
    _bytes(coder, bytearray(data), len(bytes(data)), stride, bytes(prime))
    return coder.finish()


def bytes_decode(data: Buffer, result: Buffer, stride: int, prime: Buffer) -> None:
    """Fill the buffer ``result``; ValueError where the data breaks the rules of the coder."""
    view = memoryview(result).cast("B")
    buffer = bytearray(len(view))
    coder = Decoder(bytes(data))
    _bytes(coder, buffer, len(buffer), stride, bytes(prime))
    coder.finish()
    view[:] = buffer
