"""The profile "small" of the bit coder in plain Python: same bytes as ``csrc/small.h`` (see ``docs/format.md``)."""

from __future__ import annotations

import array
from collections import defaultdict
from typing import Final

from fewbits.codec._reference import (
    FRESH,
    MASK32,
    RATE,
    SQUASH,
    STRETCH,
    SUFFIX,
    Buffer,
    Decoder,
    Encoder,
    _BitCoder,
    _track,
)

FLAGS: Final = 6
GROUP: Final = 8
MASK: Final = 65535
ONE: Final = 4194303
STEPS: Final = (1, 3, 5, 9, 13, 18, 24, 32, 40, 50, 63, 79, 94, 113)

Key = tuple[int | str, ...]


def _ln(x: int) -> int:
    """``256 ln x`` for ``0 < x < 2^15``, from ten binary digits of the logarithm to base 2."""
    log2 = x.bit_length() - 1
    x <<= 15 - log2
    for _ in range(10):
        x = x * x >> 15
        log2 = log2 << 1 | x >> 16
        x >>= x >> 16
    return (log2 * 22713 + (1 << 16)) >> 17


LOG: Final = [_ln(2 * i + 1) - 2026 for i in range(4096)]


def _learned(slot: int, target: int, limit: int) -> int:
    """A slot moved towards a target; its count stops at ``limit``."""
    count, p = slot & 1023, slot >> 10
    return p + ((target - p) * RATE[count] >> 16) << 10 | (count + (count < limit))


def _child(share: int, count: int) -> int:
    """A share that starts where another one stands."""
    return share >> 10 << 10 | count


def _odds(share: int) -> int:
    return max(LOG[share >> 20] if share >= 1 << 26 else LOG[share >> 14] - 1065, -2047)


def _class(odds: int) -> int:
    return (odds + 2047) >> 7


def _within(value: int, bound: int) -> int:
    return min(max(value, -bound), bound)


def _trit(level: int) -> int:
    return 0 if level == 0 else 2 if level < 0 else 1


def _wrapped(value: int) -> int:
    return ((value + (1 << 31)) & MASK32) - (1 << 31)


def _width(columns: int, kernel: int) -> int:
    """Side of a square kernel of 2..8, or 0 where a row is one line."""
    for width in range(2, 9):
        if width * width == kernel and columns % kernel == 0:
            return width
    return 0


