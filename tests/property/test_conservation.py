"""Relevance is conserved: what starts at the class scores arrives at the inputs and the biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.measure.relevance import COMPOSITES, Epsilon, Rules
from fewbits.zoo import MLPGSC, VGG16, VGG16BN, DigitsNet, LeNet5, LeNet300100, MobileNetV2, ResNet, WideResNet
from networks import Residual, conservation_error, explain, randomised, sharp

# Every architecture of the zoo; the families that grow in depth and width at their smallest.
ZOO = {
    "digits-net": (DigitsNet, (1, 8, 8)),
    "lenet-300-100": (lambda: LeNet300100(inputs=16), (1, 4, 4)),
    "lenet-5": (lambda: LeNet5(size=16), (1, 16, 16)),
    "mlp-gsc": (lambda: MLPGSC(inputs=17), (17,)),
    "resnet": (lambda: ResNet(8), (3, 8, 8)),
    "wide-resnet": (lambda: WideResNet(10, 1, dropout=0.2), (3, 8, 8)),
    "residual": (Residual, (2, 6, 6)),
}
LARGE = {"vgg16": (VGG16, "alpha-beta"), "vgg16-bn": (VGG16BN, "plus"), "mobilenet-v2": (MobileNetV2, "plus")}


@pytest.fixture(scope="module", params=ZOO)
def network(request):
    torch.manual_seed(0)
    make, shape = ZOO[request.param]
    return randomised(make()), torch.randn(3, *shape, dtype=torch.float64)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_zoo_conserves_relevance(network, name, mode):
    model, x = network
    model.train(mode == "train")
    assert conservation_error(model, x, COMPOSITES[name]) < 1e-8


@pytest.mark.parametrize("name", LARGE)
def test_large_networks_conserve_relevance(name):
    make, composite = LARGE[name]
    torch.manual_seed(0)
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu").double()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    x = x if name != "mobilenet-v2" else x[:, :, ::4, ::4].contiguous()
    assert conservation_error(randomised(model).eval(), x, COMPOSITES[composite]) < 1e-8


@pytest.mark.parametrize("name", ["epsilon", "plus", "alpha-beta", "gamma"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_each_layer_hands_on_what_it_receives(name, mode):
    """Weights and bias of a layer share what arrives at its output, by the epsilon rule and by any other."""
    torch.manual_seed(1)
    model = randomised(Residual()).train(mode == "train")
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    found, start = explain(
        model, x, dataclasses.replace(sharp(COMPOSITES[name]), weight=None), inputs=True, account=True
    )
    assert set(found.outputs) == {"conv1", "conv2", "linear"}
    shares = {
        node: float(found.weights[f"{node}.weight"].sum()) + found.biases.get(node, 0.0) for node in found.outputs
    }
    missing = sum(found.outputs[node] - shares[node] for node in shares)
    assert missing == pytest.approx(sum(found.lost.values()), abs=1e-8)
    assert shares["linear"] == pytest.approx(float(start.sum()), rel=1e-8)
    if not any(found.lost.values()):
        assert shares == pytest.approx(found.outputs, rel=1e-8)


def test_zplus_loses_exactly_what_nobody_supports():
    """With the normalisation passed, outputs without positive contribution keep relevance: it is lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    model = randomised(model).eval()
    with torch.no_grad():
        model[0].weight[0] = -model[0].weight[0].abs()  # channel 0 never has support from bright pixels,
        model[0].bias[0] = -1.0
        model[1].weight[0] = -1.0  # and yet is active behind its normalisation
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    rules = dataclasses.replace(COMPOSITES["released"], first=None)
    assert conservation_error(model, x, rules) < 1e-10
    found, _ = explain(model, x, sharp(rules), inputs=True, account=True)
    lost = sum(found.lost.values())
    assert abs(lost) > 1e-3

    # The dense layer hands channel 0 its contributions to the target's score, and there they end.
    active = model[:3](x).flatten(1).detach()
    target = torch.arange(2)
    contributions = active * model[4].weight.detach()[target]
    assert lost == pytest.approx(float(contributions.view(2, 4, 4)[:, 0].sum()), rel=1e-9)


