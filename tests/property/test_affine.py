"""INT8 formulas against loops in plain Python, and what must hold for every range, number and weight."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import NonFiniteError, RecipeError
from fewbits.int8 import affine_grid as formulas
from fewbits.int8.quantizer import Quantizer, RangedQuantizer
from fewbits.plan import Affine

numbers = st.floats(-1e4, 1e4, width=32)
ranges = st.tuples(numbers, numbers).map(sorted)
many = st.lists(numbers, min_size=1, max_size=30)


def parameters(low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    return formulas.range_parameters(torch.tensor(low), torch.tensor(high))


def by_hand(x: float, scale: np.float32, zero_point: int) -> float:
    """One number through the definition, step by step in float32."""
    level = int(np.rint(np.float32(x) / scale)) + zero_point
    level = min(max(level, 0), 255)
    return float(np.float32(level - zero_point) * scale)


@given(ranges, many)
def test_fake_quantization_is_its_definition(ends, xs):
    scale, zero_point = parameters(*ends)
    found = formulas.fake_quantize(torch.tensor(xs), scale, zero_point)
    expected = [by_hand(x, np.float32(scale), int(zero_point)) for x in xs]
    assert found.tolist() == expected


@given(ranges)
def test_a_range_contains_zero_and_zero_is_a_level(ends):
    scale, zero_point = parameters(*ends)
    assert scale > 0
    assert float(zero_point) == int(zero_point)
    assert 0 <= zero_point <= 255
    assert formulas.fake_quantize(torch.zeros(3), scale, zero_point).tolist() == [0.0, 0.0, 0.0]
    lowest, highest = -float(zero_point) * float(scale), (255 - float(zero_point)) * float(scale)
    assert lowest <= 0 <= highest
    # The whole range is covered, up to the rounding of the zero point.
    assert lowest <= min(ends[0], 0) + 0.501 * float(scale)
    assert highest >= max(ends[1], 0) - 0.501 * float(scale)


@given(ranges, many)
def test_fake_quantization_is_monotone_idempotent_and_near(ends, xs):
    scale, zero_point = parameters(*ends)
    x = torch.tensor(sorted(xs))
    y = formulas.fake_quantize(x, scale, zero_point)
    assert (y[1:] >= y[:-1]).all()
    assert torch.equal(formulas.fake_quantize(y, scale, zero_point), y)
    inside = (x >= -zero_point * scale) & (x <= (255 - zero_point) * scale)
    off = (y - x).abs()[inside]
    assert (off <= 0.5 * scale * (1 + 1e-4) + 1e-6 * x.abs()[inside]).all()


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(2, 8))
def test_weights_go_to_the_nearest_level_of_their_channel(rows, bits):
    weight = torch.tensor(rows)
    scales = formulas.weight_scales(weight, bits)
    entry = Affine(formulas.to_levels(weight, scales, bits), scales, bits=bits)
    top = 2 ** (bits - 1) - 1
    for row, levels, scale in zip(rows, entry.levels.tolist(), scales.tolist(), strict=True):
        assert scale == pytest.approx(max(max(map(abs, row)) / top, formulas.SMALLEST), rel=1e-6)
        for value, level in zip(row, levels, strict=True):
            assert abs(level) <= top
            nearest = min(range(-top, top + 1), key=lambda k: abs(k * scale - value))
            assert abs(level * scale - value) <= abs(nearest * scale - value) * (1 + 1e-5) + 1e-12
    again = formulas.to_levels(entry.values(), formulas.weight_scales(entry.values(), bits), bits)
    assert torch.equal(again, entry.levels)


@given(st.floats(2**-20, 2**20, width=32), st.floats(-(2**20), 2**20, width=32), st.floats(2**-40, 2**10, width=32))
def test_every_bias_fits_its_accumulator(weight, bias, input_scale):
    scales = formulas.with_room_for(
        formulas.weight_scales(torch.tensor([[weight * 1e-12]])), torch.tensor([bias]), input_scale
    )
    assert abs(bias / (float(scales) * input_scale)) <= formulas.BIAS_LIMIT * (1 + 1e-5)


def test_the_axis_is_that_of_the_channels():
    weight = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    scales = formulas.weight_scales(weight, axis=1)
    assert scales.tolist() == pytest.approx([float(weight[:, c].abs().max()) / 127 for c in range(3)])
    entry = Affine(formulas.to_levels(weight, scales, axis=1), scales, axis=1)
    assert torch.equal(entry.values()[:, 2], entry.levels[:, 2].float() * scales[2])


def test_the_assigner_is_the_formulas_and_refuses_what_is_not_finite():
    assigner = formulas.affine()
    weights = {"w": torch.tensor([[1.0, -2.0], [0.5, 0.25]])}
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    assert plan.affine["w"].levels.tolist() == [[64, -127], [127, 64]]  # 63.5 and 63.5: ties to even
    with pytest.raises(NonFiniteError, match="w holds NaN"):
        assigner.init({"w": torch.tensor([math.nan])})
    with pytest.raises(RecipeError, match="2 to 8 bits"):
        formulas.affine(9)


def composed(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The quantizer from plain operations, with a rounding whose derivative is 1: an independent derivation."""

    def rounded(t: torch.Tensor) -> torch.Tensor:
        return t + (t.round() - t).detach()

    scale = (high.clamp(min=0) - low.clamp(max=0)) / 255
    zero_point = rounded(-low.clamp(max=0) / scale)
    level = (rounded(x / scale) + zero_point).clamp(0, 255)
    return (level - zero_point) * scale


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.floats(-3, -0.125, width=32), st.floats(0.125, 3, width=32))
def test_gradients_go_straight_through_and_to_the_ends_of_a_learned_range(seed, low, high):
    generator = torch.Generator().manual_seed(seed)
    x = (2 * torch.randn(200, generator=generator)).requires_grad_()
    weights = torch.randn(200, generator=generator)
    quantizer = RangedQuantizer()
    quantizer.low.data.fill_(low)
    quantizer.high.data.fill_(high)
    quantizer.learn()
    (quantizer(x) * weights).sum().backward()
    found = x.grad.clone(), quantizer.low.grad.clone(), quantizer.high.grad.clone()
    ends = torch.tensor(low, requires_grad=True), torch.tensor(high, requires_grad=True)
    y = x.detach().requires_grad_()
    (composed(y, *ends) * weights).sum().backward()
    assert torch.allclose(found[0], y.grad, rtol=1e-5)
    # The rounding of the zero point, half a level, is in this derivation's gradient of what is cut off.
    near = 0.51 / 255 * float(weights.abs().sum())
    assert float(found[1]) == pytest.approx(float(ends[0].grad), abs=near)
    assert float(found[2]) == pytest.approx(float(ends[1].grad), abs=near)


