"""Suppression of boxes: by max pooling and in batches against the exact one, set by set, on random sets of boxes."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.unit import Place, Row, Unit
from fewbits.ops import greedy_nms, pooled_nms, recall


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for every form.

    Options of the experiment: ``sets`` of ``boxes`` each, which are ``drawn`` around ``objects`` (0: anywhere);
    ``threshold`` of overlap; ``labels``: how many classes; ``single``: of the first so many sets, each is also
    suppressed by itself; ``part``: sets of a call of the others.
    """
    asked = unit.options
    generator = torch.Generator().manual_seed(unit.seed)
    single, part, threshold = asked["single"], asked["part"], asked["threshold"]
    totals: dict[str, list[Tensor]] = {"batched": [], "max pooling": []}
    seconds = dict.fromkeys(["set by set", *totals], 0.0)
    alone: list[Tensor] = []
    for first in range(0, asked["sets"], part):
        given = drawn(part, asked, generator)
        for name, form in (("batched", greedy_nms), ("max pooling", pooled_nms)):
            found, taken = timed(form, *given[:2], threshold, given[2])
            totals[name].append(found)
            seconds[name] += taken
        for n in range(max(0, min(part, single - first))):
            found, taken = timed(greedy_nms, *(x[n : n + 1] for x in given[:2]), threshold, given[2][n : n + 1])
            alone.append(found)
            seconds["set by set"] += taken
    forms = {"set by set": torch.cat(alone)} | {name: torch.cat(found) for name, found in totals.items()}
    rows = []
    for name, stays in forms.items():
        exact = forms["set by set" if name == "batched" else "batched"]
        sets = min(len(stays), len(exact))
        stays, exact = stays[:sets], exact[:sets]
        rows.append({
            "task": "sets", "method": name, "sets": sets, "recall": recall(stays, exact),
            "precision": recall(exact, stays), "equal_sets": float((stays == exact).all(1).double().mean()),
            "stay": float(stays.sum(1).double().mean()), "set_seconds": seconds[name] / len(forms[name]),
            "threads": torch.get_num_threads(),
        })  # fmt: skip
    for row in rows:
        row["times_time"] = row["set_seconds"] / rows[1]["set_seconds"]
    return [unit.settings | row for row in rows]


def timed(
    form: Callable[..., Tensor], boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor
) -> tuple[Tensor, float]:
    begin = time.process_time()
    return form(boxes, scores, threshold, labels), time.process_time() - begin


def drawn(sets: int, asked: Row, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes ``[sets, boxes, 4]`` on a square of side 1, with sides of 1/16 to 1/4, their scores and classes.

    Around objects, as a detector's are: middles and sides vary by ``jitter`` of a side, and all boxes of an object have
    its class.
    """
    objects, boxes = asked["objects"] or asked["boxes"], asked["boxes"]
    each, jitter = boxes // objects, asked["jitter"] if asked["objects"] else 0.0
    middle = torch.rand(sets, objects, 1, 2, generator=generator)
    sides = torch.exp2(2 * torch.rand(sets, objects, 1, 2, generator=generator) - 4)
    middle = middle + sides * jitter * torch.randn(sets, objects, each, 2, generator=generator)
    sides = sides * torch.exp(jitter * torch.randn(sets, objects, each, 2, generator=generator))
    labels = torch.randint(asked["labels"], (sets, objects, 1), generator=generator).expand(sets, objects, each)
    corners = torch.cat([middle - sides / 2, middle + sides / 2], -1)
    return corners.reshape(sets, -1, 4), torch.rand(sets, boxes, generator=generator), labels.reshape(sets, -1)
