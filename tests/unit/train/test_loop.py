"""The training loop: schedules, order of batches, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fewbits.errors import DataError, NonFiniteError
from fewbits.recipe.training import Training
from fewbits.task import accuracy
from fewbits.train import distillation, fit, plain, pretrain
from fewbits.train.loop import Callback, endless, factor, optimizer_of, total_steps


def batches(count: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 5, generator=g), torch.randint(3, (8,), generator=g)) for _ in range(count)]


def test_training_learns(handwriting) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    loader = handwriting.loader("train", 64, shuffle=True)
    before = accuracy(model, handwriting.loader("validation"))
    pretrain(model, loader, Training(epochs=3, lr=1e-2), seed=0)
    assert accuracy(model, handwriting.loader("validation")) > max(80, before)


def test_fractions_of_epochs() -> None:
    assert total_steps(batches(10), Training(epochs=0.25)) == 2
    assert total_steps(batches(10), Training(epochs=0.001)) == 1
    assert total_steps(batches(10), Training(epochs=3)) == 30


def test_cosine_goes_from_one_to_nothing() -> None:
    values = [factor(Training(), done, 100) for done in range(101)]
    assert values[0] == 1
    assert values[50] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert values == sorted(values, reverse=True)
    assert factor(Training(schedule="constant"), 99, 100) == 1


@pytest.mark.parametrize("skip", [0, 1, 13, 30, 41])
def test_resumed_batches_are_those_of_an_uninterrupted_run(handwriting, skip: int) -> None:
    def stream(start: int, count: int) -> list[torch.Tensor]:
        source = endless(handwriting.loader("train", 64, shuffle=True, seed=3), start)
        return [next(source)[0] for _ in range(count)]

    whole = stream(0, 45)
    for a, b in zip(whole[skip:], stream(skip, 45 - skip), strict=True):
        assert torch.equal(a, b)


def test_beginning_an_epoch_again_draws_nothing_anew() -> None:
    """A plain loader draws a seed when an epoch begins: dropout behind it must see the same numbers after all."""
    loader = DataLoader(TensorDataset(torch.arange(20.0), torch.arange(20)), batch_size=4)
    torch.manual_seed(0)
    stream = endless(loader)
    for _ in range(2):
        next(stream)
    state = torch.get_rng_state()
    wanted = [next(stream)[0].tolist(), torch.rand(3).tolist()]
    torch.set_rng_state(state)
    resumed = endless(loader, 2)
    assert [next(resumed)[0].tolist(), torch.rand(3).tolist()] == wanted


def test_companion_sees_every_step() -> None:
    class Notes(Callback):
        def __init__(self) -> None:
            self.steps: list[tuple[int, int]] = []
            self.gradients = 0

        def before_update(self, outputs: torch.Tensor, batch: object) -> None:
            self.gradients += int(model.weight.grad is not None)

        def after_update(self, done: int, total: int, loss: float) -> None:
            self.steps.append((done, total))

    model, notes = nn.Linear(5, 3), Notes()
    settings = Training(epochs=2)
    fit(
        model,
        batches(),
        plain(),
        optimizer_of([{"params": list(model.parameters())}], settings),
        settings,
        callback=notes,
    )
    assert notes.steps == [(i, 8) for i in range(1, 9)]
    assert notes.gradients == 8


def test_errors_are_sentences() -> None:
    model = nn.Linear(5, 3)
    with pytest.raises(DataError, match="empty"):
        pretrain(model, [], Training(), seed=0)
    with pytest.raises(DataError, match="no length"):
        pretrain(model, iter(batches()), Training(), seed=0)
    with pytest.raises(DataError, match="class 7"):
        pretrain(model, [(torch.zeros(2, 5), torch.tensor([0, 7]))], Training(), seed=0)
    with pytest.raises(NonFiniteError, match="batch 1 of the training data holds infinite inputs"):
        pretrain(model, [(torch.full((2, 5), torch.inf), torch.tensor([0, 1]))], Training(), seed=0)
    with pytest.raises(NonFiniteError, match="learning rate"):
        pretrain(model, [(torch.full((2, 5), 1e30), torch.tensor([0, 1]))] * 9, Training(lr=1e10), seed=0)
    with pytest.raises(DataError, match="empty"):
        accuracy(model, [])


def test_accuracy_by_hand() -> None:
    model = nn.Identity()
    model.register_parameter("place", nn.Parameter(torch.zeros(1)))
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert accuracy(model, [(logits, torch.tensor([1, 0, 0]))]) == pytest.approx(200 / 3)


def test_distillation_by_hand() -> None:
    """(1 - a) CE + a T^2 sum p_t (log p_t - log p_s), written out."""
    torch.manual_seed(0)
    teacher, inputs = nn.Linear(4, 3), torch.randn(6, 4)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    t = 3.0
    p = (teacher(inputs) / t).softmax(1)
    q = (logits / t).softmax(1)
    soft = (p * (p.log() - q.log())).sum(1).mean() * t * t
    hard = -(logits.softmax(1)[range(6), targets]).log().mean()
    expected = 0.3 * hard + 0.7 * soft
    assert torch.allclose(distillation(teacher, 0.7, t)(logits, (inputs, targets)), expected, atol=1e-6)
    assert torch.allclose(plain()(logits, (inputs, targets)), hard, atol=1e-6)


def test_training_in_bfloat16_keeps_float32_weights_and_learns(handwriting) -> None:
    results = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        kinds = set()
        model[0].register_forward_hook(lambda module, args, output, kinds=kinds: kinds.add(output.dtype))
        loader = handwriting.loader("train", 64, shuffle=True)
        pretrain(model, loader, Training(epochs=3, lr=1e-2, precision=precision), seed=0)
        assert kinds == {getattr(torch, precision)}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        results.append((accuracy(model, handwriting.loader("validation")), model[3].weight.detach()))
    assert results[1][0] > 80
    assert not torch.equal(results[0][1], results[1][1])
    assert (results[0][1] - results[1][1]).norm() < 0.2 * results[0][1].norm()


@pytest.mark.parametrize("total", [1, 7, 100])
def test_the_schedule_is_a_cosine(total: int) -> None:
    for done in range(total + 2):
        angle = math.pi * min(done, total) / total
        assert factor(Training(schedule="cosine"), done, total) == pytest.approx((1 + math.cos(angle)) / 2)
        assert factor(Training(schedule="constant"), done, total) == 1.0


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_decay_is_that_of_the_optimizer_of_the_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    settings = Training(optimizer=name, lr=1e-2, weight_decay=0.5)
    ends = []
    for own in (True, False):
        weight = nn.Parameter(torch.tensor([3.0, -0.1]))
        group = {"params": [weight], "lr": 1e-2, "weight_decay": 0.5}
        optimizer = optimizer_of([group], settings) if own else kind([group])
        for step in range(5):
            weight.grad = torch.tensor([0.01 * step, -1.0])
            optimizer.step()
        ends.append(weight.detach().clone())
    assert torch.equal(*ends)
