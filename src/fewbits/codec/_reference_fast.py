"""The fast coder of integer levels in plain Python: fallback without the C extension, and its oracle in tests.

Coders 4 ("plain") and 5 ("fast"): same bytes as ``csrc/fast.h``; ``docs/format.md`` defines both. All on integers.
"""

from __future__ import annotations

import array
from typing import TypeVar

from fewbits.codec._reference import SQUASH, STRETCH, Buffer

ONE = 32768
START = 65536
UNITS = 256
BLOCK = 65536

FULL_LINES, FULL_NEAR, MASK_LINES, MASK_NEAR = 0, 256, 656, 1680
VALUE_SIZE, VALUE_NEAR, LENGTH, TABLES = 2080, 2336, 2656, 2672

SHAPES = ((3, 1), (3, 3), (4, 4), (3, 1), (3, 3))  # weights in a chunk, chunks in a unit; coder 4 has the first three
LIKELY = (4, 5, 8, 11, 12)  # eighths by which a positive value is likelier, by the trend of its neighbours
SIZES = (17, 20, 23, 26, 30, 35, 41, 48, 56, 65, 77, 92, 110, 135, 170, 210)
SHARES = {1: (0, 65535), 3: (0, 21845, 43690, 65535), 4: (0, 16384, 32768, 49152, 65535)}
RATES = [4 + (k >= 68) + (k >= 102) + (k >= 119) + (k >= 127) for k in range(128)]
SHARE_CLASS = [min(max((STRETCH[k << 3] + 1536) >> 7, 0), 15) for k in range(512)]
T = TypeVar("T")
BROKEN = "coded levels that break the rules of the coder"


def _size_classes() -> list[int]:
    """One of 16 classes of a running magnitude."""
    classes, i = [], 0
    for k in range(256):
        while i < 15 and k * 19 // 8 >= SIZES[i] + SIZES[i + 1]:
            i += 1
        classes.append(i)
    return classes


SIZE_CLASS = _size_classes()


def _table(weights: list[int]) -> list[int]:
    """Where each symbol starts, with frequencies in proportion to the weights and at least 1; first a count of uses."""
    n = len(weights)
    scale = ((ONE - n) << 32) // sum(weights)
    starts, below = [ONE], weights[0]
    for k in range(1, n):
        starts.append((below * scale >> 32) + k)
        below += weights[k]
    return starts


def _masks(bits: int, odds: int, with_empty: bool) -> list[int]:
    """A table of masks of bits that are independently 1 with the probability of these log-odds."""
    p = SQUASH[odds + 2048] >> 1
    weights = [0] * (1 << bits)
    for mask in range(1 << bits):
        x = 1 << 16
        for k in range(bits):
            x = x * (p if mask >> k & 1 else ONE - p) >> 15
        weights[-1 - mask] = x + 1 if mask or with_empty else 0
    return _table(weights)


def _step(x: int, target: int, rate: int) -> int:
    return x + ((target - x) >> rate)


