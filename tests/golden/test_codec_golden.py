"""Committed files of format version 1, one per coder: exact bytes, content, and every damage of one byte."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_plan import HEADER, affine_plan, aliases_plan, golden_plan, masked_plan, narrowed_plan, operations_plan

from conftest import encode_with
from fewbits.codec import _reference as reference
from fewbits.codec import _reference_fast as reference_fast
from fewbits.codec import _reference_small as reference_small
from fewbits.codec import decode, inspect
from fewbits.errors import FileError, FormatError
from fewbits.plan import Plan

FOLDER = Path(__file__).parent
SHA256 = {
    "v1": "15a0bb8ed84c7ef8bd733c61fae286470985769bc8e2142a7621b4764a640951",
    "small": "346683c2a541cb676ed6932997590204efdfe01a52272bf6905ba39504170347",
    "plain": "144d11bdc06d87f7962e8b8839dcc4018375d9759d345e36f0146fb9a24e0ad3",
    "fast": "b4fa471162a5fac5e27326f3f751fead56eae20f39e2cf73eb10448c5086b8fc",
    "narrowed": "7411a4cf8b34cfb8bbd4effb1b89689d1e7ba0df9f28295a8f199f5feb14fd82",
    "masked": "4a2808eea2d10bbfde8927c8cb0983825673315fa3122672462a06bac84be887",
    "aliases": "0c366c68a35fd3a4b7f76bd209e1734bdf136b00e1a16d91cb71fd893efbdc25",
    "affine": "b1c03e9b456b47eacf9f9b02e19fccfd2f0a4d18fa8683a2d3a171f10dbc24f1",
    "operations": "3b5a60302af64c85d7df192a1cb5d80c240136a7725dcb95f94f3742fbb75eed",
}


def plan_of(name: str) -> Plan:
    plans = {"masked": masked_plan, "narrowed": narrowed_plan, "affine": affine_plan, "aliases": aliases_plan}
    plans["operations"] = operations_plan
    return plans.get(name, golden_plan)()


@pytest.fixture(scope="module", params=SHA256)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(name: str) -> bytes:
    return (FOLDER / f"codec_{name}.few").read_bytes()


def test_exact_bytes(data: bytes, name: str) -> None:
    assert hashlib.sha256(data).hexdigest() == SHA256[name]
    coder = {"v1": "mixing", "plain": "plain", "fast": "fast"}.get(name, "small")
    assert encode_with(coder, plan_of(name), header=HEADER) == data


def test_content(data: bytes, name: str) -> None:
    plan = plan_of(name)
    decoded = decode(data, plan.tensors())
    assert decoded.equals(plan)
    for tensor, entry in plan.clustered.items():
        mine = decoded.clustered[tensor]
        assert torch.equal(mine.levels, entry.levels)
        assert (mine.bits, mine.codebook, mine.lowest) == (entry.bits, entry.codebook, entry.lowest)
    for tensor, weight in plan.affine.items():
        assert torch.equal(decoded.affine[tensor].scales, weight.scales)
        assert (decoded.affine[tensor].axis, decoded.affine[tensor].bits) == (weight.axis, weight.bits)
    assert decoded.approximations == plan.approximations
    if name in ("affine", "aliases", "operations"):
        return
    if name in ("masked", "narrowed"):
        for tensor in set(plan) - set(plan.clustered):
            assert decoded[tensor].data.dtype == plan[tensor].data.dtype
        return
    assert decoded["half"].data.dtype == torch.float16
    assert decoded.clustered["wide.weight"].step == float(np.float32(1e-4))


def test_directory(data: bytes, name: str) -> None:
    summary = inspect(data)
    assert summary.header == HEADER
    assert summary.file_hash == SHA256[name]
    assert summary.file_bytes == len(data)
    assert [t.name for t in summary.tensors] == list(plan_of(name))


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (reference.levels_encode, "b59780"),
        (reference_small.small_encode, "cfee"),
        (reference_fast.plain_encode, "00b598eb00be6f4a00"),
        (reference_fast.fast_encode, "00b598eb00be6f4a00"),
    ],
)
def test_golden_words(encode: Callable[..., bytes], words: str) -> None:
    """Worked example of docs/format.md."""
    levels = np.array([0, 0, 3, 0, -1, 0, 0, 0], np.int16)
    assert encode(levels.data, 2, 4, 1, -7, 7).hex() == words


def test_golden_words_of_a_kernel() -> None:
    levels = np.array([2, 1, 0, 3, 1, 0, 0, -1, -1], np.int16)
    assert reference_small.small_encode(levels.data, 1, 9, 9, -7, 7).hex() == "973fa2"
    assert reference_fast.fast_encode(levels.data, 1, 9, 9, -7, 7).hex() == "03e99f101e0c06f035"


def test_every_damaged_byte_is_found(data: bytes, name: str) -> None:
    like = plan_of(name).tensors()
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= mask
            with pytest.raises(FormatError):
                decode(bytes(damaged), like)


def test_every_truncation_is_found(data: bytes, name: str) -> None:
    like = plan_of(name).tensors()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:size], like)


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"x" * 1000])
def test_trailing_bytes_are_found(data: bytes, tail: bytes, name: str) -> None:
    with pytest.raises(FormatError):
        decode(data + tail, plan_of(name).tensors())


def test_text_mode_damage_is_named(data: bytes) -> None:
    with pytest.raises(FileError, match="text-mode"):
        inspect(data.replace(b"\r\n", b"\n"))


def test_damaged_section_names_its_tensor(data: bytes) -> None:
    at = 14 + int.from_bytes(data[10:14], "little") + 2
    damaged = bytearray(data)
    damaged[at] ^= 1
    with pytest.raises(FormatError, match=r"checksum of tensor 'conv\.weight'"):
        inspect(bytes(damaged))
