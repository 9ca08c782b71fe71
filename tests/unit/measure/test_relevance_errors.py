"""What relevance refuses, and that the message says what and where."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.measure import RelevanceScorer, control, fisher, relevance, taylor
from fewbits.measure.relevance import COMPOSITES, AlphaBeta, Flat, Rules, ZPlus, rules_of
from fewbits.task import start_relevance
from networks import Residual

X, Y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1])


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Cube(nn.Module):
    """A layer of the user's own that looks inside of its data."""

    def forward(self, x: Tensor) -> Tensor:
        return x**3 if float(x.sum()) == float(x.sum()) else x


def test_an_unknown_operation_is_named_with_its_module_and_line():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(Sine()), nn.Linear(3, 2))
    with pytest.raises(
        UnsupportedError, match=r"SinBackward0 in 1\.0; .*operations=.*errors\.py:\d+: return torch\.sin"
    ):
        relevance(model, [(X, Y)])


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))
        y = torch.cat([x, x], 1).pow(2)
        return y / y.pow(2).sum(1, keepdim=True).sqrt()


def test_of_several_operations_of_a_module_the_line_is_that_of_the_one_without_a_rule():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Squares(), nn.Linear(6, 2))
    with pytest.raises(UnsupportedError, match=r"PowBackward0 in 1;.*errors\.py:\d+: y = torch\.cat"):
        relevance(model, [(X, Y)])


def test_an_unknown_operation_can_be_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Sine(), nn.Linear(3, 2))
    for key in (torch.sin, Sine, "torch.sin", "Sine"):
        found = relevance(model, [(X, Y)], operations={key: "elementwise"}, inputs=True)
        assert found.inputs.shape == X.shape
        assert found.weights["0.weight"].any()
    with pytest.raises(RecipeError, match="did you mean 'elementwise'"):
        relevance(model, [(X, Y)], operations={torch.sin: "elementwis"})


