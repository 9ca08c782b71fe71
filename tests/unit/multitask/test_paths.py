"""Paths and names of tasks."""

from __future__ import annotations

import pytest

from fewbits.errors import RecipeError
from fewbits.multitask import Paths, branched_paths


def test_branches_are_hard_sharing() -> None:
    trunk = branched_paths(["a", "b", "c"], 3, shared=range(3))
    assert {place: len(names) for place, names in trunk.users().items()} == {(layer, 0): 3 for layer in range(3)}
    apart = branched_paths(["a", "b", "c"], 3)
    assert sorted(apart.users().values()) == sorted([[name] for name in "abc" for _ in range(3)])
    tops = branched_paths(["a", "b"], 3, shared=[0])
    assert tops.users() == {
        (0, 0): ["a", "b"], (1, 0): ["a"], (1, 1): ["b"], (2, 0): ["a"], (2, 1): ["b"],
    }  # fmt: skip
    wide = branched_paths(["a", "b"], 2, shared=[0], per_layer=2)
    both, a, b = ["a", "b"], ["a"], ["b"]
    assert wide.users() == {(0, 0): both, (0, 1): both, (1, 0): a, (1, 1): a, (1, 2): b, (1, 3): b}
    with pytest.raises(RecipeError, match="1 segment in a layer"):
        branched_paths(["a"], 3, per_layer=0)
    with pytest.raises(RecipeError, match="layers go from 0 to 2"):
        branched_paths(["a"], 3, shared=[3])


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({}, "no tasks"),
        ({"a": [[1, 0]], "b": [[1, 0, 0]]}, "of one shape"),
        ({"a": [1, 0]}, "of one shape"),
        ({"a": [[1, 0], [0, 0]]}, "'a' has no segment in layer 1"),
        ({"a.b": [[1]]}, "letters, digits"),
        ({"": [[1]]}, "letters, digits"),
        ({"train": [[1]]}, "call it train-task"),
        ({"values": [[1]]}, "call it values-task"),
    ],
)
def test_impossible_paths_are_refused(paths: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Paths(paths)
