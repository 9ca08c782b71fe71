"""Angles between what a rule teaches each layer and the gradient of the loss, while it trains."""

from benchmarks.kinds.rules import Training
from benchmarks.unit import Place, Row, Unit
from fewbits.task import accuracy
from fewbits.train import Alignment

ENDS = 3  # measurements of which the first and the last angle are means


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row. Options of the experiment: ``images``; ``every``, steps from one measurement to the next."""
    assert unit.recipe is not None
    training = Training(place.located(unit.recipe), unit.options["images"])
    per_epoch = len(training.batches())
    watch = Alignment(training.network, every=unit.options["every"])
    training.run(watch)
    hidden = [name for name in watch.angles if name.startswith("features")]
    row = {
        "method": unit.labels["rule"], "images": len(training.data.train),
        "accuracy": accuracy(training.network, training.data.loader("validation", 250)), "split": "validation",
        "angles": {
            name.removesuffix(".weight"): [[step / per_epoch, round(degrees, 2)] for step, degrees in found]
            for name, found in watch.angles.items()
        },
    }  # fmt: skip
    for number, name in enumerate(hidden, 1):
        degrees = [value for _, value in watch.angles[name]]
        row[f"first_{number}"] = sum(degrees[:ENDS]) / len(degrees[:ENDS])
        row[f"last_{number}"] = sum(degrees[-ENDS:]) / len(degrees[-ENDS:])
    return [unit.settings | row]
