"""Small recipes, one of each kind: the files they write are, byte for byte, those that hashes.json tells of."""

from __future__ import annotations

import platform
import sys

import pytest
from golden_runs import RESUMED, Hashes, differences, fresh, names, stored, stored_versions, versions


def test_every_run_has_hashes_and_every_hash_a_run() -> None:
    assert sorted(stored()) == names()
    assert all(any(file.endswith(".few") for file in files) for files in stored().values())


def test_an_interrupted_run_ends_in_the_same_bytes() -> None:
    (name,) = RESUMED

    def alone(run: str) -> dict[str, str]:
        return {file.removeprefix(f"{run}/"): digest for file, digest in stored()[run].items()}

    assert alone(name) == alone(RESUMED[name])


def test_a_difference_is_named() -> None:
    before: Hashes = {"a": {"net": "1", "float": "2"}, "b": {"net": "3"}, "c": {"net": "4"}}
    now: Hashes = {"a": {"net": "9", "float": "2"}, "b": {"net": "3"}, "d": {"net": "5"}}
    assert differences(now, before) == ["a: net", "c: net", "d: net"]
    assert differences(before, before) == []


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the bytes are those of Linux on x86-64"
)
def test_the_bytes_are_what_they_were() -> None:
    other = differences(fresh(), stored())
    assert not other, (
        f"other bytes: {'; '.join(other)}. If they must change: python tests/golden/golden_runs.py --write, in one "
        f"commit that names the cause. (Written with {stored_versions()}, here {versions()}.)"
    )