def test_flat_keeps_everything_and_gives_every_pixel_its_share():
    model = randomised(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    found, start = explain(model, x, COMPOSITES["released"], inputs=True, account=True)
    each = start.sum(1)[:, None, None].expand_as(x) / 6
    torch.testing.assert_close(found.inputs, each)


class Generated(nn.Module):
    """A network from a list of words."""

    def __init__(self, words: list[str], head: str, channels: int) -> None:
        super().__init__()
        self.words, self.head = words, head
        self.layers = nn.ModuleList()
        for word in words:
            pair = word in ("conv-bn", "residual", "in-place add")
            conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels if word == "depthwise" else 1)
            self.layers.append(nn.Sequential(conv, nn.BatchNorm2d(channels)) if pair else conv)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in words)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        self.twice = nn.Conv2d(channels, channels, 1)
        self.relu, self.eager_relu = nn.ReLU(), nn.ReLU(inplace=True)
        self.max, self.average, self.drop = nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1), nn.Dropout(0.4)
        self.first = None if head == "mean" else nn.LazyLinear(5)
        self.last = nn.Linear(channels if head == "mean" else 5, 3)

    def step(self, word: str, i: int, x: Tensor) -> Tensor:
        layer = self.layers[i]
        match word:
            case "conv" | "conv-bn" | "depthwise":
                return layer(x)
            case "bn":
                y = layer(x)  # used twice, so that the normalisation stands alone
                return self.norms[i](y) + y
            case "relu":
                return self.relu(x)
            case "eager relu":
                return self.eager_relu(layer(x))
            case "F.relu":
                return F.relu(layer(x), True)
            case "relu6":
                return F.hardtanh(layer(x), -0.1, 0.5, inplace=True)
            case "max":
                return self.max(x)
            case "F.max":
                return F.max_pool2d(x, 3, 1, 1)
            case "average":
                return self.average(x)
            case "residual":
                return x + layer(x)
            case "in-place add":
                y = layer(x)
                y += x
                return self.eager_relu(y)
            case "add twice":
                return layer(x) + x + x
            case "double":
                y = layer(x)
                return y + y
            case "cat":
                return self.narrow(torch.cat([x, layer(x)], dim=1))
            case "shared":
                return self.twice(F.relu(self.twice(x)))
            case "dropout":
                return self.drop(x)
            case "F.dropout":
                return layer(F.dropout(x, 0.3, self.training))
            case "scale":
                return 0.5 * layer(x)
            case "in-place scale":
                y = layer(x)
                y *= 2.0
                return y
            case "pad":
                return layer(F.pad(x, (1, 0, 1, 0)))
            case "crop":
                return layer(x)[:, :, 1:, :].contiguous()
        raise AssertionError(word)

    def forward(self, x: Tensor) -> Tensor:
        for i, word in enumerate(self.words):
            x = self.step(word, i, x)
        match self.head:
            case "mean":
                return self.last(x.mean([2, 3]))
            case "view":
                x = x.view(x.size(0), -1)
            case "reshape":
                x = x.reshape(x.shape[0], -1)
            case "torch.flatten":
                x = torch.flatten(x, 1)
        return self.last(F.dropout(F.relu(self.first(x)), 0.5, self.training))


WORDS = [
    *("conv", "conv-bn", "depthwise", "bn", "relu", "eager relu", "F.relu", "relu6", "max", "F.max", "average"),
    *(
        "residual",
        "in-place add",
        "add twice",
        "double",
        "cat",
        "shared",
        "dropout",
        "F.dropout",
        "scale",
        "in-place scale",
    ),
    *("pad", "crop"),
]


@settings(max_examples=150, derandomize=True)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
    head=st.sampled_from(["mean", "view", "reshape", "torch.flatten"]),
    channels=st.integers(1, 3),
    composite=st.sampled_from(list(COMPOSITES)),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_random_networks_conserve_relevance(words, head, channels, composite, training, seed):
    if composite == "released":
        words = ["conv", *words]  # the flat rule's share of an explicit padding is lost
    torch.manual_seed(seed)
    model = Generated(words, head, channels).double()
    x = torch.randn(3, channels, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        model(x)  # the lazy layer takes its shape
    model = randomised(model, seed).train(training)
    before = x.clone()
    assert conservation_error(model, x, COMPOSITES[composite]) < 1e-7
    torch.testing.assert_close(x, before, rtol=0, atol=0)


class Spectral(nn.Module):
    """Complex numbers between two layers."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.run, self.last = nn.Linear(8, 12), run, nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.run(F.relu(self.first(x))).flatten(1))


@pytest.mark.parametrize("composite", ["plus", "released"])
@pytest.mark.parametrize(
    "run",
    [
        lambda h: torch.fft.rfft(h).abs(),
        lambda h: torch.fft.irfft(torch.fft.rfft(h) * torch.linspace(1, 0, 7, dtype=h.dtype)),
        lambda h: torch.view_as_real(torch.fft.fft2(h.view(-1, 3, 4))),
        lambda h: torch.cat([torch.fft.rfft(h).real, torch.fft.rfft(h).imag], 1),
        lambda h: torch.complex(h[:, :6], h[:, 6:]).conj().abs(),
        lambda h: torch.stft(h, 4, 2, window=torch.ones(4, dtype=h.dtype), return_complex=True).abs(),
        lambda h: (torch.fft.rfft(h) * torch.polar(torch.ones(7), torch.linspace(0, 3, 7))).imag,
    ],
    ids=["magnitudes", "filter", "two dimensions", "parts", "complex", "short times", "phases"],
)
def test_spectra_conserve_relevance(run: Callable[[Tensor], Tensor], composite: str) -> None:
    torch.manual_seed(0)
    model, x = Spectral(run).double(), torch.randn(5, 8, dtype=torch.float64)
    model(x)  # the lazy layer takes its shape
    assert conservation_error(model.eval(), x, COMPOSITES[composite]) < 1e-9


def test_missing_relevance_is_noticed():
    """The measure of this file notices relevance that goes missing: here through a large stabiliser."""
    torch.manual_seed(0)
    model = randomised(Residual()).eval()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    found, start = explain(model, x, Rules(dense=Epsilon(10.0)), inputs=True, account=True)
    end = float(found.inputs.sum()) + sum(found.biases.values())
    assert abs(end - float(start.sum())) > 0.05 * float(start.abs().sum())