def test_a_range_follows_the_data_in_training_and_stays_in_evaluation():
    quantizer = RangedQuantizer()
    quantizer.start()
    for low, high in ((-1.0, 2.0), (-3.0, 4.0)):
        quantizer(torch.tensor([low, high]))
        quantizer(torch.tensor([low / 2, high / 2]))  # the second call of the same batch widens nothing
        quantizer.next_batch()
    quantizer.observing = False
    assert (float(quantizer.low), float(quantizer.high)) == (-2.0, 3.0)
    quantizer.eval()(torch.tensor([-100.0, 100.0]))
    assert (float(quantizer.low), float(quantizer.high)) == (-2.0, 3.0)
    quantizer.train()(torch.tensor([-102.0, 103.0]))
    assert float(quantizer.low) == pytest.approx(-3.0)
    assert float(quantizer.high) == pytest.approx(4.0)


def test_a_lower_end_at_zero_is_not_trained():
    quantizer = RangedQuantizer()
    quantizer.high.data.fill_(1.0)
    quantizer.learn()
    assert quantizer.learned
    assert not quantizer.low.requires_grad
    quantizer(torch.tensor([0.5, 2.0], requires_grad=True)).sum().backward()
    assert quantizer.low.grad is None
    assert quantizer.high.grad is not None


def test_frozen_is_what_the_ranged_one_computes():
    quantizer = RangedQuantizer().eval()
    quantizer.low.data.fill_(-0.7)
    quantizer.high.data.fill_(1.9)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    frozen = quantizer.frozen()
    assert isinstance(frozen, Quantizer)
    assert frozen.zero_point.dtype == torch.uint8
    assert torch.equal(frozen(x), quantizer(x))
