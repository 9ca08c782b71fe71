"""Non-maximum suppression: the batched greedy one against a loop, and max pooling against that."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fewbits.errors import DataError
from fewbits.ops import greedy_nms, pooled_nms, recall


def box_sets(sets: int, objects: int, each: int, jitter: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Several boxes around each of some objects."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.rand(sets, objects, 1, 2, generator=generator)
    sides = torch.exp2(2 * torch.rand(sets, objects, 1, 2, generator=generator) - 4)
    middle = middle + sides * jitter * torch.randn(sets, objects, each, 2, generator=generator)
    sides = sides * torch.exp(jitter * torch.randn(sets, objects, each, 2, generator=generator))
    boxes = torch.cat([middle - sides / 2, middle + sides / 2], -1).reshape(sets, -1, 4)
    return boxes, torch.rand(sets, objects * each, generator=generator)


def one_by_one(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor) -> list[bool]:
    """The textbook's loop over one set, on Python's numbers."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):
        a = boxes[i].tolist()
        for j in kept:
            b = boxes[j].tolist()
            width = min(a[2], b[2]) - max(a[0], b[0])
            height = min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if labels[i] == labels[j] and shared / union > threshold:
                break
        else:
            kept.append(i)
    return [i in kept for i in range(len(scores))]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_greedy_suppression_is_that_of_the_loop(threshold: float) -> None:
    boxes, scores = box_sets(25, 3, 7, 0.15)
    labels = torch.randint(2, scores.shape, generator=torch.Generator().manual_seed(1))
    found = greedy_nms(boxes, scores, threshold, labels)
    for i in range(len(boxes)):
        assert found[i].tolist() == one_by_one(boxes[i], scores[i], threshold, labels[i])


def test_pooling_keeps_the_best_and_what_is_alone_and_little_else() -> None:
    boxes, scores = box_sets(300, 4, 5, 0.04)
    exact, pooled = greedy_nms(boxes, scores, 0.5), pooled_nms(boxes, scores, 0.5)
    assert pooled.gather(1, scores.argmax(1, keepdim=True)).all()
    assert recall(pooled, exact) > 0.9
    assert recall(exact, pooled) > 0.9  # of what stays, so much is exact
    alone = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6], [50, 50, 80, 80]]])
    assert pooled_nms(alone, torch.tensor([[0.1, 0.2, 0.3]]), 0.5).all()


def test_sets_and_labels_are_apart() -> None:
    boxes, scores = box_sets(6, 3, 4, 0.05)
    whole = pooled_nms(boxes, scores, 0.5)
    assert torch.equal(whole[2:3], pooled_nms(boxes[2:3], scores[2:3], 0.5)) or recall(whole[2:3], whole[2:3]) == 1
    twice, both = boxes.repeat(1, 2, 1), scores.repeat(1, 2)
    labels = torch.cat([torch.zeros_like(scores), torch.ones_like(scores)], 1).long()
    for suppress in (greedy_nms, pooled_nms):
        found = suppress(twice, both, 0.5, labels)
        assert torch.equal(found[:, :12], found[:, 12:])
        assert torch.equal(found[:, :12], suppress(boxes, scores, 0.5))


def test_nothing_and_wrong_things() -> None:
    nothing = torch.zeros(2, 0, 4), torch.zeros(2, 0)
    for suppress in (greedy_nms, pooled_nms):
        assert suppress(*nothing, 0.5).shape == (2, 0)
        with pytest.raises(DataError, match=r"\[sets, boxes, 4\]"):
            suppress(torch.zeros(3, 4), torch.zeros(3), 0.5)
        with pytest.raises(DataError, match="NaN or infinite"):
            suppress(torch.zeros(1, 2, 4), torch.tensor([[0.0, math.nan]]), 0.5)
        with pytest.raises(DataError, match="between 0 and 1"):
            suppress(torch.zeros(1, 2, 4), torch.zeros(1, 2), 1.0)
    assert recall(torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)) == 1
