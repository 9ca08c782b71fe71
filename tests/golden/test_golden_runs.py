"""Small recipes, one of each kind: the files they write are, byte for byte, those that hashes.json tells of."""

from __future__ import annotations

import platform
import sys

import pytest
from golden_runs import RESUMED, Hashes, differences, fewest, fresh, names, stored, stored_versions, versions


def test_every_run_has_hashes_and_every_hash_a_run() -> None:
    assert stored()
    for one in stored():
        assert sorted(one) == names()
        assert all(any(file.endswith(".few") for file in files) for files in one.values())


def test_an_interrupted_run_ends_in_the_same_bytes() -> None:
    (name,) = RESUMED

    def alone(one: Hashes, run: str) -> dict[str, str]:
        return {file.removeprefix(f"{run}/"): digest for file, digest in one[run].items()}

    for one in stored():
        assert alone(one, name) == alone(one, RESUMED[name])


def test_a_difference_is_named() -> None:
    before: Hashes = {"a": {"net": "1", "float": "2"}, "b": {"net": "3"}, "c": {"net": "4"}}
    now: Hashes = {"a": {"net": "9", "float": "2"}, "b": {"net": "3"}, "d": {"net": "5"}}
    assert differences(now, before) == ["a: net", "c: net", "d: net"]
    assert differences(before, before) == []
    assert fewest(before, [now, before]) == []
    mixed: Hashes = {"a": now["a"], "b": {"net": "7"}, "c": before["c"]}  # of no one processor
    assert fewest(mixed, [now, before]) == ["a: net", "b: net"]


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the bytes are those of Linux on x86-64"
)
def test_the_bytes_are_what_they_were() -> None:
    other = fewest(fresh(), stored())
    assert not other, (
        f"other bytes: {'; '.join(other)}. If they must change: python tests/golden/golden_runs.py --write, in one "
        f"commit that names the cause. (Written with {stored_versions()}, here {versions()}.)"
    )