class _Fast:
    """The model with a coder: ``data`` is None in an encoder."""

    def __init__(self, shape: int, lowest: int, highest: int, data: bytes | None, plain: bool) -> None:
        self.size, self.per = SHAPES[shape]
        self.plain, self.kernel = plain, shape > 2
        self.lowest, self.highest = lowest, highest
        self.last = 7 if lowest >= -4 and highest <= 4 else 15
        self.out = bytearray([shape])
        self.data, self.position = data, 1
        self.record: list[tuple[int, int]] = []
        self.states = [START, START]
        self.count = 0
        self.tables = self.start_tables()

    def start_tables(self) -> list[list[int]]:
        size, per = self.size, self.per
        tables: list[list[int]] = [[] for _ in range(TABLES)]
        lines, near = (FULL_LINES, FULL_NEAR) if per > 1 else (MASK_LINES, MASK_NEAR)
        bits = per if per > 1 else size
        for k in range(256):
            tables[lines + k] = _masks(bits, 48 * (k >> 4) + 64 * (k & 15) - 1288, True)
        for k in range(25 * 16):
            tables[near + k] = _masks(bits, (k & 15) * 128 - 1472, True)
        if per > 1:
            for k in range(16 * 64):
                tables[MASK_LINES + k] = _masks(size, 96 * (k >> 3 & 7) + 128 * (k & 7) - 1232, False)
            for k in range(120):
                tables[MASK_NEAR + k] = _masks(size, -280, False)
        for i in range(16):
            if self.plain:
                for k in range(16):
                    tables[VALUE_SIZE + i * 16 + k] = self.values(i, 8)
                for k in range(12):
                    tables[VALUE_NEAR + i * 12 + k] = self.values(i, 8)
                continue
            for trend in range(5):
                likely = LIKELY[trend] if self.kernel else 8
                tables[VALUE_SIZE + i * 5 + trend] = self.values(i, likely)
                for some in range(4):
                    tables[VALUE_NEAR + (i * 4 + some) * 5 + trend] = self.values(i, likely)
        tables[LENGTH] = _table([64] * 4 + [16] * 4 + [1] * 8)
        for length in range(1, 16):
            ones = 1 << min(length, 4)
            tables[LENGTH + length] = _table([64] * ones + [1] * (16 - ones))
        return tables

    def values(self, i: int, likely: int) -> list[int]:
        """A table of values for a class of magnitudes; ``likely`` eighths of the usual weight for positive ones."""
        last, x = self.last, 1 << 20
        weights = [0] * (last + 1)
        for k in range(8):
            weight = (x * SIZES[i] // 16 if k == 7 else x) + 16
            if k < self.highest and 2 * k < last:
                weights[last - 2 * k] = weight * likely // 8
            if k < -self.lowest and 2 * k < last:
                weights[last - 1 - 2 * k] = weight * (16 - likely) // 8
            x = x * (SIZES[i] - 16) // SIZES[i]
        weights[0] += self.lowest == self.highest
        return _table(weights)

    def word(self) -> int:
        """The next 16 bits; zeros follow the end, which the end of the segment finds out."""
        assert self.data is not None
        pair = self.data[self.position : self.position + 2].ljust(2, b"\0")
        self.position += 2
        return int.from_bytes(pair, "little")

    def begin_segment(self) -> None:
        if self.data is not None and self.count == 0:
            self.states = [self.word() | self.word() << 16 for _ in range(2)]
            if self.position > len(self.data) or min(self.states) < START:
                raise ValueError(BROKEN)

    def end_segment(self) -> None:
        if self.data is not None and self.position > len(self.data):
            raise ValueError(BROKEN)
        if self.count >= BLOCK:
            self.end_block()

    def end_block(self) -> None:
        self.count = 0
        if self.data is not None:
            if self.states != [START, START]:
                raise ValueError(BROKEN)
            return
        words = []
        states = [START, START]
        for i in range(len(self.record) - 1, -1, -1):
            start, frequency = self.record[i]
            x = states[i & 1]
            if x >> 17 >= frequency:
                words.append(x & 0xFFFF)
                x >>= 16
            states[i & 1] = (x // frequency << 15) + x % frequency + start
        for x in states:
            self.out += x.to_bytes(4, "little")
        for x in reversed(words):
            self.out += x.to_bytes(2, "little")
        self.record.clear()

    def range(self, start: int, frequency: int) -> None:
        if self.data is None:
            self.record.append((start, frequency))
        else:
            x = self.states[self.count & 1]
            x = frequency * (x >> 15) + (x & 32767) - start
            self.states[self.count & 1] = x << 16 | self.word() if x < START else x
        self.count += 1

    def slot(self) -> int:
        return self.states[self.count & 1] & 32767

    def symbol(self, i: int, j: int, symbol: int, n: int) -> int:
        """A symbol of n values, predicted by the mean of tables i and j."""
        a, b = self.tables[i], self.tables[j]
        mean = [0, *((a[k] + b[k] + 1) >> 1 for k in range(1, n)), ONE]
        if self.data is not None:
            slot = self.slot()
            symbol = max(k for k in range(n) if mean[k] <= slot)
        self.range(mean[symbol], mean[symbol + 1] - mean[symbol])
        for table in (a, b) if i != j else (a,):
            rate = RATES[table[0] >> 8 & 127]
            table[0] = _step(table[0], 65535, rate)
            for k in range(1, n):
                table[k] = _step(table[k], 5 * k if k <= symbol else ONE - 5 * (16 - k), rate)
        return symbol

    def escape(self, value: int) -> int:
        """A number of 1..65535: its bit length, its up to 4 next bits, the others as they are."""
        length = self.symbol(LENGTH, LENGTH, value.bit_length() - 1, 16)
        top = min(length, 4)
        rest = length - top
        got = 1
        if top:
            bits = (value >> rest) & ((1 << top) - 1)
            got = (1 << top) + self.symbol(LENGTH + length, LENGTH + length, bits, 16)
        if rest:
            low = value & ((1 << rest) - 1) if self.data is None else self.slot() >> (15 - rest)
            self.range(low << (15 - rest), 1 << (15 - rest))
            got = (got << rest) + low
        return got

    def trend(self, levels: array.array[int], at: int, place: int) -> int:
        """0..4, negative to positive: what the weights on the left and above in the kernel add up to."""
        near = (levels[at - 1] if place % 3 else 0) + (levels[at - 3] if place > 2 else 0)
        return 2 + min(max(near, -2), 2)

    def run(self, levels: array.array[int], rows: int, columns: int) -> None:
        """Code ``levels`` in place: an encoder reads them, a decoder overwrites zeros."""
        size, per, last = self.size, self.per, self.last
        wide, n, most, encoding = size * per, 1 << size, (1 << per) - 1, self.data is None
        everything = -(-columns // wide)
        column_full, column_dense, column_size = ([0] * everything for _ in range(3))
        above = [0] * everything
        all_full, all_dense, all_size = 16384, 16384, 384
        for r in range(rows):
            rate = 1 if r < 1 else 2 if r < 3 else 3 if r < 7 else 4 if r < 31 else 5
            row_full, row_dense, row_size = [all_full] * 2, [all_dense] * 2, [all_size] * 2
            before_full, before, lean = [0, 0], [0, 0], [0, 0]
            for first in range(0, everything, UNITS):
                units = range(first, min(first + UNITS, everything))
                self.begin_segment()
                if r == 0:
                    for u in units:
                        column_full[u], column_dense[u], column_size[u] = all_full, all_dense, all_size
                masks: dict[int, int] = {}
                full = dict.fromkeys(units, 1)
                if encoding:
                    for u in units:
                        full[u] = 0
                        for q in range(per):
                            begin = u * wide + q * size
                            chunk = levels[r * columns + begin : r * columns + min(begin + size, columns)]
                            masks[u * 4 + q] = sum((x != 0) << k for k, x in enumerate(chunk))
                            full[u] |= (masks[u * 4 + q] != 0) << q
                for u in _in_turn(list(units)) if per > 1 else ():
                    column, row = SHARE_CLASS[column_full[u] >> 7], SHARE_CLASS[row_full[0] >> 7]
                    near = FULL_NEAR + (before_full[0] * 5 + above[u]) * 16 + (column + row) // 2
                    lines = FULL_LINES + column * 16 + row
                    full[u] = most - self.symbol(lines, near, most - full[u], 1 << per)
                    some = full[u].bit_count()
                    before_full = [before_full[1], some]
                    row_full = [row_full[1], _step(row_full[1], SHARES[per][some], 2)]
                    column_full[u] = _step(column_full[u], SHARES[per][some], rate)
                chunks = [u * 4 + q for u in units for q in range(per) if per == 1 or full[u] >> q & 1]
                dense = {}
                for i in _in_turn(chunks):
                    u, q = i >> 2, i & 3
                    column, row = SHARE_CLASS[column_dense[u] >> 7], SHARE_CLASS[row_dense[0] >> 7]
                    if per > 1:
                        lines = MASK_LINES + (q * 4 + full[u].bit_count() - 1) * 64 + column // 2 * 8 + row // 2
                        near = MASK_NEAR + (before[0] * (3 if self.kernel else 4) + q) * 5 + above[u]
                    else:
                        lines = MASK_LINES + column * 16 + row
                        near = MASK_NEAR + (before[0] * 5 + above[u]) * 16 + (column + row) // 2
                    masks[i] = n - 1 - self.symbol(lines, near, n - 1 - masks.get(i, 0), n)
                    if per > 1 and masks[i] == 0:
                        raise ValueError(BROKEN)
                    some = masks[i].bit_count()
                    dense[i] = (column + row) // 2
                    before = [before[1], masks[i] if self.kernel and per > 1 else some]
                    row_dense = [row_dense[1], _step(row_dense[1], SHARES[size][some], 3)]
                got = dict.fromkeys(units, 0)
                values = []
                for i in chunks:
                    got[i >> 2] += masks[i].bit_count()
                    begin = (i >> 2) * wide + (i & 3) * size
                    values += [(i, begin + k) for k in range(size) if masks[i] >> k & 1]
                held = {u: full[u].bit_count() if per > 1 else 1 for u in units}
                for u in units:
                    if held[u]:
                        column_dense[u] = _step(column_dense[u], got[u] * 65535 // (size * held[u]), rate)
                    above[u] = min(got[u], 4)
                if values and values[-1][1] >= columns:
                    raise ValueError(BROKEN)
                half = (len(values) + 1) // 2
                while self.kernel and half < len(values) and values[half][1] // 9 == values[half - 1][1] // 9:
                    half += 1
                for i, j in _in_turn(values, half):
                    u, some = i >> 2, masks[i].bit_count()
                    usual = SIZE_CLASS[(column_size[u] + row_size[0]) >> 5]
                    in_row = SIZE_CLASS[row_size[0] >> 4] * 4 + some - 1
                    if self.plain:
                        a, b = usual * 16 + dense[i], in_row * 3 + lean[0]
                    else:
                        trend = self.trend(levels, r * columns + j, j % 9) if self.kernel else (2, 3, 1)[lean[0]]
                        a, b = usual * 5 + trend, in_row * 5 + trend
                    level = levels[r * columns + j]
                    want = last - (min(abs(level), 8) * 2 - 2 + (level < 0)) if encoding else 0
                    x = last - self.symbol(VALUE_SIZE + a, VALUE_NEAR + b, want, last + 1)
                    magnitude = (x >> 1) + 1
                    if magnitude == 8:
                        magnitude = 7 + self.escape(max(abs(level) - 7, 1))
                    level = -magnitude if x & 1 else magnitude
                    if not self.lowest <= level <= self.highest:
                        raise ValueError(BROKEN)
                    levels[r * columns + j] = level
                    lean = [lean[1], 1 + (x & 1)]
                    row_size = [row_size[1], _step(row_size[1], min(magnitude, 15) << 8, 5)]
                    column_size[u] = _step(column_size[u], min(magnitude, 15) << 8, 1)
                sum_full = sum(held.values())
                share = sum(got.values()) * 1024 // (sum_full * size) * 64 if sum_full else 0
                all_full = _step(all_full, sum_full * 1024 // (len(units) * per) * 64, 2)
                all_dense = _step(all_dense, share, 2)
                all_size = _step(all_size, row_size[0], 1)
                self.end_segment()
        if self.count:
            self.end_block()


def _in_turn(items: list[T], half: int | None = None) -> list[T]:
    """The first of the first half, the first of the second half, the second of the first half, ..."""
    half = (len(items) + 1) // 2 if half is None else half
    rest = items[half:]
    return [x for pair in zip(items, rest, strict=False) for x in pair] + items[len(rest) : half]


def _encode(levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int, *, plain: bool) -> bytes:
    values = array.array("h", bytes(levels))
    if len(values) != rows * columns or min(values) < lowest or max(values) > highest:
        raise ValueError("levels that do not fit their grid")
    filled = sum(x != 0 for x in values)
    if kernel % 9 == 0 and kernel <= 81:
        shape = int(filled < len(values) // 2)
    else:
        shape = 2 if filled < len(values) // 8 else 0
    if not plain and kernel == 9 and columns % 9 == 0:
        shape += 3
    coder = _Fast(shape, lowest, highest, None, plain)
    coder.run(values, rows, columns)
    return bytes(coder.out)


def _decode(data: bytes, levels: Buffer, rows: int, columns: int, lowest: int, highest: int, *, plain: bool) -> None:
    if not data or data[0] >= (3 if plain else len(SHAPES)):
        raise ValueError(BROKEN)
    values = array.array("h", bytes(2 * rows * columns))
    coder = _Fast(data[0], lowest, highest, data, plain)
    coder.run(values, rows, columns)
    if coder.position != len(data):
        raise ValueError(BROKEN)
    memoryview(levels).cast("B")[:] = values.tobytes()


def fast_encode(levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> bytes:
    """Code int16 ``levels`` of ``rows * columns`` elements, all in ``[lowest, highest]`` around 0, with coder 5."""
    return _encode(levels, rows, columns, kernel, lowest, highest, plain=False)


def fast_decode(data: Buffer, levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> None:
    """Fill the int16 buffer ``levels``; ValueError where the data breaks the rules of the coder."""
    _decode(bytes(data), levels, rows, columns, lowest, highest, plain=False)


def plain_encode(levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> bytes:
    """As :func:`fast_encode`, with coder 4."""
    return _encode(levels, rows, columns, kernel, lowest, highest, plain=True)


def plain_decode(data: Buffer, levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> None:
    """As :func:`fast_decode`, with coder 4."""
    _decode(bytes(data), levels, rows, columns, lowest, highest, plain=True)
