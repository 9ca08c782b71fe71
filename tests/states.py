"""What two records of assigners have in common, for tests."""

from __future__ import annotations

from torch import Tensor, equal

from fewbits.assign import LayerState


def assert_same(mine: object, other: object) -> None:
    """Records of one type whose fields have the same values, down to the last bit of a tensor."""
    assert type(mine) is type(other)
    if isinstance(mine, LayerState) and isinstance(other, LayerState):
        for field, value in vars(mine).items():
            assert_same(value, vars(other)[field])
    elif isinstance(mine, Tensor) and isinstance(other, Tensor):
        assert equal(mine, other)
    else:
        assert mine == other
