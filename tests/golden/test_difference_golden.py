"""Committed files of differences and of several networks: exact bytes, content, a second reader, every damaged byte."""

import hashlib
from pathlib import Path

import pytest
import second_reader
import torch
from codec_plan import HEADER, difference_base_plan, difference_plan

from conftest import encode_with
from fewbits import codec
from fewbits.codec import FamilyReader, base_of, decode, inspect
from fewbits.errors import FileError, FormatError

FOLDER = Path(__file__).parent
SHA256 = {
    "difference": "04428ef96a1cf08e8edb8686b36150d6e8be9f118bc4b792846e0e4ee358c850",
    "family": "e730544cc5230fbebd610964aca85902a44530fb35d0ddc2ba7c690ecdd2bd51",
}
BASE = encode_with("small", difference_base_plan(), header={"model": "base"})
DATA = (FOLDER / "codec_difference.few").read_bytes()
FAMILY = (FOLDER / "codec_family.few").read_bytes()
ORIGIN = base_of(BASE)
PLAN = difference_plan(ORIGIN)


def test_exact_bytes() -> None:
    assert hashlib.sha256(DATA).hexdigest() == SHA256["difference"]
    assert encode_with("small", PLAN, header=HEADER, base=ORIGIN) == DATA
    assert hashlib.sha256(FAMILY).hexdigest() == SHA256["family"]
    assert codec.family({"base": BASE, "other": DATA}) == FAMILY


def test_content() -> None:
    found = decode(DATA, PLAN.tensors(), base=ORIGIN)
    assert found.equals(PLAN)
    assert found.digest() == PLAN.digest()
    for name, tensor in PLAN.tensors().items():
        assert torch.equal(found.tensors()[name], tensor)
    assert "count" not in found
    assert torch.equal(found["bn.weight"].values(), torch.ones(8))
    summary = inspect(DATA, ORIGIN)
    assert summary.header == HEADER
    kinds = {tensor.name: (tensor.kind, tensor.difference) for tensor in summary.tensors}
    assert kinds["bn.weight"] == kinds["index"] == ("same", True)
    assert kinds["pruned.weight"] == ("masked", True)
    assert kinds["head.weight"] == ("clustered", False)
    with FamilyReader(FAMILY) as reader:
        assert reader.bases == {"base": None, "other": "base"}
        assert (reader.member("base"), reader.member("other")) == (BASE, DATA)


def test_a_reader_written_from_the_page_finds_the_same() -> None:
    """Of which only the bit coders are the product's, in their reference form."""
    plan = ORIGIN.plan
    values = {name: entry.values().numpy() for name, entry in plan.items()}
    found = second_reader.read(DATA, values, plan.aliases)
    assert set(found) == set(PLAN.tensors())
    for name, tensor in PLAN.tensors().items():
        assert torch.equal(torch.from_numpy(found[name].copy()), tensor), name


def test_without_its_base_it_says_which_one_it_needs() -> None:
    summary = inspect(DATA)
    assert (summary.base, summary.header, summary.tensors) == (BASE[-16:].hex(), HEADER, ())
    assert summary.identity == DATA[-16:].hex()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_is_found(mask: int) -> None:
    like = PLAN.tensors()
    for at in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= mask
        with pytest.raises(FileError):
            decode(bytes(damaged), like, base=ORIGIN)
        with pytest.raises(FileError):
            inspect(bytes(damaged))


def test_every_truncation_is_found() -> None:
    like = PLAN.tensors()
    for size in range(len(DATA)):
        with pytest.raises(FormatError):
            decode(DATA[:size], like, base=ORIGIN)
    for size in range(len(FAMILY)):
        with pytest.raises(FileError):
            FamilyReader(FAMILY[:size])


def test_every_damaged_byte_of_a_family_is_found_where_it_is_read() -> None:
    for at in range(len(FAMILY) - 16):  # the hash of the whole is of none of its members
        damaged = bytearray(FAMILY)
        damaged[at] ^= 0x41
        with pytest.raises(FileError):
            _all_of(bytes(damaged))


def _all_of(data: bytes) -> None:
    with FamilyReader(data) as reader:
        for name in reader.names:
            reader.member(name)
