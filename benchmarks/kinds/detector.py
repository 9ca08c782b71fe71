"""What the form of suppression does to a detector: one of drawn digits, trained here."""

import time

import torch

from benchmarks.detection import detections, mean_average_precision, scenes, trained
from benchmarks.unit import Place, Row, Unit
from fewbits.data.digits import digits
from fewbits.ops import greedy_nms, pooled_nms, recall

FORMS = {"none": None, "exact": greedy_nms, "max pooling": pooled_nms}


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for every form and threshold, of one detector.

    Options of the experiment: training ``steps``, test ``canvases``, ``thresholds`` of overlap, and the score
    that a detection needs (``least``).
    """
    asked, data = unit.options, digits()
    begin = time.process_time()
    net = trained(data.train, unit.seed, asked["steps"])
    training = time.process_time() - begin
    held = data.validation if place.validation else data.test
    given = scenes(held, asked["canvases"], torch.Generator().manual_seed(10_000 + unit.seed))
    found = detections(net, given.images)
    enough = found.scores > asked["least"]
    rows = []
    for threshold in asked["thresholds"]:
        exact = greedy_nms(found.boxes, found.scores, threshold, found.classes)
        for name, form in FORMS.items():
            begin = time.process_time()
            stays = enough if form is None else form(found.boxes, found.scores, threshold, found.classes) & enough
            taken = time.process_time() - begin
            rows.append({
                "task": "detector", "method": name, "threshold": threshold, "model": "detector of drawn digits",
                "data": "digits", "canvases": len(stays), "train_seconds": training,
                "accuracy": mean_average_precision(found, stays, given), "stay": float(stays.sum(1).double().mean()),
                "recall": recall(stays, exact & enough), "precision": recall(exact & enough, stays),
                "set_seconds": taken / len(stays),
            })  # fmt: skip
    return [unit.settings | row for row in rows]
