"""The files that small recipes make, byte for byte: what a change must leave as it was, or name."""

import golden_runs
import pytest


@pytest.mark.slow
def test_the_files_are_those_of_before() -> None:
    before = golden_runs.stored()
    assert sorted(before) == golden_runs.names()  # a recipe without hashes, or hashes without a recipe
    assert golden_runs.differences(golden_runs.fresh(), before) == []


def test_a_difference_is_named() -> None:
    before = {"a": {"x.few": "1", "y.few": "2"}, "gone": {"z": "3"}}
    now = {"a": {"x.few": "1", "y.few": "4"}, "new": {"z": "3"}}
    assert golden_runs.differences(now, before) == ["a: y.few", "gone: z", "new: z"]
    assert golden_runs.differences(before, before) == []
