"""What stays floats, in fewer significant bits: bytes and accuracy of a finished file written again, untrained."""

import torch

from benchmarks.kinds.recipe import made, prepared
from benchmarks.unit import Place, Row, Unit, hash_of, words
from fewbits import codec, files
from fewbits.attach.precision import shortened
from fewbits.channels import load_plan
from fewbits.pipeline.restore import restore
from fewbits.plan import Dense, Entry, Masked, Plan


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row per number of bits; of the file that the unit's recipe makes, or of ``--more file=PATH``."""
    assert unit.recipe is not None
    if "file" in place.more:
        job, data = prepared(unit, place), files.read(place.more["file"])
    else:
        job, result = made(unit, place)
        data = result.data
    network, plan = restore(data, job.network)
    numbers = sum(int(e.kept.sum()) if isinstance(e, Masked) else e.data.numel() if isinstance(e, Dense) else 0
                  for e in plan.values())  # fmt: skip
    rows = []
    for bits in unit.options["bits"]:
        changed = Plan({name: fewer(entry, bits) for name, entry in plan.items()}, plan.channels)
        load_plan(network, changed)
        rows.append(unit.labels | {
            "model": unit.settings["model"], "data": job.dataset.name,
            "method": "pruned" if any(isinstance(e, Masked) for e in plan.values()) else "clustered",
            "significand": bits, "floats": numbers, "bytes_before": len(data), "made_with": hash_of(words(unit.recipe)),
            "bytes": len(codec.encode(changed, header=codec.inspect(data).header)),
            "validation_accuracy": job.evaluate("validation")(network), "accuracy": job.evaluate("test")(network),
        })  # fmt: skip
    return rows


def fewer(entry: Entry, bits: int) -> Entry:
    """The entry with so many significant bits, if it is floats."""
    if isinstance(entry, Dense) and entry.data.is_floating_point():
        return Dense(shortened(entry.data.float(), torch.float16, bits))
    if isinstance(entry, Masked):
        return Masked(shortened(entry.data.float(), torch.float16, bits), entry.mask)
    return entry
