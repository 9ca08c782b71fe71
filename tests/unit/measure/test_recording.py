"""Relevance taken from a training step that runs anyway equals relevance computed on its own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.attach import attach, background, fold
from fewbits.errors import UnsupportedError
from fewbits.measure import RelevanceScorer, TrainingStep
from fewbits.measure.relevance import COMPOSITES, Tape, propagate
from fewbits.measure.relevance._first import first_samples
from fewbits.task import start_relevance
from fewbits.weights import layers
from networks import Residual, plan_for, randomised, record, sharp


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture
def attached() -> nn.Module:
    torch.manual_seed(0)
    model = Residual()
    model.drop.p = 0.0  # so that a second forward pass computes the same
    attach(model, plan_for(model))
    return model


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 2, 6, 6, generator=generator), torch.arange(6) % 4


def scores_of(model: nn.Module, x: Tensor, y: Tensor, rules: str, **options) -> dict[str, Tensor]:
    """A training step's scores."""
    scorer = RelevanceScorer(model, COMPOSITES[rules], **options)
    with scorer.watch():
        logits = model(x)
    F.cross_entropy(logits, y).backward(retain_graph=scorer.keeps_graph)
    weights = background(model)
    return scorer.scores(TrainingStep(logits, (None, y), weights, {name: w.grad for name, w in weights.items()}))


