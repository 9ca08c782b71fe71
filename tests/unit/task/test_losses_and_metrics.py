"""Losses, metrics and starts of relevance, derived a second way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.task import Batch, Task, task_of

torch.manual_seed(0)
X = torch.zeros(6, 1)


def value(name: str, outputs: Tensor, targets: Tensor, **options: object) -> float:
    task = task_of(name, options)
    return task.value(task.tally(outputs, Batch(X, targets)))


def test_binary_by_hand() -> None:
    z, y = torch.randn(6), torch.tensor([0, 1, 1, 0, 1, 0])
    task = task_of("binary")
    p = [1 / (1 + math.exp(-float(v))) for v in z]
    wanted = -sum(math.log(q if t else 1 - q) for q, t in zip(p, y.tolist(), strict=True)) / 6
    for outputs in (z, z.unsqueeze(1)):
        for targets in (y, y.unsqueeze(1).float(), y.bool()):
            task.check(outputs, Batch(X, targets))
            assert float(task.loss(outputs, Batch(X, targets))) == pytest.approx(wanted, rel=1e-5)
            right = sum((float(v) > 0) == bool(t) for v, t in zip(z, y, strict=True))
            assert value("binary", outputs, targets) == pytest.approx(100 * right / 6)
            start = task.relevance_start(outputs, Batch(X, targets), "score").flatten()
            assert torch.allclose(start, torch.where(y == 1, z, -z))


def test_binary_imitation_is_the_divergence_of_two_coins() -> None:
    a, b = torch.randn(6), torch.randn(6)
    p, q = (torch.distributions.Bernoulli(logits=x / 3) for x in (b, a))
    wanted = torch.distributions.kl_divergence(p, q).mean() * 9
    assert float(task_of("binary").imitation(a, b, 3.0)) == pytest.approx(float(wanted), rel=1e-4)


def test_segmentation_imitation_is_the_divergence_at_each_place() -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    p, q = (torch.distributions.Categorical(logits=x.movedim(1, -1) / 2) for x in (b, a))
    wanted = torch.distributions.kl_divergence(p, q).mean() * 4
    assert float(task_of("segmentation").imitation(a, b, 2.0)) == pytest.approx(float(wanted), rel=1e-4)


def test_multi_label_f1_counts_every_label() -> None:
    z, y = torch.randn(6, 4), torch.randint(2, (6, 4))
    hits = found = there = 0
    for i in range(6):
        for j in range(4):
            hits += bool(z[i, j] > 0) and bool(y[i, j])
            found += bool(z[i, j] > 0)
            there += bool(y[i, j])
    assert value("multi-label", z, y) == pytest.approx(100 * 2 * hits / (found + there))
    assert value("multi-label", -torch.ones(6, 4), torch.zeros(6, 4)) == 0.0


def test_mean_intersection_over_union_by_hand() -> None:
    z, y = torch.randn(2, 5, 4, 4), torch.randint(4, (2, 4, 4))  # class 4 is nowhere
    z[:, 4] = -9
    y[0, 0] = 255
    found, counted = z.argmax(1), y != 255
    shares = []
    for k in range(5):
        both = int(((found == k) & (y == k) & counted).sum())
        either = int((((found == k) | (y == k)) & counted).sum())
        if either:
            shares.append(both / either)
    assert value("segmentation", z, y, ignore_index=255) == pytest.approx(100 * sum(shares) / len(shares))


def test_an_uncounted_class_has_a_way_out() -> None:
    z, y = torch.randn(2, 5, 4, 4), torch.full((2, 4, 4), 255)
    with pytest.raises(DataError, match=r"class 255.*ignore_index"):
        task_of("segmentation").check(z, Batch(X, y))


@pytest.mark.parametrize(("name", "shape"), [("segmentation", (2, 5, 4, 4)), ("tokens", (2, 4, 5))])
def test_a_batch_without_a_place_that_counts_has_no_loss_and_ends_nothing(name: str, shape: tuple[int, ...]) -> None:
    """As a crop of a picture may be, or a text of which only an answer counts."""
    z = torch.randn(shape, requires_grad=True)
    y = torch.full((2, 4, 4) if name == "segmentation" else (2, 4), 255)
    task, nothing = task_of(name, {"ignore_index": 255}), Batch(X, y)
    task.check(z, nothing)
    loss = task.loss(z, nothing)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert z.grad is not None
    assert not z.grad.any()
    with pytest.raises(DataError, match="every target is 255"):
        task.value(task.tally(z.detach(), nothing).double())
    some = Batch(X, y.clone().flatten().scatter(0, torch.tensor([0, 5]), 1).reshape(y.shape))
    both = task.tally(z.detach(), nothing).double() + task.tally(z.detach(), some).double()
    assert task.value(both) == task.value(task.tally(z.detach(), some).double())


@pytest.mark.parametrize("shift", [False, True])
def test_tokens_by_hand(shift: bool) -> None:
    z, y = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    y[0, 2] = -100
    terms = []
    for n in range(3):
        for t in range(5):
            target = t + 1 if shift else t
            if target < 5 and int(y[n, target]) != -100:
                terms.append(-float(z[n, t].log_softmax(0)[y[n, target]]))
    task = task_of("tokens", {"shift": shift})
    wanted = sum(terms) / len(terms)
    assert float(task.loss(z, Batch(X, y))) == pytest.approx(wanted, rel=1e-5)
    assert value("tokens", z, y, shift=shift) == pytest.approx(wanted, rel=1e-5)
    start = task.relevance_start(z, Batch(X, y), "ones")
    assert float(start.sum()) == pytest.approx(3.0, rel=1e-5), "a sample's relevance is a mean over its tokens"
    assert int((start != 0).sum()) == len(terms)


def test_targets_that_are_the_inputs_are_meant_to_be_shifted() -> None:
    ids = torch.randint(7, (3, 5))
    z = torch.randn(3, 5, 7)
    with pytest.raises(DataError, match="shift"):
        task_of("tokens").check(z, Batch(ids, ids))
    task_of("tokens", {"shift": True}).check(z, Batch(ids, ids))
    task_of("tokens").check(z, Batch(ids, (ids + 1) % 7))


def test_soft_labels_of_one_class_are_classification() -> None:
    z, y = torch.randn(6, 4), torch.randint(4, (6,))
    soft, hard = task_of("soft-labels"), task_of("classification")
    chances = F.one_hot(y, 4).float()
    assert torch.allclose(soft.loss(z, Batch(X, chances)), hard.loss(z, Batch(X, y)))
    for start in ("score", "probability", "ones"):
        assert torch.allclose(
            soft.relevance_start(z, Batch(X, chances), start), hard.relevance_start(z, Batch(X, y), start)
        )
    with pytest.raises(DataError, match="add up to 1"):
        soft.check(z, Batch(X, chances * 2))


def test_a_loss_of_ones_own_is_looked_at() -> None:
    z = torch.randn(6, 2)
    with pytest.raises(DataError, match="one number"):
        Task(loss=lambda outputs, targets: outputs - targets).loss(z, Batch(X, z))
    with pytest.raises(DataError, match="None"):
        Task(loss=lambda outputs, targets: None).loss(z, Batch(X, z))  # type: ignore[arg-type, return-value]
    with pytest.raises(RecipeError, match="scale"):
        Task(loss=F.mse_loss, metric=F.l1_loss)
    with pytest.raises(RecipeError, match="label_smoothing"):
        Task(loss=F.mse_loss).loss(z, Batch(X, z), label_smoothing=0.1)


def test_outputs_of_many_kinds_have_one_that_is_read() -> None:
    z, other = torch.randn(2, 3), torch.randn(2, 5)
    task = task_of("classification")
    for returned in (z, (z, other), [z, other], {"logits": z, "other": other}, {"aux": other, "out": z}):
        assert task.answer(returned) is z
    own = Task(loss=F.mse_loss, outputs="boxes")
    assert own.answer({"boxes": z, "scores": other}) is z
    with pytest.raises(DataError, match="boxes, scores"):
        Task(loss=F.mse_loss, outputs="bxs").answer({"boxes": z, "scores": other})
    with pytest.raises(DataError, match="without a tensor of floats"):
        task.answer({"ids": torch.zeros(2, dtype=torch.long)})


def test_relevance_begins_at_one_of_several_outputs() -> None:
    outputs = {"a": torch.randn(2, 3)}
    for start in (None, lambda out, targets: out["a"] * 2):
        with pytest.raises(UnsupportedError, match=r"gives dict: give Task\(outputs=.*assign\.method: ecq"):
            Task(loss=lambda out, targets: out["a"].sum(), start=start).relevance_start(
                outputs, Batch(X, None), "score"
            )
    started = Task(loss=lambda out, targets: out.sum(), outputs="a", start=lambda out, targets: out * 2)
    answer = started.answer(outputs)
    assert torch.equal(started.relevance_start(answer, Batch(X, None), "score"), outputs["a"] * 2)


def test_a_probability_of_no_class_is_refused() -> None:
    with pytest.raises(RecipeError, match="score or ones"):
        task_of("regression").relevance_start(torch.randn(2, 1), Batch(X, torch.randn(2)), "probability")


def test_a_network_without_parameters_is_evaluated_where_the_data_is() -> None:
    batch = Batch(torch.eye(3), torch.arange(3))
    assert task_of("classification").evaluate(nn.Identity(), [batch]) == 100.0


@pytest.mark.parametrize("task", ["binary", "multi-label"])
@pytest.mark.parametrize("last", [nn.Identity(), nn.Flatten(0), nn.Unflatten(1, (2, 1))])
def test_chances_are_no_scores(task: str, last: nn.Module) -> None:
    """A network that ends in a sigmoid would be right by chance, and its loss that of another one."""
    scores = nn.Sequential(nn.Linear(3, 2), last)
    chances = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), last)
    x = torch.rand(5, 3)
    batch = Batch(x, torch.zeros_like(last(torch.zeros(5, 2))))
    task_of(task).check(scores(x), batch)
    with pytest.raises(DataError, match="ends in a sigmoid, and scores before it are needed"):
        task_of(task).check(chances(x), batch)


class Sums(nn.Module):
    """Takes lists of images, or nodes and the graph of each."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, graph=None):
        if graph is None:
            return torch.stack([image.sum() for image in x]) * self.scale
        return torch.zeros(int(graph.max()) + 1).index_add(0, graph, x.sum(1)) * self.scale


@pytest.mark.parametrize("kind", ["lists", "graphs"])
def test_a_metric_of_ones_own_is_a_mean_over_samples_whatever_they_are(kind: str) -> None:
    def close(outputs, targets):
        wanted = targets if isinstance(targets, torch.Tensor) else torch.stack([t["sum"] for t in targets])
        return float((outputs - wanted).abs().mean())

    parts = []
    for samples in (1, 4, 3):
        images = [torch.full((3, 2 + n, 2), float(samples)) for n in range(samples)]
        if kind == "lists":
            parts.append((images, [{"sum": image.sum() + samples} for image in images]))
        else:
            graph = torch.arange(samples).repeat_interleave(torch.tensor([5, 1, 9, 2][:samples]))
            x = torch.ones(len(graph), 2)
            sums = torch.zeros(samples).index_add(0, graph, x.sum(1)) + samples
            parts.append({"x": x, "graph": graph, "labels": sums})
    task = Task(loss=lambda o, t: (o * 0).sum(), metric=close, scale="loss")
    assert task.evaluate(Sums(), parts) == pytest.approx((1 * 1 + 4 * 4 + 3 * 3) / 8)
