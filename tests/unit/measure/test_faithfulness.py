"""Attributions against captum and closed forms, and curves of pixel flipping against flipping one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.errors import DataError, UnsupportedError
from fewbits.measure.attribution import ATTRIBUTIONS, grad_cam, gradient_x_input, integrated_gradients, lrp
from fewbits.measure.flipping import SHARES, FlippingCurve, blank, flipping_curve


class Net(nn.Module):
    """Convolutions with a pooling as a function, behind a block whose sum no module of its own makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, padding=1))
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.adaptive_avg_pool2d(F.relu(self.block(F.softplus(self.first(x)))), 1).flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def some(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator).double(), torch.arange(n) % 4


def test_integrated_gradients_are_those_of_captum(net: Net) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum, the oracle for attributions, is not installed")
    x, y = some()
    theirs = captum.IntegratedGradients(net).attribute(x, blank(x).expand_as(x), target=y, n_steps=24)
    torch.testing.assert_close(integrated_gradients(net, x, y, blank(x)), theirs.sum(1), rtol=1e-6, atol=1e-9)
    theirs = captum.InputXGradient(net).attribute(x.clone().requires_grad_(), target=y).detach()
    torch.testing.assert_close(gradient_x_input(net, x, y), theirs.sum(1))


def test_grad_cam_is_that_of_captum(net: Net) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum, the oracle for attributions, is not installed")
    x, y = some()
    theirs = captum.LayerGradCam(net, net.block).attribute(x, target=y, relu_attributions=True)
    theirs = captum.LayerAttribution.interpolate(theirs, (8, 8), "bilinear").detach()[:, 0]
    found = grad_cam(net, x, y)
    torch.testing.assert_close(found, theirs)
    assert float(found.max()) > 0


def test_a_linear_network_has_one_answer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4, bias=False)).double()
    x, y = some()
    expected = (x * net[1].weight[y].view_as(x)).sum(1).detach()
    torch.testing.assert_close(gradient_x_input(net, x, y), expected)
    torch.testing.assert_close(integrated_gradients(net, x, y, torch.zeros(())), expected)
    torch.testing.assert_close(lrp(net, x, y, rules="epsilon"), expected.float(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"Grad-CAM needs a module that gives maps.*Sequential has none"):
        grad_cam(net, x, y)


def test_integrated_gradients_add_up_to_the_difference(net: Net) -> None:
    x, y = some()
    found = integrated_gradients(net, x, y, blank(x), steps=200).sum((1, 2))
    with torch.no_grad():
        both = net(x).gather(1, y[:, None])[:, 0], net(blank(x).expand_as(x)).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(found, both[0] - both[1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_samples_are_apart_and_the_network_stays_as_it_was(net: Net, name: str) -> None:
    x, y = some()
    net.float().train()
    whole = ATTRIBUTIONS[name](net, x.float(), y, blank(x.float()))
    assert whole.shape == (5, 8, 8)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    if name != "random":
        alone = ATTRIBUTIONS[name](net, x[3:4].float(), y[3:4], blank(x.float()))
        torch.testing.assert_close(alone, whole[3:4], rtol=1e-4, atol=1e-6)


def test_a_curve_is_that_of_flipping_one_by_one(net: Net) -> None:
    x, y = some(3)
    heat = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2)).round(decimals=1)  # some are equal
    grey = blank(x)
    shares = [0.0, 0.1, 0.5, 1.0]
    expected = []
    for share in shares:
        total = 0.0
        for image, target, own in zip(x, y, heat, strict=True):
            flipped = image.clone()
            for place in sorted(range(64), key=lambda i: -float(own.flatten()[i]))[: round(64 * share)]:
                flipped[:, place // 8, place % 8] = grey[0, :, 0, 0]
            with torch.no_grad():
                total += float(net(flipped[None]).softmax(1)[0, target]) / 3
        expected.append(total)
    found = flipping_curve(net, x, y, heat, grey, shares)
    assert found.scores == pytest.approx(expected)
    assert found.shares == tuple(shares)


def test_pixels_that_matter_are_found(net: Net) -> None:
    """Of a network that sees one corner only, good maps fall at once and random ones do not."""
    corner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).double()
    keep = torch.zeros(4, 3, 8, 8)
    keep[:, :, :2, :2] = 1
    with torch.no_grad():
        corner[1].weight.mul_(keep.flatten(1)).mul_(30)
    x, _ = some(5)
    y = corner(x).argmax(1)
    over = {
        name: flipping_curve(corner, x, y, ATTRIBUTIONS[name](corner, x, y, blank(x)), blank(x)).over
        for name in ("LRP", "Integrated Gradients", "gradient x input", "random")
    }
    assert min(over["LRP"], over["Integrated Gradients"], over["gradient x input"]) > over["random"] + 0.05


@given(st.lists(st.floats(0, 1), min_size=17, max_size=17))
@settings(max_examples=50, deadline=None)
def test_areas_are_those_of_a_fine_grid(scores: list[float]) -> None:
    import numpy as np

    curve = FlippingCurve(SHARES, tuple(scores))
    points = (np.arange(200_000) + 0.5) / 200_000
    assert curve.under == pytest.approx(np.interp(points, SHARES, scores).mean(), abs=1e-6)
    assert curve.under + curve.over == pytest.approx(scores[0])


def test_mistakes_have_sentences(net: Net) -> None:
    x, y = some()
    with pytest.raises(DataError, match=r"without channels, \[5, 8, 8\], got \[5, 4, 4\]"):
        flipping_curve(net, x, y, torch.zeros(5, 4, 4), blank(x))
    with pytest.raises(DataError, match="is finite"):
        flipping_curve(net, x, y, torch.full((5, 8, 8), torch.nan), blank(x))
    with pytest.raises(DataError, match="5 images, and there are 2 classes"):
        gradient_x_input(net, x, y[:2])
