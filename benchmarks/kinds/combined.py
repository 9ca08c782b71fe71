"""Channels first, then clusters: what one recipe with both sections does, its channel stage trained once and kept."""

from dataclasses import replace

from benchmarks.kinds.recipe import prepared, row_of, say
from benchmarks.unit import Place, Row, Unit, hash_of, words
from fewbits import job as jobs
from fewbits import recipe as recipes
from fewbits.hardware import count
from fewbits.report.sizes import float_bytes


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row; its ratio and baseline are the whole float network's."""
    assert unit.recipe is not None
    shared = {"network", "data", "pretrain", "channels", "seed"}
    parts = unit.recipe.model_dump(by_alias=True, exclude_unset=True, include=shared)
    first = recipes.make(parts | {"assign": {"method": "none"}, "floats": "float32", "merge_normalisation": False})
    job = prepared(unit, place, first)
    kept = place.work / f"channels-{hash_of(words(first))}"
    if not (kept / "report.json").exists():  # what is written last
        jobs.run(job, kept, say=say)
    small = job.decoded(kept / first.output)
    recipe = place.located(unit.recipe.updated(channels=None))
    narrowed = replace(job, recipe=recipe, network=small, teacher=job.network if recipe.train.distill else None)
    result = jobs.run(narrowed, place.work / unit.key, say=say)
    row = row_of(unit, narrowed, result)
    shape, channels = job.dataset.input_shape, unit.recipe.channels
    assert channels is not None
    left = count(small, shape)
    whole = float_bytes({n: t for n, t in job.network.state_dict().items() if not n.endswith("_tracked")})
    return [
        row | {
            "method": f"channels + {row['method']}", "narrowed_accuracy": row["baseline_accuracy"],
            "baseline_accuracy": job.evaluate("test")(job.network), "float_bytes": whole,
            "ratio": whole / row["bytes"], "macs": count(job.network, shape).macs, "macs_left": left.macs,
            "parameters_left": left.parameters, "channel_macs": channels.macs,
            "channel_epochs": channels.train.epochs if channels.train else 0,
        }
    ]  # fmt: skip