@pytest.mark.parametrize("rules", COMPOSITES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_step_on_the_attached_model_equals_the_folded_network_by_itself(attached, batch, rules, training):
    x, y = batch
    attached.train(training)
    plain = copy.deepcopy(attached)
    fold(plain)
    found = scores_of(attached, x, y, rules, on="quantized")
    tape, logits = record(plain, x)
    expected = propagate(logits, start_relevance(logits, y) / len(x), COMPOSITES[rules], tape).weights
    assert set(found) == set(expected) == {"conv1.weight", "conv2.weight", "linear.weight"}
    for name in expected:
        assert expected[name].abs().max() > 0
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_batch_statistics_are_those_of_the_whole_batch_when_few_samples_count(attached, batch):
    x, y = batch
    attached.train()
    found = scores_of(attached, x, y, "plus", samples=2)
    tape, logits = record(attached, x)
    start = start_relevance(logits, y)
    start[2:] = 0  # the other samples take part in the statistics and in nothing else
    expected = propagate(logits, start / 2, COMPOSITES["plus"], tape, at=background(attached)).weights
    for name in expected:
        torch.testing.assert_close(found[name], expected[name].detach(), rtol=1e-4, atol=1e-6)


class Reshaping(nn.Module):
    """Reads the batch size off the input, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = F.max_pool2d(x, 1)
        return self.linear(x.view(x.size(0), -1) + 0.1)


def test_samples_equals_propagating_through_the_first_samples_alone():
    torch.manual_seed(0)
    model, x, y = Reshaping(), torch.randn(6, 1, 4, 4), torch.arange(6) % 3
    tape, logits = record(model, x)
    start, outputs = first_samples(tape, start_relevance(logits, y), logits, 2)
    found = propagate(outputs, start, COMPOSITES["plus"], tape, inputs=True)
    tape, logits = record(model, x[:2])
    expected = propagate(logits, start_relevance(logits, y[:2]), COMPOSITES["plus"], tape, inputs=True)
    torch.testing.assert_close(found.inputs, expected.inputs)
    torch.testing.assert_close(found.weights, expected.weights)


def test_a_look_at_the_first_samples_leaves_the_network_and_its_random_numbers_as_they_are():
    torch.manual_seed(0)
    model, x = Residual().train(), torch.randn(6, 2, 6, 6)
    tape, logits = record(model, x)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first_samples(tape, torch.ones_like(logits), logits, 2)
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(m.training for m in model.modules())


def test_hooks_are_gone_afterwards_and_after_a_failure(attached, batch):
    x, _ = batch
    tape = Tape(attached)
    assert hooks(attached) == 0
    with tape.watch():
        attached(x)
        assert hooks(attached) > 0
    assert hooks(attached) == 0
    with pytest.raises(RuntimeError), tape.watch():
        attached(x[:, :1])
    assert hooks(attached) == 0


def test_frozen_parameters_are_frozen_afterwards_and_have_relevance(batch):
    torch.manual_seed(0)
    model, (x, y) = Residual().eval(), batch
    tape, logits = record(model, x)
    expected = propagate(logits, start_relevance(logits, y), COMPOSITES["plus"], tape).weights
    model.requires_grad_(False)
    tape, logits = record(model, x)
    found = propagate(logits, start_relevance(logits, y), COMPOSITES["plus"], tape).weights
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    logits.sum().backward()
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_the_last_of_two_forward_passes_counts(attached, batch):
    x, y = batch
    attached.eval()
    tape = Tape(attached)
    with tape.watch():
        attached(torch.ones_like(x))
        logits = attached(x)
        start = start_relevance(logits, y)
        found = propagate(logits, start, COMPOSITES["plus"], tape).weights  # inside of the block, too
    tape, logits = record(attached, x)
    torch.testing.assert_close(found, propagate(logits, start, COMPOSITES["plus"], tape).weights, rtol=0, atol=0)


def test_without_a_graph_there_is_nothing_to_propagate(attached, batch):
    tape = Tape(attached)
    with tape.watch():
        logits = attached(batch[0])
    with pytest.raises(UnsupportedError, match="no autograd graph"):
        propagate(logits.detach(), torch.ones(6, 4), COMPOSITES["plus"], tape)
    with pytest.raises(UnsupportedError, match="do not depend on the inputs"):
        propagate(attached.linear.weight * 2, torch.ones(4, 54), COMPOSITES["plus"], tape)


def test_the_scorer_lets_go_of_activations(attached, batch):
    scorer = RelevanceScorer(attached, COMPOSITES["plus"])
    with scorer.watch():
        logits = attached(batch[0])
    scorer.scores(TrainingStep(logits, batch, background(attached), {}))
    assert not scorer._tape.sources
    assert not scorer._tape.values


class Overwriting(nn.Module):
    """Every way of writing over a value that relevance needs later."""

    def __init__(self, eager: bool) -> None:
        super().__init__()
        self.eager = eager
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.drop, self.identity = nn.Dropout(0.5), nn.Identity()
        self.relu, self.clip = nn.ReLU(inplace=eager), nn.Hardtanh(-0.2, 0.3, inplace=eager)
        self.linear = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x) + x
        u = self.conv2(y)
        if self.eager:
            u += y
        else:
            u = u + y
        y = u
        y = self.relu(self.identity(self.drop(self.conv3(y))))
        y = F.hardtanh(y + x, -0.2, 0.3, self.eager)
        y = self.clip(y + x)
        if self.eager:
            y *= 3.0
        else:
            y = y * 3.0
        z = torch.flatten(y, 1)
        return self.linear(F.relu_(z) if self.eager else F.relu(z))


def test_writing_in_place_changes_nothing():
    torch.manual_seed(0)
    eager, plain = Overwriting(True).double().eval(), Overwriting(False).double().eval()
    plain.load_state_dict(eager.state_dict())
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    results = []
    for model in (eager, plain):
        tape, logits = record(model, x.clone())
        results.append(
            propagate(logits, start_relevance(logits, torch.arange(3)), COMPOSITES["gamma"], tape, inputs=True)
        )
    torch.testing.assert_close(results[0].inputs, results[1].inputs, rtol=0, atol=0)
    torch.testing.assert_close(results[0].weights, results[1].weights, rtol=0, atol=0)


def test_what_a_layer_read_and_a_later_line_overwrites_is_named():
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            u = self.second(y)
            y += u
            return y

    model = Reading()
    tape, logits = record(model, torch.randn(2, 3))
    with pytest.raises(UnsupportedError, match="AddmmBackward0 in second read is overwritten in place"):
        propagate(logits, start_relevance(logits, torch.tensor([0, 1])), COMPOSITES["plus"], tape)


def test_the_input_may_be_overwritten():
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.relu(x))

    torch.manual_seed(0)
    model = Shifting().eval()
    x = torch.randn(5, 4)
    tape, logits = record(model, x.clone())
    found = propagate(logits, start_relevance(logits, torch.arange(5) % 2), COMPOSITES["plus"], tape, inputs=True)
    assert not found.inputs[x <= 0].any()
    assert found.inputs[x > 0].all()


def test_a_network_may_ask_for_gradients_of_its_inputs_itself():
    class Asking(nn.Module):
        """As transformers' networks of sound do in training."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, :4]
            x.requires_grad = True
            return self.linear(x)

    asking, x = Asking(), torch.randn(3, 4)
    found = []
    for model in (asking, asking.linear):
        tape, logits = record(model, x)
        start = start_relevance(logits, torch.arange(3) % 2)
        found.append(propagate(logits, start, COMPOSITES["plus"], tape, inputs=True).inputs)
    assert found[0].any()
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_functional_dropout_hands_on_what_it_did():
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 1, 3, bias=False), nn.Linear(1, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.dropout(self.conv(x), 0.5, self.training).mean([2, 3]))

    torch.manual_seed(0)
    model, x = Dropping().double().train(), torch.randn(2, 1, 4, 4, dtype=torch.float64)
    tape, logits = record(model, x)
    start = start_relevance(logits, torch.tensor([0, 1]))
    found = propagate(logits, start, COMPOSITES["epsilon"], tape, inputs=True)
    assert float(found.inputs.sum()) == pytest.approx(float(start.sum()))


