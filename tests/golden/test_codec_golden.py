"""The committed file of format version 1: exact bytes, content, and every way to damage it by one byte."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_plan import HEADER, golden_plan

from fewbits.codec import decode, encode, inspect
from fewbits.codec.reference import levels_encode
from fewbits.errors import FileError, FormatError

GOLDEN = Path(__file__).parent / "codec_v1.few"
SHA256 = "15a0bb8ed84c7ef8bd733c61fae286470985769bc8e2142a7621b4764a640951"


@pytest.fixture(scope="module")
def data() -> bytes:
    return GOLDEN.read_bytes()


def test_exact_bytes(data: bytes) -> None:
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert encode(golden_plan(), header=HEADER) == data


def test_content(data: bytes) -> None:
    plan = golden_plan()
    decoded = decode(data, plan.tensors())
    assert decoded.equals(plan)
    for name, entry in plan.clustered.items():
        mine = decoded.clustered[name]
        assert torch.equal(mine.levels, entry.levels)
        assert (mine.bits, mine.codebook, mine.lowest) == (entry.bits, entry.codebook, entry.lowest)
    assert decoded["half"].data.dtype == torch.float16
    assert decoded.clustered["wide.weight"].step == float(np.float32(1e-4))


def test_directory(data: bytes) -> None:
    summary = inspect(data)
    assert summary.header == HEADER
    assert summary.file_hash == SHA256
    assert summary.file_bytes == len(data)
    assert [t.name for t in summary.tensors] == list(golden_plan())


def test_golden_words_of_the_range_coder() -> None:
    """Worked example of docs/format.md."""
    levels = np.array([0, 0, 3, 0, -1, 0, 0, 0], np.int16)
    assert levels_encode(levels.data, 2, 4, 1, -7, 7).hex() == "b59780"


def test_every_damaged_byte_is_found(data: bytes) -> None:
    like = golden_plan().tensors()
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= mask
            with pytest.raises(FormatError):
                decode(bytes(damaged), like)


def test_every_truncation_is_found(data: bytes) -> None:
    like = golden_plan().tensors()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:size], like)


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"x" * 1000])
def test_trailing_bytes_are_found(data: bytes, tail: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data + tail, golden_plan().tensors())


def test_text_mode_damage_is_named(data: bytes) -> None:
    with pytest.raises(FileError, match="text-mode"):
        inspect(data.replace(b"\r\n", b"\n"))


def test_damaged_section_names_its_tensor(data: bytes) -> None:
    at = 14 + int.from_bytes(data[10:14], "little") + 2
    damaged = bytearray(data)
    damaged[at] ^= 1
    with pytest.raises(FormatError, match=r"checksum of tensor 'conv\.weight'"):
        inspect(bytes(damaged))
