"""The measure of detectors that benchmarks use, against counting by hand, and what is drawn for them."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.detection import (
    CANVAS,
    STRIDE,
    Detector,
    Found,
    Scenes,
    area,
    centres,
    loss,
    mean_average_precision,
    overlap,
    scenes,
)
from fewbits.data.digits import digits
from fewbits.ops.nms import overlaps


def by_steps(right: list[bool], wanted: int) -> float:
    """The area as a sum of rectangles between recalls, each as high as the best precision from there on."""
    points = [(0.0, 0.0)]
    for n in range(1, len(right) + 1):
        points.append((sum(right[:n]) / wanted, sum(right[:n]) / n))
    total = 0.0
    for number, ((before, _), (after, _)) in enumerate(pairwise(points)):
        total += (after - before) * max(precision for _, precision in points[number + 1 :])
    return total


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_the_area_is_that_of_rectangles(right: list[bool], missed: int) -> None:
    wanted = max(1, sum(right) + missed)
    assert abs(area(torch.tensor(right, dtype=torch.float32), wanted) - by_steps(right, wanted)) < 1e-12


def scene_of(boxes: list[list[float]], classes: list[int]) -> Scenes:
    return Scenes(torch.zeros(1, 1, CANVAS, CANVAS), torch.tensor([boxes]), torch.tensor([classes]))


def test_what_is_found_twice_or_as_another_class_is_wrong() -> None:
    first, second, off = [0.0, 0, 10, 10], [20.0, 20, 30, 30], [21.0, 20, 31, 30]
    given = scene_of([first, second], [3, 7])
    boxes = torch.tensor([[first, first, second, off]])
    found = Found(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.tensor([[3, 3, 3, 7]]))
    every = torch.ones(1, 4, dtype=torch.bool)
    assert mean_average_precision(found, every, given) == 100  # what is wrong comes after what is right
    assert mean_average_precision(found, every, given, least=0.85) == 50  # the second is a pixel off
    late = Found(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.tensor([[7, 3, 3, 7]]))
    assert mean_average_precision(late, every, given) == 75  # 7: wrong first, so precision is a half
    without = torch.tensor([[False, True, True, True]])
    assert mean_average_precision(late, without, given) == 100


def test_overlap_is_that_of_suppression() -> None:
    boxes = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0)).sort(-1)[0]
    assert torch.allclose(overlap(boxes[:, :, None], boxes[:, None]), overlaps(boxes), atol=1e-6)


def test_digits_lie_within_the_canvas_and_apart() -> None:
    made = scenes(digits().train, 40, torch.Generator().manual_seed(0))
    again = scenes(digits().train, 40, torch.Generator().manual_seed(0))
    assert torch.equal(made.images, again.images)
    there = made.classes >= 0
    assert there[:, 0].all()
    assert bool((made.boxes >= 0).all())
    assert bool((made.boxes <= CANVAS).all())
    shares = overlaps(made.boxes) * (there[:, :, None] & there[:, None]) * (1 - torch.eye(made.boxes.shape[1]))
    assert 0 < float(shares.max()) <= 0.3
    for image, boxes, seen in zip(made.images, made.boxes, there, strict=True):
        dark = image.clone()
        for left, top, right, bottom in boxes[seen].int().tolist():
            assert float(image[:, top:bottom, left:right].max()) > 0.5
            dark[:, top:bottom, left:right] = 0
        assert float(dark.max()) <= 0.1


def test_an_answer_that_is_right_costs_least() -> None:
    given = scene_of([[8.0, 8, 24, 24], [0, 0, 0, 0]], [4, -1])
    middle = centres()
    assert middle.shape == ((CANVAS // STRIDE) ** 2, 2)
    inside = ((middle - 16).abs().amax(-1) < 0.3 * 16)[None]
    logits = torch.full((1, len(middle), 10), -20.0)
    boxes = given.boxes[:, :1].expand(1, len(middle), 4).clone()
    truth = logits.clone()
    truth[..., 4] = torch.where(inside, 20.0, -20.0)
    best = float(loss(truth, boxes, given))
    assert best < 1e-5
    assert float(loss(logits, boxes, given)) > best + 1
    assert float(loss(truth, boxes + 3, given)) > best + 0.1
    found = Detector()(torch.zeros(2, 1, CANVAS, CANVAS))
    assert [tuple(part.shape) for part in found] == [(2, len(middle), 10), (2, len(middle), 4)]
