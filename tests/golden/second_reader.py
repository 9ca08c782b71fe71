"""A second reader of files of differences, written from docs/format.md: plain, slow, and of no checks.

It knows the container, and takes bits from the reference coders; of the product's own container it uses nothing.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import numpy as np

from fewbits.codec import _reference as reference
from fewbits.codec import _reference_small as reference_small

PRIME = (
    b"num_batches_tracked\0running_mean\0running_var\0features.0.weight\0features.0.bias\0"
    b"layer1.0.conv1.weight\0layer1.0.bn1.weight\0layer1.0.bn1.bias\0fc.weight\0fc.bias\0"
)
WIDTHS = (4, 2, 2, 8, 1, 1, 2, 4, 8, 1)
SAME, ABSENT = 66, 67  # kinds 18 and 19 as kind bytes


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    def name(self) -> str:
        return self.take(self.data.index(0, self.at) + 1 - self.at)[:-1].decode()


def content(head: Bytes) -> Bytes:
    (form,) = head.take(1)
    if form == 0:
        return Bytes(head.data[head.at :])
    out = bytearray(head.varint())
    reference.bytes_decode(head.data[head.at :], out, 0, PRIME)
    return Bytes(bytes(out))


def widened(raw: bytes, kind: int) -> Any:
    """Numbers of a float type as float32."""
    if kind == 2:
        return np.frombuffer(raw, "<f4")
    if kind == 3:
        return np.frombuffer(raw, "<f2").astype(np.float32)
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def numbers(section: bytes, count: int, width: int) -> bytes:
    """Section of coder 2: floats of this width, lowest byte first."""
    coded, raw = section[0], (width - section[0]) * count
    planes = bytearray(coded * count)
    reference.bytes_decode(section[1 + raw :], planes, count, b"")
    rows = np.frombuffer(bytes(planes) + section[1 : 1 + raw], np.uint8).reshape(width, count)
    values = np.ascontiguousarray(rows.T).view(f">u{width}").reshape(-1).astype(f"<u{width}")
    return ((values >> 1) | (values << (8 * width - 1))).astype(f"<u{width}").tobytes()


def levels(section: bytes, coder: int, shape: tuple[int, ...], low: int, high: int) -> Any:
    """Section of coder 1 or 3, of a single strip."""
    rows = shape[0] if len(shape) > 1 else 1
    out = np.zeros(prod(shape), np.int16)
    decode = {1: reference.levels_decode, 3: reference_small.small_decode}[coder]
    decode(section, out.data, rows, prod(shape) // rows, prod(shape[2:]), min(low, 0), max(high, 0))
    return out


def read(data: bytes, base: dict[str, Any], base_aliases: dict[str, str]) -> dict[str, Any]:
    """``{name: numbers}`` of a file of differences; the base by its float32 (or integer) values."""
    (size,) = struct.unpack("<I", data[10:14])
    head, at = Bytes(data[14 : 14 + size]), 14 + size + 2
    assert head.take(1) == b"\2"
    head.take(16)
    head.take(head.varint())
    inner = content(head)
    assert inner.varint() == len(base)
    marks, count = inner.take(len(base)), inner.varint()
    names = [inner.name() for _ in range(count)]
    kinds = list(inner.take(count))
    alone = [kind for kind in kinds if kind != 65]
    ranks = inner.take(len(alone))
    sizes = [tuple(inner.varint() for _ in range(rank)) for rank in ranks]
    every = [*base, *names[: len(alone)]]
    others = {other: every[inner.varint()] for other in names[len(alone) :]}
    found: list[dict[str, Any]] = [
        {"name": name, "kind": mark, "shape": base[name].shape, "base": base[name]}
        for name, mark in zip(base, marks, strict=True)
        if mark not in (SAME, ABSENT)
    ]
    found += [{"name": n, "kind": k, "shape": s} for n, k, s in zip(names, alone, sizes, strict=False)]
    for one in found:
        one["what"], one["storage"] = (one["kind"] >> 6) * 16 + (one["kind"] & 15), one["kind"] >> 4 & 3
    clustered = [one for one in found if one["what"] < 2]
    for one, bits in zip(clustered, inner.take(len(clustered)), strict=True):
        one["top"] = 2 ** (bits - 1) - 1
    for one in clustered:
        if one["what"] == 0:
            (one["step"],) = struct.unpack("<f", inner.take(4))
            one["low"], one["high"] = -one["top"], one["top"]
        else:
            (one["low"],) = struct.unpack("<h", inner.take(2))
            one["book"] = np.frombuffer(inner.take(4 * (n := inner.varint())), "<f4")
            one["high"] = one["low"] + n - 1
    for one in found:
        if 12 <= one["what"] < 15:
            one["kept"] = inner.varint()
    for one in found:
        if one["storage"] == 2:
            one["raw"] = inner.take(2 if one["what"] < 2 else WIDTHS[one["what"] - 2]) * prod(one["shape"])
    at = _sections(found, inner, data, at)
    assert at == len(data) - 16
    values = {name: base[name] for name, mark in zip(base, marks, strict=True) if mark == SAME}
    values |= {one["name"]: _values(one) for one in found}
    values |= {o: values[n] for o, n in base_aliases.items() if n in values and o not in values and o not in others}
    return values | {other: values[name] for other, name in others.items()}


def _sections(found: list[dict[str, Any]], inner: Bytes, data: bytes, at: int) -> int:
    """Read every section, in the order of the tensors; where the last one ends."""
    order: list[tuple[str, list[dict[str, Any]]]] = []
    shared: dict[Any, list[dict[str, Any]]] = {}
    for one in found:
        what, storage = one["what"], one["storage"]
        if what < 2 and storage == 1 and "levels" in shared:
            shared["levels"].append(one)
        elif what < 2 and storage < 2:
            order.append(("levels", [one]))
            if storage == 1:
                shared["levels"] = order[-1][1]
        elif what >= 12 and 0 < one["kept"] < prod(one["shape"]):
            order.append(("mask", [one]))
        key = what - 10 if what >= 12 else what
        if (12 <= what < 15 and one["kept"]) or (2 <= what < 12 and storage < 2):
            if storage == 1 and key in shared:
                shared[key].append(one)
            else:
                order.append(("numbers", [one]))
                if storage == 1:
                    shared[key] = order[-1][1]
    coders = inner.take(len(order))
    for (sort, members), coder in zip(order, coders, strict=True):
        size = inner.varint()
        section, at = data[at : at + size], at + size + 2
        if sort == "mask":
            members[0]["mask"] = levels(section, coder, members[0]["shape"], 0, 1)
        elif sort == "levels":
            low, high = min(one["low"] for one in members), max(one["high"] for one in members)
            counts = [prod(one["shape"]) for one in members]
            shape = members[0]["shape"] if len(members) == 1 else (sum(counts),)
            parts = np.split(levels(section, coder, shape, low, high), np.cumsum(counts)[:-1])
            for one, part in zip(members, parts, strict=True):
                one["raw"] = part.tobytes()
        else:
            counts = [one.get("kept", prod(one["shape"])) for one in members]
            width = WIDTHS[(members[0]["what"] - 2) % 10]
            raw = numbers(section, sum(counts), width)
            for one, count in zip(members, counts, strict=True):
                one["raw"], raw = raw[: count * width], raw[count * width :]
    assert inner.at == len(inner.data)
    return at


def _values(one: dict[str, Any]) -> Any:
    what = one["what"]
    if what == 0:
        own = np.frombuffer(one["raw"], "<i2").astype(np.float32) * np.float32(one["step"])
    elif what == 1:
        own = one["book"][np.frombuffer(one["raw"], "<i2").astype(int) - one["low"]]
    elif what < 12:
        own = widened(one["raw"], what)
    else:
        own = np.zeros(prod(one["shape"]), np.float32)
        mask = one.get("mask", np.full(own.shape, bool(one["kept"])))
        own[mask.astype(bool)] = widened(one["raw"], what - 10)
    own = own.reshape(one["shape"])
    return one["base"] + own if "base" in one else own
