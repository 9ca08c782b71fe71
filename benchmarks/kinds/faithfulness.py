"""Pixel flipping before and after compression: of which methods are maps of pixels faithful, and does it stay so?"""

from itertools import islice

import torch

from benchmarks.kinds.recipe import made
from benchmarks.unit import Place, Row, Unit
from fewbits.measure.attribution import ATTRIBUTIONS
from fewbits.measure.flipping import blank, flipping_curve

BATCH = 64


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for every method: each network by its own maps.

    Options of the experiment: ``images`` of the test data, from the first on.
    """
    job, result = made(unit, place)
    batches = list(islice(job.dataset.loader("test", BATCH), -(-unit.options["images"] // BATCH)))
    x, y = (torch.cat([batch[part] for batch in batches])[: unit.options["images"]] for part in (0, 1))
    networks = {"before": job.network.eval(), "after": result.into(job.skeleton()).eval()}
    report, rows = result.report, []
    for name, attribution in ATTRIBUTIONS.items():
        row: Row = {
            "task": "faithfulness", "method": name, "images": len(x), "bytes": report.file_bytes, "ratio": report.ratio,
            "accuracy": report.accuracy_after, "baseline_accuracy": report.accuracy_before,
        }  # fmt: skip
        for when, network in networks.items():
            heat = torch.cat([
                attribution(network, part, classes, blank(x))
                for part, classes in zip(x.split(BATCH), y.split(BATCH), strict=True)
            ])  # fmt: skip
            curve = flipping_curve(network, x, y, heat, blank(x))
            row |= {f"under_{when}": curve.under, f"over_{when}": curve.over, f"curve_{when}": list(curve.scores)}
        rows.append(unit.settings | row)
    return rows
