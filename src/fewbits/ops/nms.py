"""Non-maximum suppression: exact and greedy for many sets of boxes at once, and by max pooling, which needs no order.

Boxes are ``[sets, boxes, 4]``: left, top, right, bottom, with any labels beside them: boxes of other labels are left
alone. Results are truth values ``[sets, boxes]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from fewbits.errors import DataError


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs: ``[sets, boxes, boxes]``; zero for boxes without area."""
    first, second = boxes[:, :, None], boxes[:, None]
    size = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    shared = size[..., 0] * size[..., 1]
    area = _areas(boxes)
    union = area[:, :, None] + area[:, None] - shared
    return torch.where(union > 0, shared / union, 0.0)


def greedy_nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """The exact one: in falling order of scores (of equal ones, the first) a box stays unless one that stays overlaps
    it by more than the threshold.

    Raises:
        DataError: shapes that do not fit, or a number that is not finite.
    """
    _check(boxes, scores, labels, threshold)
    order = scores.argsort(dim=1, descending=True, stable=True)
    over = overlaps(boxes.gather(1, order[..., None].expand_as(boxes))) > threshold
    if labels is not None:
        own = labels.gather(1, order)
        over &= own[:, :, None] == own[:, None]
    stays = torch.ones_like(scores, dtype=torch.bool)
    for place in range(scores.shape[1]):
        stays[:, place + 1 :] &= ~(stays[:, place, None] & over[:, place, place + 1 :])
    return torch.zeros_like(stays).scatter(1, order, stays)


def pooled_nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """About the same without sorting and without pairs: a box stays if no better one is near in a map of scores.

    Boxes of similar width and height share a map whose cells are a part of them; a better score in the same or in a
    neighbouring cell suppresses (max pooling of 3 x 3). Two maps that are half a class apart catch pairs at the borders
    of classes. After PSRR-MaxpoolNMS (Zhang et al. 2021), with classes of width and height in place of scale and ratio.

    What is suppressed by a box that is suppressed itself is gone here, too, so fewer boxes stay than are exact.

    Args:
        threshold: that of the exact one, whose reach the cells have.

    Raises:
        DataError: as of :func:`greedy_nms`.
    """
    _check(boxes, scores, labels, threshold)
    sets, count = scores.shape
    stays = torch.ones_like(scores, dtype=torch.bool)
    if not count or not sets:
        return stays
    # two equal boxes that lie d of their side apart overlap by (1 - d) / (1 + d); 3 x 3 cells reach 1 to 2 cells
    reach = (1 - threshold) / (1 + threshold) / 1.5
    least = boxes[..., :2].reshape(-1, 2).amin(0)
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 - least
    group = torch.arange(sets, device=boxes.device)[:, None].expand(sets, count)
    if labels is not None:
        found, inverse = labels.unique(return_inverse=True)
        group = group * len(found) + inverse
    group = group.reshape(-1).unique(return_inverse=True)[1].reshape(sets, count)
    width = 1.5 * math.log2(1 / threshold)  # of a class, in octaves: sides by half of it apart overlap enough
    for part in (0.0, 0.5):
        classes = torch.floor(torch.log2(sides) / width + part)
        for one in classes.reshape(-1, 2).unique(dim=0):
            mine = (classes == one).all(-1)
            cell = reach * 2 ** ((one - part + 0.5) * width)
            place = torch.floor(middle[mine] / cell).long()
            first = place.amin(0)
            place = place - first
            rows, columns = (int(n) + 1 for n in place.amax(0))
            own = group[mine].unique(return_inverse=True)[1]
            at = (own * rows + place[:, 0]) * columns + place[:, 1]
            best = torch.full(((int(own.max()) + 1) * rows * columns,), -math.inf, device=boxes.device)
            best = best.scatter_reduce(0, at, scores[mine].float(), "amax")
            near = max_pool2d(best.view(-1, 1, rows, columns), 3, 1, 1).reshape(-1)[at]
            stays[mine] &= scores[mine].float() >= near
    return stays


def recall(stays: Tensor, exact: Tensor) -> float:
    """The share of the boxes that stay exactly which stay; 1 where none does."""
    return float((stays & exact).sum() / exact.sum().clamp(min=1)) if bool(exact.any()) else 1.0


def _areas(boxes: Tensor) -> Tensor:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(0)
    return size[..., 0] * size[..., 1]


def _check(boxes: Tensor, scores: Tensor, labels: Tensor | None, threshold: float) -> None:
    shapes = tuple(boxes.shape), tuple(scores.shape), None if labels is None else tuple(labels.shape)
    if boxes.dim() != 3 or shapes[0] != (*shapes[1], 4) or shapes[2] not in (None, shapes[1]):
        raise DataError(
            f"suppression takes boxes [sets, boxes, 4], scores and labels [sets, boxes], got {shapes[0]}, {shapes[1]}"
            + (f", {shapes[2]}" if labels is not None else "")
        )
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise DataError("a box or a score is NaN or infinite: leave such boxes out before suppression")
    if not 0 < threshold < 1:
        raise DataError(f"a threshold of overlap lies between 0 and 1, got {threshold!r}")
