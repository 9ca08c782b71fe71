"""The coder's own code length as the rate term: against brute force, and what it does to a layer."""

import math

import numpy as np
import pytest
import torch

from fewbits.assign import ecq, ecqx
from fewbits.assign._code import chances, surcharge, surcharged_levels
from fewbits.codec._reference import levels_chances
from fewbits.codec.coder import MIXING, layout
from fewbits.errors import RecipeError

GENERATOR = torch.Generator().manual_seed(3)


def sparse_levels(shape: tuple[int, ...]) -> torch.Tensor:
    """Rows and channels that differ in how much of them is zero."""
    keep = torch.rand(shape[0], 1, 1, 1, generator=GENERATOR) * torch.rand(1, shape[1], 1, 1, generator=GENERATOR)
    alive = torch.rand(shape, generator=GENERATOR) < keep
    return (torch.randint(-3, 4, shape, generator=GENERATOR) * alive).to(torch.int16)


def test_chances_are_what_the_coder_codes_with():
    """Their code length, plus that of signs and magnitudes, is the length of the stream."""
    levels = sparse_levels((24, 16, 3, 3)).clamp(0, 1)  # with one non-zero level there is nothing but zero flags
    q = chances(levels).double()
    told = torch.where(levels.reshape(-1) != 0, -q.log2(), -(1 - q).log2()).sum() / 8
    assert len(MIXING.encode(levels.numpy(), 0, 1)) == pytest.approx(float(told), abs=4)
    second = np.zeros(levels.numel(), np.uint16)
    levels_chances(levels.numpy().reshape(-1).data, second.data, *layout(tuple(levels.shape)))
    assert torch.equal(q, torch.from_numpy(second.astype(np.float64)) / 65536)


def test_surcharge_of_the_zero_flag():
    q = torch.rand(1000, generator=GENERATOR) * 0.9 + 0.05
    expected = []
    flags = [math.log2((1 - float(v)) / float(v)) for v in q]
    usual = sum(float(v) * b for v, b in zip(q, flags, strict=True)) / float(q.sum())
    for bits in flags:
        expected.append(0.3 * min(max(bits - usual, 0.0), 2.0))
    torch.testing.assert_close(surcharge(q, 0.3), torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert not surcharge(torch.full((9,), 0.25), 0.3).any()


def test_levels_by_brute_force():
    table = np.arange(-3, 4) * 0.5
    costs = np.array([0.3, np.inf, 0.2, 0.05, 0.1, 0.2, 0.4])
    x = torch.randn(400, generator=GENERATOR)
    extra = torch.randn(400, generator=GENERATOR) * 0.2
    cost = (x[:, None].double() - torch.from_numpy(table)) ** 2 + torch.from_numpy(costs)
    cost[:, [0, 1, 2, 4, 5, 6]] += extra[:, None]
    assert torch.equal(surcharged_levels(x, table, costs, extra), (cost.argmin(1) - 3).to(torch.int16))
    only_zero = np.where(np.arange(7) == 3, 0.1, np.inf)
    assert not surcharged_levels(x, table, only_zero, extra).any()


@pytest.mark.parametrize("make", [ecq, ecqx])
def test_fewer_bytes_at_the_same_distortion(make):
    """On weights whose rows and channels differ in scale, at several lambdas: the curve lies lower."""
    own = torch.Generator().manual_seed(0)  # a shared one would make the weights depend on the order of the tests
    rows, channels = torch.rand(48, 1, 1, 1, generator=own), torch.rand(1, 32, 1, 1, generator=own)
    weight = torch.randn(48, 32, 3, 3, generator=own) * rows * channels
    weights = {"w": weight}

    def points(rate: str) -> list[tuple[float, float]]:
        found = []
        for lam in (0.02, 0.05, 0.1, 0.2):
            assigner = make(lam=lam, rate=rate, refresh=1, zero_floor=0.5)
            state = assigner.init(weights)
            for _ in range(3):
                plan, state = assigner.update(weights, None, state)
            entry = plan.clustered["w"]
            error = float((entry.values() - weight).square().mean())
            found.append((math.log(error), math.log(len(MIXING.encode(entry.levels.numpy(), -7, 7)))))
        return sorted(found)

    plain, coded = points("entropy"), points("coder")
    gains = []
    for error, size in coded:
        if plain[0][0] <= error <= plain[-1][0]:
            gains.append(float(np.interp(error, *zip(*plain, strict=True))) - size)
    assert gains
    assert min(gains) > 0


def test_the_model_is_asked_again_after_so_many_updates():
    weights = {"w": torch.randn(16, 8, 3, 3, generator=GENERATOR)}
    assigner = ecq(lam=0.2, rate="coder", refresh=3)
    _, first = assigner.update(weights, None, assigner.init(weights))
    _, second = assigner.update(weights, None, first)
    last, third = assigner.update(weights, None, second)
    assert [s["w"].age for s in (first, second, third)] == [1, 2, 0]
    assert torch.equal(first["w"].chances, second["w"].chances)
    assert torch.equal(third["w"].chances, chances(last.clustered["w"].levels))


def test_without_an_entropy_term_nothing_changes():
    weights = {"w": torch.randn(16, 8, generator=GENERATOR), "empty": torch.zeros(0, 3)}
    for make in (ecq, ecqx):
        plans = []
        for rate in ("entropy", "coder"):
            assigner = make(lam=0.0, rate=rate)
            plans.append(assigner.update(weights, None, assigner.init(weights))[0])
        assert plans[0].equals(plans[1])
    assigner = ecq(lam=0.5, rate="coder")
    assert assigner.update(weights, None, assigner.init(weights))[0].clustered["empty"].levels.numel() == 0


def test_impossible_options():
    with pytest.raises(RecipeError, match="did you mean 'coder'"):
        ecq(rate="code")
    with pytest.raises(RecipeError, match="refresh must be"):
        ecq(rate="coder", refresh=0)
