"""The main job: a recipe run to a file that was decoded again, and the row of figures that all tables are made of."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.priced import priced
from benchmarks.process import alone
from benchmarks.unit import Place, Row, Unit
from fewbits import job as jobs
from fewbits import zoo
from fewbits.data import Normalisation
from fewbits.errors import RecipeError
from fewbits.hardware import count
from fewbits.int8 import folded
from fewbits.job import batches as job_data
from fewbits.job import folder as outputs
from fewbits.pipeline import Compressed
from fewbits.recipe import Recipe

say = partial(print, flush=True)


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row; with the option ``may_refuse`` a recipe that the network does not allow is a row that says why.

    The option ``machines`` adds what the plan takes on each of them.
    """
    try:
        job, result = made(unit, place)
    except RecipeError as error:
        if not unit.options.get("may_refuse"):
            raise
        return [unit.settings | {"refused": str(error)}]
    return [row_of(unit, job, result)]


def made(unit: Unit, place: Place) -> tuple[jobs.Job, Compressed]:
    """Run a unit's recipe in a folder of its own, from where it was stopped."""
    job = prepared(unit, place)
    return job, jobs.run(job, place.work / unit.key, say=say)


def prepared(unit: Unit, place: Place, recipe: Recipe | None = None) -> jobs.Job:
    """Data and float network, whose training (or folding, with the option ``folded``) is done once and kept."""
    chosen = recipe or unit.recipe
    assert chosen is not None
    located, path = place.located(chosen), place.float_file(chosen)
    if chosen.pretrain is None and not unit.options.get("folded"):
        job = jobs.prepare(located, say=say)
    else:
        outputs.folder(path.parent)
        with nullcontext() if path.exists() else alone(path.parent):  # two workers must not train the same one
            if not path.exists() and chosen.pretrain is None:
                fold(place.weights / unit.options["folded"], path)
            elif not path.exists():
                fresh = jobs.prepare(located, say=say, state_file=path.with_suffix(".training"))
                outputs.save_float(fresh.network, path, fresh.dataset.normalisation)
                fresh.safe()
        job = jobs.prepare(located, say=say, trained=path)
    if place.validation:
        job = replace(job, dataset=replace(job.dataset, test=job.dataset.validation))
    return job


def row_of(unit: Unit, job: jobs.Job, result: Compressed) -> Row:
    """Figures of one written and decoded file, with the settings that made it."""
    report, recipe = result.report, job.recipe
    assert recipe.data is not None
    row = report.row() | {
        "bits": report.tensors[0].bits if report.tensors else recipe.assign.bits,
        "epochs": recipe.train.epochs, "steps": report.steps, "identical": report.identical,
        "every": recipe.measure.every if recipe.assign.method == "ecqx" else None,
        "momentum": recipe.assign.options.get("momentum"), "precision": recipe.train.precision,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "gzip_float": report.others["gzip -9, float32"],
        "zstd_int8": report.others.get("zstd -19, int8"),  # where there are clusters
        "validation_accuracy": job.evaluate("validation")(result.into(job.skeleton())),
        "validation_baseline": job.evaluate("validation")(job.network),
    }  # fmt: skip
    if report.target is not None or report.max_drop is not None:
        row |= {"target_bytes": report.target, "max_drop": report.max_drop, "met": report.met}
        row |= {"tries": len(report.search), "written": next((t.what for t in report.search if t.kept), None)}
    if machines := unit.options.get("machines"):
        row |= priced(result.plan, job.skeleton(), job_data.one_sample(job.dataset, job.feed), machines)
    row |= counted(job, result) if recipe.prune is not None or recipe.channels is not None else {}
    return row | unit.settings


def counted(job: jobs.Job, result: Compressed) -> Row:
    """Sparsity over both denominators, multiplications, and layers that lost everything."""
    sample = job_data.one_sample(job.dataset, job.feed)
    dense, pruned = count(job.network, sample), count(result.into(job.skeleton()), sample, result.plan)
    return {
        "sparsity_denominator": "weights of linear and convolutional layers",
        "weights": pruned.weights, "zeros": pruned.zeros, "parameters": pruned.parameters,
        "sparsity_of_parameters": 100 * pruned.zeros / pruned.parameters,
        "macs": dense.macs, "macs_left": pruned.nonzero_macs,
        "fewest_survivors": min(layer.nonzero for layer in pruned.layers),
        "collapsed_layers": sum(layer.nonzero == 0 for layer in pruned.layers),
    }  # fmt: skip


def fold(weights: Path, path: Path) -> None:
    """Fold the normalisation of trained VGG16-BN weights and write what is left, the paper's VGG16, to ``path``."""
    trained = zoo.build("vgg16-bn", dropout=False)
    zoo.load_weights(trained, weights)
    plain = zoo.build("vgg16", dropout=0.0)
    values = list(folded(trained)[0].state_dict().values())
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    images = torch.rand(16, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), trained.eval()(images), rtol=1e-4, atol=1e-4)
    outputs.save_float(plain, path, Normalisation((0.0,), (1.0,)))  # what these weights want