class _Small:
    """Levels, row by row, with neighbours in the kernel as in a picture."""

    def __init__(self, coder: _BitCoder, lowest: int, highest: int, width: int) -> None:
        self.coder, self.lowest, self.highest, self.width = coder, lowest, highest, width
        self.slots: dict[Key, int] = defaultdict(lambda: FRESH + 1)
        self.ages: dict[str, int] = defaultdict(int)
        self.weights = {
            "group": [2000, 20000, 25000, 12000, 8000],
            "zero": [2000, 16000, 15000, 11000, 6000, 12000, 2500, 8000, 8000],
            "sign": [30000, 21000, 20000, 15000],
        }
        for k in range(FLAGS):
            self.weights[f"more{k}"] = [9000, 11500, 11500, 15000]
        start = [46000, 42000, -8000, 4000, 800, 400] if width else [0] * 6
        self.pull = [list(start) for _ in range(max(width * width, 1))]

    def stretch(self, *key: int | str) -> int:
        return STRETCH[self.slots[key] >> 20]

    def mixed(self, name: str, inputs: list[int], keys: list[Key], bit: int) -> tuple[int, int]:
        """One bit from inputs with weights that learn, faster at first; the slots of ``keys`` learn it too."""
        weights, age = self.weights[name], self.ages[name]
        total = _wrapped(sum(x * w for x, w in zip(inputs, weights, strict=True)))
        odds = _within(total >> 16, 2047)
        p = SQUASH[odds + 2048]
        bit = self.coder.code(p, bit)
        error = (bit << 16) - p
        error *= 8 if age < 500 else 4 if age < 4000 else 2 if age < 30000 else 1
        self.ages[name] = age + 1
        for i, x in enumerate(inputs):
            weights[i] = _wrapped(weights[i] + ((x * error + (1 << 16)) >> 17))
        for key in keys:
            self.learn(key, bit)
        return bit, odds

    def learn(self, key: Key, bit: int) -> None:
        self.slots[key] = _learned(self.slots[key], ONE if bit else 0, 1023)

    def single(self, key: Key, bit: int) -> int:
        bit = self.coder.code(min(max(self.slots[key] >> 16, 32), 65504), bit)
        self.learn(key, bit)
        return bit

    def escape(self, size_class: int, value: int) -> int:
        n, length = 0, value.bit_length() - 1
        while n < 15 and self.single(("prefix", size_class, n), int(n < length)):
            n += 1
        got = 1
        for i in range(n - 1, -1, -1):
            bit = value >> i & 1
            bit = self.single(("suffix", n, got), bit) if got < SUFFIX else self.coder.code(32768, bit)
            got = got << 1 | bit
        return got

    def run(self, levels: array.array[int], rows: int, columns: int, encode: bool) -> None:
        """Code ``levels`` in place: an encoder reads them, a decoder overwrites them."""
        width = self.width
        kernel = width * width if width else 1
        group = kernel if width else GROUP
        starts = [(r * columns + j, min(group, columns - j)) for r in range(rows) for j in range(0, columns, group)]
        empty = sum(not any(levels[i : i + n]) for i, n in starts) if encode else 0
        grouped = self.coder.code(32768, int(empty > len(starts) // 2))
        every, all_groups, self.average = 400000 << 10, FRESH, 256
        column, channels, groups = [0] * columns, [0] * columns, [0] * columns
        leans = [32768] * columns
        above = above2 = [0] * columns
        for r in range(rows):
            row, row_groups, self.row_lean = _child(every, 4), _child(all_groups, 4), 32768
            now = [0] * columns
            places = [_child(every, 5)] * kernel
            kernel_share = group_share = left = any_yet = before = skip = 0
            for j in range(columns):
                if skip:
                    skip -= 1
                    continue
                place, channel, at = j % kernel, j // kernel & MASK, r * columns + j
                if grouped and left == 0:
                    n, here = min(group, columns - j), j // group & MASK
                    groups[here] = groups[here] or _child(row_groups, 1)
                    group_share = groups[here]
                    in_row, share = _odds(row_groups), _odds(group_share)
                    keys: list[Key] = [("lines", _class(in_row), _class(share)), ("before", before)]
                    inputs = [256, in_row, share, *(self.stretch(*key) for key in keys)]
                    full, _ = self.mixed("group", inputs, keys, int(any(levels[at : at + n])))
                    row_groups = _learned(row_groups, ONE * full, 250)
                    groups[here] = _learned(group_share, ONE * full, 80)
                    all_groups = _learned(all_groups, ONE * full, 1000)
                    before = before << 1 & 2 | full
                    if not full:
                        skip = n - 1
                        continue
                    left, any_yet = n, 0
                jm = j & MASK
                column[jm] = column[jm] or _child(row, 2)
                if width and place == 0:
                    channels[channel] = channels[channel] or _child(row, 1)
                    kernel_share = _child(channels[channel], 1)
                near = self.near(now, above, above2, j)
                pull = self.pull[place]
                sign = _within(sum(x * w for x, w in zip(near, pull, strict=True)) >> 8, 2047)
                strength = sum(abs(sign) >> 4 >= bound for bound in STEPS)
                s = [abs(x) for x in near]
                busy = 3 * (min(s[0], 3) + min(s[1], 3)) + min(s[2], 3) + min(s[3], 3)
                busy = min(busy + min(s[4], 2) + min(s[5], 2), 31)
                in_row, in_column = _odds(row), _odds(column[jm])
                keys = [
                    ("active", _class(in_row), strength, busy),
                    ("shape", _within(near[0], 2), _within(near[1], 2), _within(near[2], 1), _within(near[3], 1)),
                ]
                inputs = [256, in_row, in_column, *(self.stretch(*key) for key in keys)]
                inputs += [_odds(group_share) if grouped else _odds(channels[channel]) if width else 0]
                inputs += [_odds(places[place]), _odds(kernel_share)] if width else [0, 0]
                inputs += [self.stretch("within", left, any_yet) if grouped else 0]
                value, odds = levels[at], 0
                if not grouped or left > 1 or any_yet:
                    extra: list[Key] = [("within", left, any_yet)] if grouped else []
                    nonzero, odds = self.mixed("zero", inputs, keys + extra, int(value != 0))
                else:
                    nonzero = 1
                    for key in keys:
                        self.learn(key, 1)
                value = self.level(value, near, pull, sign, strength, inputs, odds, leans, jm) if nonzero else 0
                levels[at] = value
                now[j] = _within(value, 7)
                target = min(abs(value), 3) * 1398101
                row = _learned(row, target, 250)
                column[jm] = _learned(column[jm], target, 80)
                left, any_yet = left - grouped, any_yet | nonzero
                if width:
                    channels[channel] = _learned(channels[channel], target, 120)
                    places[place] = _learned(places[place], target, 100)
                    kernel_share = _learned(kernel_share, target, 16)
            every = _learned(every, row >> 10, 30)
            above, above2 = now, above

    def near(self, now: list[int], above: list[int], above2: list[int], j: int) -> list[int]:
        """The six neighbours; 0 outside the tensor or, for the first four, outside the kernel."""
        width = self.width
        if not width:
            return [*(now[j - k] if j >= k else 0 for k in (1, 2, 3)), 0, above2[j], above[j]]
        kernel = width * width
        y, x = divmod(j % kernel, width)
        return [
            now[j - 1] if x else 0,
            now[j - width] if y else 0,
            now[j - width - 1] if x and y else 0,
            now[j - width + 1] if y and x + 1 < width else 0,
            now[j - kernel] if j >= kernel else 0,
            above[j],
        ]

    def level(
        self,
        value: int,
        near: list[int],
        pull: list[int],
        sign: int,
        strength: int,
        inputs: list[int],
        odds: int,
        leans: list[int],
        j: int,
    ) -> int:
        """Sign and magnitude of a level that is not 0."""
        if self.lowest < 0 < self.highest:
            keys: list[Key] = [
                ("sign_around", *(_trit(x) for x in near[:4])),
                ("sign_lines", leans[j] >> 12, self.row_lean >> 12),
                ("sign_pull", strength, sign < 0),
            ]
            signs = [-sign, *(self.stretch(*key) for key in keys)]
            negative, _ = self.mixed("sign", signs, keys, int(value < 0))
            error = (negative << 16) - SQUASH[2048 - sign]
            for i, x in enumerate(near):
                pull[i] = _within(pull[i] - (x * error >> 7), 1 << 20)
        else:
            negative = int(self.lowest < 0)
        bound = -self.lowest if negative else self.highest
        if bound == 0:
            raise ValueError("coded levels that break the rules of the coder")
        size = more = 1
        while more and size <= FLAGS and size < bound:
            keys = [
                ("more_lines", size, _class(inputs[1]), _class(inputs[2])),
                ("more_odds", size, (odds + 2048) >> 6),
                ("more_sign", size, negative),
            ]
            larger = [-sign if negative else sign, *(self.stretch(*key) for key in keys)]
            more, _ = self.mixed(f"more{size - 1}", larger, keys, int(abs(value) > size))
            size += more
        if more and size < bound:
            size += self.escape(min((self.average >> 8).bit_length(), 15), max(abs(value) - size + 1, 1)) - 1
            if size > bound:
                raise ValueError("coded levels that break the rules of the coder")
        self.average += (size << 5) - (self.average >> 3)
        leans[j] = _track(leans[j], 1 - negative, 3)
        self.row_lean = _track(self.row_lean, 1 - negative, 4)
        return -size if negative else size


def small_encode(levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> bytes:
    """Code int16 ``levels`` of ``rows * columns`` elements, all in ``[lowest, highest]`` around 0."""
    values = array.array("h", bytes(levels))
    if len(values) != rows * columns or min(values) < lowest or max(values) > highest:
        raise ValueError("levels that do not fit their grid")
    coder = Encoder()
    _Small(coder, lowest, highest, _width(columns, kernel)).run(values, rows, columns, True)
    return coder.finish()


def small_decode(data: Buffer, levels: Buffer, rows: int, columns: int, kernel: int, lowest: int, highest: int) -> None:
    """Fill the int16 buffer ``levels``; ValueError where the data breaks the rules of the coder."""
    values = array.array("h", bytes(2 * rows * columns))
    coder = Decoder(bytes(data))
    _Small(coder, lowest, highest, _width(columns, kernel)).run(values, rows, columns, False)
    coder.finish()
    memoryview(levels).cast("B")[:] = values.tobytes()
