"""What relevance refuses, and that the message says what and where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import DataError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.graph.traced import trace
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


class Standardised(nn.Linear):
    """A linear layer that computes with other weights than its own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)


def test_an_unknown_function_is_named_with_its_place():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(Sine()), nn.Linear(3, 2))
    with pytest.raises(UnsupportedError, match=r"'sin' at 'sin' \(in 1\.0: Sine\).*operations="):
        trace(model)


def test_an_unknown_operation_can_be_given_a_kind():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Sine(), nn.Linear(3, 2))
    found = relevance(model, [(X, Y)], operations={torch.sin: "pass"}, inputs=True)
    recast = nn.Sequential(model[0], nn.Tanh(), model[2])  # another element-wise function
    assert found.inputs.shape == X.shape
    assert found.weights.keys() == relevance(recast, [(X, Y)]).weights.keys()
    with pytest.raises(ValueError, match="pas"):
        trace(model, {torch.sin: "pas"})


def test_an_own_layer_can_be_given_a_kind():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), Cube(), nn.Linear(3, 2))
    with pytest.raises(UnsupportedError, match="Sequential"):
        trace(model)
    found = relevance(model, [(X, Y)], operations={Cube: "pass"}).weights
    assert found["0.weight"].any()


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.MultiheadAttention(4, 1), "MultiheadAttention"),
        (nn.LSTM(4, 4), "LSTM"),
        (nn.LayerNorm(4), "LayerNorm"),
        (nn.ConvTranspose1d(4, 4, 1), "ConvTranspose1d"),
        (nn.Softmax(1), "Softmax"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_unknown_layer_is_named_with_its_path(layer, name):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4))
            self.odd = layer

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return self.odd(x, x, x)[0] if name == "MultiheadAttention" else self.odd(x)

    with pytest.raises(UnsupportedError, match=rf"'{name}' at 'odd' \(in odd: {name}\)"):
        trace(Net())


def test_a_layer_that_computes_something_of_its_own_is_not_taken_for_its_base():
    with pytest.raises(UnsupportedError, match=r"'sub'|'linear'|'mean'"):
        trace(nn.Sequential(Standardised(4, 2)))


def test_a_subclass_that_computes_the_same_is_taken_for_its_base():
    class Named(nn.Linear):
        """A linear layer by another name."""

    assert trace(nn.Sequential(Named(4, 2))).weighted() == ["0"]


def test_control_flow_that_depends_on_data():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match=r"structure of Branching.*control flow"):
        trace(Branching())


def test_two_inputs_and_two_outputs():
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(UnsupportedError, match="Two has 2 inputs"):
        trace(Two())
    with pytest.raises(UnsupportedError, match="Pair has 1 inputs and returns a tuple"):
        trace(Pair())


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), r"^0: .*zero padding only, not 'circular'"),
        (nn.Conv2d(1, 1, 2, padding="same"), r"^0: 'same' padding of an even kernel"),
    ],
    ids=["circular", "even same"],
)
def test_paddings_without_a_rule(conv, message):
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(UnsupportedError, match=message):
        relevance(model, [(torch.ones(1, 1, 4, 4), torch.tensor([0]))])


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
    inputs[0, 0] = torch.nan
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
        RelevanceScorer(Residual(), trace(Residual()), COMPOSITES["plus"], on="float")
    with pytest.raises(RecipeError, match="alpha - beta must be 1"):
        AlphaBeta(2, 2)
    with pytest.raises(RecipeError, match="no rule for weights"):
        Rules(weight=Flat())
    with pytest.raises(RecipeError, match="precision must be"):
        Rules(precision="float16")
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
