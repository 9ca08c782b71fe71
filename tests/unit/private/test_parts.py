"""Several byte strings as one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import DamagedError
from fewbits.private.parts import join, split


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_parts_come_back(parts: list[bytes]) -> None:
    assert [bytes(part) for part in split(join(parts), len(parts), "it")] == parts


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=20), max_size=4), st.binary(max_size=60), st.integers(0, 4))
def test_only_what_was_joined_is_split(parts: list[bytes], noise: bytes, count: int) -> None:
    whole = join(parts)
    for data in (*(whole[:kept] for kept in range(len(whole))), whole + b"\0", noise):
        try:
            found = split(data, count, "it")
        except DamagedError:
            continue
        assert join(found) == data  # by chance it is what some parts are joined to
        assert len(found) == count
    if count != len(parts):
        with pytest.raises(DamagedError, match="parts"):
            split(whole, count, "it")


def test_a_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(DamagedError, match="ends within"):
        split((1).to_bytes(4, "big") + (2**64 - 1).to_bytes(8, "big") + b"x", 1, "it")
