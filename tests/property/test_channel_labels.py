"""Which channels are one, and which stay: against sets of labels that are put together one by one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.channels._labels import FIXED, Labels

COUNT = 12
SOME = st.lists(st.integers(0, COUNT), min_size=1, max_size=6)
STEPS = st.lists(st.one_of(st.tuples(SOME, SOME), SOME), max_size=8)


@given(STEPS)
def test_joined_labels_are_sets_and_know_why_they_stay(steps: list[object]) -> None:
    labels = Labels()
    labels.fresh(COUNT)
    sets = {label: {label} for label in range(COUNT + 1)}
    why = {}
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            pairs = list(zip(*step, strict=False))
            labels.join(torch.tensor([a for a, _ in pairs]), torch.tensor([b for _, b in pairs]), str(number))
            told = f"{number} ties it to what stays"
        else:
            pairs = [(label, FIXED) for label in step]
            labels.fix(torch.tensor(step), str(number))
            told = str(number)
        before = set(sets[FIXED])
        for a, b in pairs:
            both = sets[a] | sets[b]
            sets.update(dict.fromkeys(both, both))
        why.update(dict.fromkeys(sets[FIXED] - before, told))
    roots = labels.roots(torch.arange(COUNT + 1)).tolist()
    assert roots == [min(sets[label]) for label in range(COUNT + 1)]
    assert all(labels.why(label) == why[label] for label in sets[FIXED] - {FIXED})


def test_fixing_many_of_many_takes_one_look_at_all_of_them() -> None:
    """A network of 100,000 channels fixed 3,000 at a time: work grows with both, not with their product."""
    labels, looks = Labels(), 0
    parts = [labels.fresh(3000) for _ in range(20)]
    roots = labels.roots

    def counted(some: torch.Tensor) -> torch.Tensor:
        nonlocal looks
        looks += 1
        return roots(some)

    labels.roots = counted  # type: ignore[method-assign]
    for part in parts:
        labels.fix(part, "it is fixed")
    assert looks <= 3 * len(parts)
    assert not roots(torch.cat(parts)).any()
