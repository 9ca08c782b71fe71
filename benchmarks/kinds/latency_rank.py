"""How alike latency on this CPU (ONNX Runtime) ranks versions of a network, by ``price`` and by multiplications."""

import torch

import fewbits as fb
from benchmarks.kinds.vela import recipe_of
from benchmarks.unit import Place, Row, Unit
from fewbits import zoo
from fewbits.deploy.latency import measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.hardware import layers, machine_of, price
from fewbits.pipeline import layers_of
from fewbits.report.correlation import spearman


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each way to rank. Versions lose channels, then run in floats (clusters) or in integers (INT8)."""
    asked = unit.options
    name, machine = asked["model"], machine_of(asked["machine"])
    shape, generator = zoo.INPUTS[name], torch.Generator().manual_seed(unit.seed)
    x = torch.randn(64, *shape, generator=generator)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(16)]
    models, cycles, macs = {}, {}, {}
    for share in asked["shares"]:
        net = zoo.build(name, seed=unit.seed).eval()
        for integers in (False, True):
            recipe = recipe_of(share, None if integers else 0.02)
            if not integers:
                recipe = recipe.updated(activations=None)
            small = fb.compress(net, batches, recipe=recipe)
            after, title = small.into(zoo.build(name, seed=unit.seed)), f"{share:g}, {'INT8' if integers else 'floats'}"
            file = place.work / "version.onnx"
            to_onnx(after, x, file, plan=small.plan)
            models[title] = file.read_bytes()
            # In floats the runtime multiplies what clusters stand for.
            found = layers_of(small.plan, zoo.build(name, seed=0), shape) if integers else layers(after, shape)
            priced = price(found, machine)
            cycles[title], macs[title] = priced.cycles, priced.macs
    times = {row.name: row.seconds for row in measure_latency(models, batches=(1,), rounds=asked["rounds"])}
    seconds = torch.tensor([times[title] for title in models], dtype=torch.float64)
    rows = []
    for what, values in (("cycles of price", cycles), ("multiplications", macs)):
        ranked = torch.tensor([float(values[title]) for title in models], dtype=torch.float64)
        rows.append(
            unit.settings | {
                "task": "latency", "model": name, "method": what, "versions": len(models), "split": "none",
                "rank_correlation": spearman(ranked, seconds), "versus": "median latency in ONNX Runtime, batch 1",
                "slowest": float(seconds.max()), "fastest": float(seconds.min()),
            }
        )  # fmt: skip
    return rows