class Spectra(nn.Module):
    """What sound is turned into before any weight."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stft(x, 16, 8, window=torch.hann_window(16), return_complex=True).abs().log1p().flatten(1)


def test_what_is_computed_before_the_first_weight_needs_no_rule():
    torch.manual_seed(0)
    front, sound = Spectra(), torch.randn(3, 64)
    behind = nn.Sequential(nn.Linear(front(sound).shape[1], 5), nn.ReLU(), nn.Linear(5, 2))
    found = relevance(nn.Sequential(front, behind), [(sound, Y)]).weights
    for name, wanted in relevance(behind, [(front(sound), Y)]).weights.items():
        torch.testing.assert_close(found[f"1.{name}"], wanted)
    with pytest.raises(UnsupportedError, match=r"Log1PBackward0 in 0;"):
        relevance(nn.Sequential(front, behind), [(sound, Y)], inputs=True)


def test_an_own_layer_that_looks_inside_of_its_data():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Cube(), nn.Linear(3, 2))
    with pytest.raises(UnsupportedError, match="PowBackward0 in 1;"):
        relevance(model, [(X, Y)])
    assert relevance(model, [(X, Y)], operations={Cube: "elementwise"}).weights["0.weight"].any()


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode) for mode in ("circular", "reflect", "replicate")]
    + [nn.Conv2d(1, 1, 2, padding="same")],
    ids=["circular", "reflect", "replicate", "even same"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_padding_hands_relevance_to_where_it_took_values_from(conv):
    torch.manual_seed(0)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(16, 2, bias=False))
    conv.bias.data.zero_()
    found = relevance(model, [(torch.randn(1, 1, 4, 4), torch.tensor([0]))], rules="epsilon", inputs=True)
    assert float(found.inputs.sum()) == pytest.approx(float(found.weights["2.weight"].sum()), rel=1e-4)


@pytest.mark.parametrize("measure", [relevance, taylor, fisher], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 1, 2]), "class 2, but the network has 2 outputs"),
        (torch.tensor([0, -1, 1]), "class -1, but"),
        (torch.tensor([0, 1]), r"outputs of shape \(3, 2\).*shape \(2,\)"),
        (torch.eye(3)[:, :2], r"shape \(3, 2\).*needed"),
        (torch.tensor([0.0, 1.0, 1.0]), "class indices"),
    ],
    ids=["too large", "negative", "too few", "one-hot", "floating"],
)
def test_targets_that_do_not_fit(measure, targets, message):
    with pytest.raises(DataError, match=message):
        measure(nn.Sequential(nn.Linear(4, 2)), [(X, targets)])


@pytest.mark.parametrize("measure", [relevance, taylor, fisher], ids=lambda f: f.__name__)
@pytest.mark.parametrize("batches", [[], [(X[:0], Y[:0])]], ids=["none", "of no samples"])
def test_no_samples(measure, batches):
    with pytest.raises(DataError, match="at least one sample"):
        measure(nn.Sequential(nn.Linear(4, 2)), batches)


def test_targets_may_be_any_integers():
    model = nn.Sequential(nn.Linear(4, 2))
    for measure in (taylor, fisher):
        torch.testing.assert_close(measure(model, [(X, Y.int())]), measure(model, [(X, Y)]))
    small = relevance(model, [(X, Y.to(torch.uint8))]).weights
    torch.testing.assert_close(small, relevance(model, [(X, Y)]).weights)


def test_overflow_names_the_layer_nearest_to_the_output():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].bias.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match=r"relevance of 2\.weight is not finite"):
        relevance(model, [(X, Y)])
    inputs = X.clone()
    inputs[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"relevance of 2\.weight"):
        relevance(nn.Sequential(*model), [(inputs, Y)])


def test_options_that_do_not_exist():
    with pytest.raises(RecipeError, match="'alpha-beta'"):
        rules_of("alphabeta")
    with pytest.raises(RecipeError, match="did you mean 'score'"):
        start_relevance(torch.ones(1, 2), torch.tensor([0]), "scores")
    with pytest.raises(RecipeError, match=r"taylr.*did you mean 'taylor'"):
        control("taylr", 0)
    with pytest.raises(RecipeError, match="'background' or 'quantized'"):
        RelevanceScorer(Residual(), COMPOSITES["plus"], on="float")
    with pytest.raises(RecipeError, match="alpha - beta must be 1"):
        AlphaBeta(2, 2)
    with pytest.raises(RecipeError, match="no rule for weights"):
        Rules(weight=Flat())
    with pytest.raises(RecipeError, match="precision must be"):
        Rules(precision="float16")
    with pytest.raises(RecipeError, match="attention must be"):
        Rules(attention="whole")
    with pytest.raises(RecipeError, match="norm must be"):
        Rules(norm="folded")


def test_a_network_without_weights_has_relevance_of_its_inputs():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.flatten = nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            return self.flatten(x) * 2

    found = relevance(Bare(), [(X, Y)], rules=Rules(conv=ZPlus()), inputs=True)
    assert found.weights == {}
    torch.testing.assert_close(found.inputs, start_relevance(2 * X, Y))


def test_a_function_that_is_named_is_named_as_a_method_too():
    class Method(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin()

    torch.manual_seed(0)
    function = nn.Sequential(nn.Linear(4, 3), Sine(), nn.Linear(3, 2))
    method = nn.Sequential(function[0], Method(), function[2])
    expected = relevance(function, [(X, Y)], operations={torch.sin: "elementwise"}).weights
    for key in (torch.sin, "torch.sin"):
        found = relevance(method, [(X, Y)], operations={key: "elementwise"}).weights
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sin", "'sin' is no class of the network's modules, no function of torch"),
        ("torch.sinn", "no function 'torch.sinn'"),
        ("torch.nn", "no function 'torch.nn'"),
        ("sine", "did you mean 'Sine'"),
        ("SineBackward0", "'Sine' is no node of this network's autograd graph; did you mean 'Sin'"),
    ],
)
def test_a_name_that_is_none_of_an_operation(key, message):
    model = nn.Sequential(nn.Linear(4, 3), Sine(), nn.Linear(3, 2))
    with pytest.raises(RecipeError, match=message):
        relevance(model, [(X, Y)], operations={key: "elementwise"})


def test_a_step_between_two_values_by_a_number_is_their_sum() -> None:
    class Between(nn.Module):
        def __init__(self, lerp: bool) -> None:
            super().__init__()
            self.a, self.b, self.lerp = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False), lerp

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            return torch.lerp(a, b, 0.3) if self.lerp else 0.7 * a + 0.3 * b

    model, other = Between(lerp=True), Between(lerp=False)
    other.load_state_dict(model.state_dict())
    found, wanted = (relevance(net, [(X, Y)], rules="epsilon").weights for net in (model, other))
    assert set(found) == {"a.weight", "b.weight"}
    for name, scores in found.items():
        torch.testing.assert_close(scores, wanted[name])


@pytest.mark.parametrize(
    ("what", "over"),
    [
        ("Tanh", lambda x: torch.tanh(x).add_(1)),
        ("Split", lambda x: torch.cat([x.chunk(2, 1)[0].add_(1), x[:, :2]], 1)),
    ],
)
def test_what_is_written_over_before_its_gradient_is_needed(what: str, over: Callable[[Tensor], Tensor]) -> None:
    """Without relevance nothing needs what the hyperbolic tangent of the inputs gave."""

    class Over(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(over(1 * x))

    quick = {"train": {"epochs": 1}, "rounds": 1}
    fb.compress(Over(), [(X, Y)], recipe=quick | {"assign": {"method": "ecq", "lam": 0.01}})
    with pytest.raises(UnsupportedError, match=f"Over writes in place over what {what} gave") as caught:
        fb.compress(Over(), [(X, Y)], recipe=quick | {"assign": {"method": "ecqx", "lam": 0.01}})
    assert "\n" not in str(caught.value)
