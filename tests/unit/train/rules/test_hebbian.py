"""Hebbian rules against their formulas, written out as loops over positions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.train.rules._hebbian import instar, on_the_sphere, winners
from fewbits.train.rules._linear import channels_first, said
from fewbits.train.rules._soft_hebb import soft_hebb_direction, soft_hebb_step, soft_winners

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (7, 6)),
    "tokens": (lambda: nn.Linear(6, 5, bias=False), (3, 4, 6)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 6, 3, padding=1, groups=2), (2, 2, 5, 4)),
    "dilated": (lambda: nn.Conv2d(2, 4, 3, stride=2, dilation=2, bias=False), (2, 2, 8, 9)),
    "reflect": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 6)),
    "same": (lambda: nn.Conv2d(2, 4, (3, 5), padding="same"), (2, 2, 5, 6)),
}


def instar_by_surrogate(layer: nn.Module, inputs: Tensor, y: Tensor) -> Tensor:
    """The same as :func:`instar` by autograd, as the released code has it."""
    weight = layer.weight.detach().requires_grad_()
    with torch.enable_grad():
        u = channels_first(layer, torch.func.functional_call(layer, {"weight": weight}, (inputs,)))
        if layer.bias is not None:
            u = u - layer.bias.detach().reshape(1, u.shape[1], -1, 1)
        pseudo = u - 0.5 * weight.flatten(1).square().sum(1).reshape(1, u.shape[1], -1, 1)
        overwritten = y + pseudo - pseudo.detach()
        (gradient,) = torch.autograd.grad(-0.5 * overwritten.square().sum(), weight)
    return -gradient


@pytest.fixture(params=LAYERS)
def heard(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer in float64, what it is given, and what it says."""
    torch.manual_seed(0)
    make, shape = LAYERS[request.param]
    layer, inputs = make(), torch.randn(shape)
    with torch.no_grad():
        return layer, inputs, said(layer, layer(inputs))


def positions(layer: nn.Module, inputs: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(group, position, x) of everything that the layer's weights meet, one after the other."""
    if isinstance(layer, nn.Linear):
        for m, x in enumerate(inputs.reshape(-1, inputs.shape[-1])):
            yield 0, m, x
        return
    if isinstance(layer, nn.Conv1d):
        inputs = inputs.unsqueeze(2)
    size, stride, dilation = ((1,) * (2 - len(t)) + tuple(t) for t in (layer.kernel_size, layer.stride, layer.dilation))
    if layer.padding == "same" or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    else:
        rows, columns = (0,) * (2 - len(layer.padding)) + tuple(layer.padding)
        inputs = F.pad(inputs, (columns, columns, rows, rows))
    channels = inputs.shape[1] // layer.groups
    m = 0
    for sample in inputs:
        for i in range(0, sample.shape[1] - dilation[0] * (size[0] - 1), stride[0]):
            for j in range(0, sample.shape[2] - dilation[1] * (size[1] - 1), stride[1]):
                patch = sample[:, i :: dilation[0], j :: dilation[1]][:, : size[0], : size[1]]
                for group in range(layer.groups):
                    yield group, m, patch[group * channels : (group + 1) * channels].flatten()
                m += 1


def by_position(layer: nn.Module, values: Tensor) -> Tensor:
    """``[groups, channels of a group, positions]`` of all samples."""
    return values.permute(1, 2, 0, 3).flatten(2)


def test_what_a_layer_says_is_its_weights_times_patches(heard: tuple[nn.Module, Tensor, Tensor]) -> None:
    layer, inputs, u = heard
    rows = layer.weight.flatten(1).unflatten(0, (u.shape[1], -1))
    for group, m, x in positions(layer, inputs):
        torch.testing.assert_close(by_position(layer, u)[group, :, m], rows[group] @ x)


def test_instar_is_its_formula_and_the_surrogate(heard: tuple[nn.Module, Tensor, Tensor]) -> None:
    layer, inputs, u = heard
    y = winners(u)
    rows = layer.weight.detach().flatten(1).unflatten(0, (u.shape[1], -1))
    expected = torch.zeros_like(rows)
    for group, _, x in positions(layer, inputs):
        says = rows[group] @ x
        best = int(says.argmax())
        if says[best] > 0:
            expected[group, best] += x - rows[group, best]
    torch.testing.assert_close(instar(layer, inputs, y), expected.reshape(layer.weight.shape), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(instar_by_surrogate(layer, inputs, y), instar(layer, inputs, y), atol=1e-5, rtol=1e-5)


def test_several_winners() -> None:
    u = torch.tensor([[[[3.0], [1.0], [2.0], [-1.0]]]])
    assert winners(u, 2).flatten().tolist() == [1, 0, 1, 0]
    assert winners(u, 9).flatten().tolist() == [1, 1, 1, 0], "who says nothing positive never wins"
    assert winners(-u.abs()).sum() == 0


def test_soft_hebb_is_its_formula(heard: tuple[nn.Module, Tensor, Tensor]) -> None:
    layer, inputs, u = heard
    rows = layer.weight.detach().flatten(1).unflatten(0, (u.shape[1], -1))
    expected = torch.zeros_like(rows)
    for group, _, x in positions(layer, inputs):
        says = rows[group] @ x
        y = torch.exp(says / 0.5) / torch.exp(says / 0.5).sum()
        for k in range(len(says)):
            sign = 1 if k == int(says.argmax()) else -1
            expected[group, k] += sign * y[k] * (x - says[k] * rows[group, k])
    found = soft_hebb_direction(layer, inputs, u, 0.5)
    torch.testing.assert_close(found, expected.reshape(layer.weight.shape), atol=1e-5, rtol=1e-5)
    step = soft_hebb_step(layer.weight.detach(), found, 0.3)
    for w, d, s in zip(layer.weight.detach(), found, step, strict=True):
        torch.testing.assert_close(s, 0.3 * abs(float(w.norm()) - 1) ** 0.5 * d / found.abs().max())


def test_hard_competition_is_the_limit_of_soft_one() -> None:
    u = torch.randn(3, 1, 5, 4).abs()
    torch.testing.assert_close(soft_winners(u, 1e-4), winners(u))


def test_lengths_are_one_on_the_sphere() -> None:
    weight = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(on_the_sphere(weight).flatten(1).norm(dim=1), torch.ones(4))
    assert on_the_sphere(torch.zeros(2, 3)).abs().sum() == 0