def test_mixed_precision(batch):
    torch.manual_seed(0)
    model, (x, y) = Residual().eval(), batch
    tape = Tape(model)
    with tape.watch(), torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    found = propagate(logits, start_relevance(logits.float(), y), COMPOSITES["plus"], tape).weights
    tape, logits = record(model, x)
    expected = propagate(logits, start_relevance(logits, y), COMPOSITES["plus"], tape).weights
    for name in expected:
        assert found[name].dtype == torch.float32
        correlation = torch.corrcoef(torch.stack([found[name].flatten(), expected[name].flatten()]))[0, 1]
        assert correlation > 0.99


def test_a_layer_that_no_score_depends_on_has_relevance_zero():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dead, self.uncalled = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            return self.used(x)

    model = Spare()
    tape, logits = record(model, torch.randn(2, 3))
    found = propagate(logits, start_relevance(logits, torch.tensor([0, 1])), COMPOSITES["plus"], tape).weights
    assert list(found) == ["used.weight", "dead.weight", "uncalled.weight"]
    assert found["used.weight"].any()
    assert not found["dead.weight"].any()
    assert found["uncalled.weight"].shape == (5, 5)
    assert not found["uncalled.weight"].any()


def by_gradient(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """By the epsilon rule, without stabilisers, a network that is linear piece by piece has weight times gradient."""
    logits = model(x)
    logits.gather(1, torch.arange(len(x))[:, None]).sum().backward()
    return {f"{path}.weight": m.weight.detach() * m.weight.grad for path, m in layers(model).items()}


class Sequences(nn.Module):
    """A normalisation whose channels are not the outputs of the dense layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm, self.last = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.dense(x)).flatten(1))


class Beside(nn.Module):
    """A normalisation of what also goes elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.last((self.norm(y) + y).flatten(1))


@pytest.mark.parametrize(("make", "shape"), [(Sequences, (2, 3, 4)), (Beside, (2, 1, 4, 4))])
def test_a_normalisation_that_cannot_be_folded_is_a_layer_of_its_own(make, shape):
    torch.manual_seed(0)
    model, x = randomised(make()).eval(), torch.randn(*shape, dtype=torch.float64)
    tape, logits = record(model, x)
    start = start_relevance(logits, torch.tensor([0, 1]))
    found = propagate(logits, start, sharp(COMPOSITES["epsilon"]), tape)
    expected = by_gradient(model, x)
    assert found.weights.keys() == expected.keys()
    for name, r in expected.items():
        torch.testing.assert_close(found.weights[name], r, rtol=1e-8, atol=1e-10)
