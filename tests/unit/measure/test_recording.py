"""Relevance taken from a training step that runs anyway equals relevance computed on its own."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.attach import attach, background, fold
from fewbits.errors import UnsupportedError
from fewbits.graph.traced import trace
from fewbits.measure import RelevanceScorer, TrainingStep
from fewbits.measure.relevance import COMPOSITES, ActivationTape, propagate
from fewbits.task import start_relevance
from networks import Residual, plan_for, randomised, record


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
    scorer = RelevanceScorer(model, trace(model), COMPOSITES[rules], **options)
    with scorer.watch():
        logits = model(x)
    F.cross_entropy(logits, y).backward()
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
    recording, logits = record(plain, x)
    expected = propagate(recording, start_relevance(logits, y) / len(x), COMPOSITES[rules]).weights
    assert set(found) == set(expected) == {"conv1.weight", "conv2.weight", "linear.weight"}
    for name in expected:
        assert expected[name].abs().max() > 0
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_batch_statistics_are_those_of_the_whole_batch_when_few_samples_count(attached, batch):
    x, y = batch
    attached.train()
    found = scores_of(attached, x, y, "plus", samples=2)
    recording, logits = record(attached, x)
    start = start_relevance(logits, y)
    start[2:] = 0  # the other samples take part in the statistics and in nothing else
    expected = propagate(recording, start / 2, COMPOSITES["plus"], at=background(attached)).weights
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
    few, logits = record(model, x, samples=2)
    alone, _ = record(model, x[:2])
    start = start_relevance(logits[:2], y[:2])
    found = propagate(few, start, COMPOSITES["plus"], inputs=True)
    expected = propagate(alone, start, COMPOSITES["plus"], inputs=True)
    torch.testing.assert_close(found.inputs, expected.inputs)
    torch.testing.assert_close(found.weights, expected.weights)


def test_hooks_are_gone_afterwards_and_after_a_failure(attached, batch):
    x, _ = batch
    recording = ActivationTape(trace(attached), attached)
    assert hooks(attached) == 0
    with recording.watch():
        attached(x)
        assert hooks(attached) > 0
    assert hooks(attached) == 0
    with pytest.raises(RuntimeError), recording.watch():
        attached(x[:, :1])
    assert hooks(attached) == 0


def test_hooks_are_gone_when_the_lens_is_of_another_network(attached):
    recording = ActivationTape(trace(nn.Sequential(nn.ReLU(), nn.Linear(2, 2))), attached)
    with pytest.raises(AttributeError), recording.watch():
        pass
    assert hooks(attached) == 0
    partly = nn.Sequential(nn.ReLU())
    with pytest.raises(AttributeError), ActivationTape(recording.traced, partly).watch():
        pass
    assert hooks(partly) == 0


def test_the_last_of_two_forward_passes_counts(attached, batch):
    x, y = batch
    attached.eval()
    recording = ActivationTape(trace(attached), attached)
    with recording.watch(), torch.no_grad():
        attached(torch.ones_like(x))
        logits = attached(x)
        start = start_relevance(logits, y)
        found = propagate(recording, start, COMPOSITES["plus"]).weights  # inside of the block, too
    once, _ = record(attached, x)
    torch.testing.assert_close(found, propagate(once, start, COMPOSITES["plus"]).weights, rtol=0, atol=0)


def test_without_a_forward_pass_there_is_nothing_to_propagate(attached):
    recording = ActivationTape(trace(attached), attached)
    with pytest.raises(UnsupportedError, match="no forward pass"):
        propagate(recording, torch.ones(1, 4), COMPOSITES["plus"])


def test_the_scorer_lets_go_of_activations(attached, batch):
    scorer = RelevanceScorer(attached, trace(attached), COMPOSITES["plus"])
    with scorer.watch():
        logits = attached(batch[0])
    scorer.scores(TrainingStep(logits, batch, background(attached), {}))
    assert not scorer._recording._recorded


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
            y += u
        else:
            y = y + u
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
        recording, logits = record(model, x.clone())
        results.append(propagate(recording, start_relevance(logits, torch.arange(3)), COMPOSITES["gamma"], inputs=True))
    torch.testing.assert_close(results[0].inputs, results[1].inputs, rtol=0, atol=0)
    torch.testing.assert_close(results[0].weights, results[1].weights, rtol=0, atol=0)


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
    recording, _ = record(model, x.clone())
    torch.testing.assert_close(recording[recording.traced.input], x, rtol=0, atol=0)


def test_an_overwrite_behind_the_graph_is_noticed(attached, batch):
    attached.eval()
    recording, logits = record(attached, batch[0])
    linear = next(n for n in recording.traced.graph.nodes if n.target == "linear")
    recording._recorded[linear].add_(1.0)
    with pytest.raises(UnsupportedError, match="'linear' is overwritten"):
        propagate(recording, start_relevance(logits, batch[1]), COMPOSITES["plus"])


def test_functional_dropout_that_no_layer_sees_is_refused_in_training_only():
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 1, 3), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.dropout(self.conv(x), 0.5, self.training).mean([2, 3]))

    model, x = Dropping(), torch.randn(2, 1, 4, 4)
    recording, logits = record(model.eval(), x)
    propagate(recording, start_relevance(logits, torch.tensor([0, 1])), COMPOSITES["plus"])
    recording, logits = record(model.train(), x)
    with pytest.raises(UnsupportedError, match=r"functional dropout 'dropout'.*nn\.Dropout"):
        propagate(recording, start_relevance(logits, torch.tensor([0, 1])), COMPOSITES["plus"])


def test_an_addition_in_place_is_told_from_one_that_is_not():
    assert sum(n.target is operator.iadd for n in trace(Residual()).graph.nodes) == 1


def test_mixed_precision(batch):
    torch.manual_seed(0)
    model, (x, y) = Residual().eval(), batch
    recording = ActivationTape(trace(model), model)
    with recording.watch(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    found = propagate(recording, start_relevance(logits.float(), y), COMPOSITES["plus"]).weights
    full, logits = record(model, x)
    expected = propagate(full, start_relevance(logits, y), COMPOSITES["plus"]).weights
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
    recording, logits = record(model, torch.randn(2, 3))
    found = propagate(recording, start_relevance(logits, torch.tensor([0, 1])), COMPOSITES["plus"]).weights
    assert list(found) == ["used.weight", "dead.weight", "uncalled.weight"]
    assert found["used.weight"].any()
    assert not found["dead.weight"].any()
    assert found["uncalled.weight"].shape == (5, 5)
    assert not found["uncalled.weight"].any()


def test_normalisation_behind_a_dense_layer_on_sequences_is_passed():
    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.norm, self.last = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.dense(x)).flatten(1))

    torch.manual_seed(0)
    model = randomised(Sequences()).float().eval()
    recording, logits = record(model, torch.randn(2, 3, 4))
    start = start_relevance(logits, torch.tensor([0, 1]))
    found = propagate(recording, start, COMPOSITES["plus"], inputs=True)
    passed = propagate(recording, start, COMPOSITES["released"], inputs=True)
    torch.testing.assert_close(found.weights, passed.weights)


def test_a_normalisation_is_not_folded_into_a_layer_whose_output_goes_elsewhere_too():
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.last((self.norm(y) + y).flatten(1))

    torch.manual_seed(0)
    model = randomised(Beside()).float().eval()
    recording, logits = record(model, torch.randn(2, 1, 4, 4))
    start = start_relevance(logits, torch.tensor([0, 1]))
    found = propagate(recording, start, COMPOSITES["plus"])
    passed = propagate(recording, start, COMPOSITES["released"])
    torch.testing.assert_close(found.weights, passed.weights)
