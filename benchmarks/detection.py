"""A detector of digits drawn on a canvas, small enough to be trained in a minute, and the measure of detectors."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from fewbits.data.dataset import Split

CANVAS, STRIDE, MOST = 48, 4, 4
"""Pixels of a side, pixels of a cell, and digits of a canvas at most."""


@dataclass(frozen=True)
class Scenes:
    """Canvases ``[n, 1, CANVAS, CANVAS]``, and what is on them: boxes ``[n, MOST, 4]`` (left, top, right, bottom,
    pixels) and classes int64 ``[n, MOST]``, -1 where there is none.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor


def scenes(digits: Split, count: int, generator: torch.Generator, share: float = 0.3) -> Scenes:
    """One to ``MOST`` digits of 8 to 16 pixels on each canvas, with some noise.

    Args:
        share: intersection over union up to which two digits may overlap.
    """
    images = 0.1 * torch.rand(count, 1, CANVAS, CANVAS, generator=generator)
    boxes, classes = torch.zeros(count, MOST, 4), torch.full((count, MOST), -1)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for n in range(count):
        for place in range(draw(1, MOST + 1)):
            size, which = draw(8, 17), draw(0, len(digits.targets))
            left, top = draw(0, CANVAS - size + 1), draw(0, CANVAS - size + 1)
            box = torch.tensor([left, top, left + size, top + size], dtype=torch.float32)
            if place and float(overlap(box, boxes[n, :place]).max()) > share:
                continue  # fewer digits then
            drawn = interpolate(digits.inputs[which][None], size=(size, size), mode="bilinear", align_corners=False)
            part = images[n, :, top : top + size, left : left + size]
            part.copy_(torch.maximum(part, drawn[0]))
            boxes[n, place], classes[n, place] = box, digits.targets[which]
    return Scenes(images, boxes, classes)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes ``[..., 4]``, which broadcast."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(0).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - shared
    return shared / union.clamp(min=1e-9)


class Detector(nn.Module):
    """For each cell of a grid the classes of the digit that it lies in, and how far the digit's sides are.

    After FCOS (Tian et al. 2019), with one level and without its centre-ness.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [(1, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 2 * width, 1)]
        self.body = nn.Sequential(*(layer for a, b, stride in sizes for layer in (
            nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        )))  # fmt: skip
        self.head = nn.Conv2d(2 * width, 14, 1)
        nn.init.constant_(self.head.bias[:10], -4.0)  # few cells lie in a digit

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[n, cells, 10]`` and boxes ``[n, cells, 4]``."""
        found = self.head(self.body(x)).flatten(2).transpose(1, 2)
        reach = 8 * found[..., 10:].clamp(-4, 4).exp()
        middle = centres()
        return found[..., :10], torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], -1)


def centres() -> Tensor:
    """Of the cells, in pixels: ``[cells, 2]``, row by row."""
    line = torch.arange(CANVAS // STRIDE) * STRIDE + STRIDE / 2
    return torch.stack([line.repeat(len(line)), line.repeat_interleave(len(line))], -1)


def trained(digits: Split, seed: int, steps: int, batch: int = 32) -> Detector:
    """A detector after so many steps of Adam with a cosine schedule, each on new canvases."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = Detector()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*net((given := scenes(digits, batch, generator)).images), given).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def loss(logits: Tensor, boxes: Tensor, given: Scenes) -> Tensor:
    """Cross entropy of the classes of all cells, and -log of the overlap where a cell lies in the middle of a digit."""
    low, high = given.boxes[:, None, :, :2], given.boxes[:, None, :, 2:]
    away = ((centres()[:, None] - (low + high) / 2) / (high - low).clamp(min=1)).abs().amax(-1)
    away = torch.where(given.classes[:, None] >= 0, away, 9.0)
    nearest, which = away.min(-1)  # [n, cells]
    inside = nearest < 0.3
    classes, wanted = given.classes.gather(1, which), given.boxes.gather(1, which[..., None].expand(-1, -1, 4))
    truth = torch.zeros_like(logits).scatter_(2, classes.clamp(min=0)[..., None], inside[..., None].float())
    wrong = binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    apart = -overlap(boxes, wanted)[inside].clamp(min=1e-3).log().sum()
    return (wrong + apart) / inside.sum().clamp(min=1)


@dataclass(frozen=True)
class Found:
    """What a detector says of canvases: boxes ``[n, k, 4]``, scores and classes ``[n, k]``."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


@torch.no_grad()
def detections(net: Detector, images: Tensor, most: int = 48) -> Found:
    """The best cells of each canvas, without suppression."""
    logits, boxes = net(images)
    scores, classes = logits.sigmoid().max(-1)
    scores, order = scores.topk(most, dim=1)
    return Found(boxes.gather(1, order[..., None].expand(-1, -1, 4)), scores, classes.gather(1, order))


def mean_average_precision(found: Found, stays: Tensor, given: Scenes, least: float = 0.5) -> float:
    """Percent: mean over classes of the area under precision over recall (Everingham et al. 2010, of all points).

    In falling order of scores a detection takes the digit of its class that it overlaps most; it counts as right if it
    overlaps by more than ``least``, and nothing took that digit before.
    """
    areas = []
    for one in given.classes[given.classes >= 0].unique().tolist():
        mine = (found.classes == one) & stays
        images, places = mine.nonzero(as_tuple=True)
        order = found.scores[mine].argsort(descending=True, stable=True)
        taken = torch.zeros_like(given.classes, dtype=torch.bool)
        right = torch.zeros(len(order))
        for number, i in enumerate(order.tolist()):
            image = images[i]
            shares = overlap(found.boxes[image, places[i]], given.boxes[image])
            share, which = torch.where(given.classes[image] == one, shares, -1.0).max(0)
            if share > least and not taken[image, which]:
                taken[image, which] = True
                right[number] = 1
        areas.append(area(right, int((given.classes == one).sum())))
    return 100 * sum(areas) / max(1, len(areas))


def area(right: Tensor, wanted: int) -> float:
    """Under precision over recall: at each recall the best precision there or farther on.

    Args:
        right: 1 or 0 for each detection, best score first. wanted: how many there are to find.
    """
    hits = right.double().cumsum(0)
    precision = hits / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0)[0].flip(0) if len(right) else precision
    return float((best * right).sum()) / wanted
