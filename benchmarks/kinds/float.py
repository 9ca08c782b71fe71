"""A float network, trained once for all that start from it: its accuracy on validation and on test data."""

import time

import torch

from benchmarks.kinds.recipe import prepared
from benchmarks.unit import Place, Row, Unit


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row; which of several trainings is gone on with is chosen by the validation accuracy in it."""
    begin = time.perf_counter()
    job = prepared(unit, place)
    seconds = time.perf_counter() - begin
    recipe = job.recipe
    assert recipe.pretrain is not None
    trained = {"epochs": recipe.pretrain.epochs, "lr": recipe.pretrain.lr, "precision": recipe.pretrain.precision}
    return [
        unit.settings | trained | {
            "method": "float", "split": "test", "accuracy": job.evaluate("test")(job.network),
            "validation_accuracy": job.evaluate("validation")(job.network),
            "float_bytes": 4 * sum(p.numel() for p in job.network.parameters()), "seconds": seconds,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        }
    ]  # fmt: skip
