"""A learning rule on a share of the training images and a budget of epochs: accuracy, then pruned, then on noise.

Settings are chosen by the rule's trials, equally many for every rule, on validation images: each trains five epochs
on a fifth of the images. What they found is kept in the work folder, one after the other, so tuning resumes, too.
"""

import copy
import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.process import alone
from benchmarks.unit import Place, Row, Unit, hash_of, words
from fewbits import job as jobs
from fewbits.assign import global_magnitude
from fewbits.data import DataSet
from fewbits.errors import NonFiniteError
from fewbits.job import batches as job_data
from fewbits.recipe import Recipe, changed, make
from fewbits.task import accuracy
from fewbits.train import pretrain
from fewbits.weights import select

PRUNED = (50, 80, 90, 95)  # percent of all weights, one threshold, no training afterwards
TUNED_ON, TUNED_FOR, TUNED_WITH = 0.2, 5.0, 100  # share of the images, epochs, seed


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: the accuracies of one training."""
    assert unit.recipe is not None
    recipe = place.located(unit.recipe)
    trials = unit.options.get("trials", [])
    chosen = _tuned(unit, place, recipe, trials) if trials else {}
    job, seconds = _trained(_with(recipe, chosen), unit.options["images"], unit.options["fraction"])
    split = "validation" if place.validation else "test"
    loader = partial(job.dataset.loader, split, 250)
    row = {
        "method": unit.labels["rule"], "split": split, "accuracy": accuracy(job.network, loader()),
        "validation_accuracy": accuracy(job.network, job.dataset.loader("validation", 250)),
        "images": len(job.dataset.train), "chosen": json.dumps(chosen, sort_keys=True), "trials": len(trials),
        "seconds": seconds, "threads": torch.get_num_threads(),
    }  # fmt: skip
    for share in PRUNED:
        row[f"pruned_{share}"] = accuracy(_pruned(job.network, share / 100), loader())
    for name, spoil in NOISES.items():
        row[name] = accuracy(job.network, [(spoil(x), t) for x, t in loader()])
    return [unit.settings | row]


def _with(recipe: Recipe, settings: Row) -> Recipe:
    values = recipe.model_dump(by_alias=True, exclude_unset=True)
    return make(changed(values, {f"pretrain.{key}": value for key, value in settings.items()}))


def _trained(recipe: Recipe, images: int, fraction: float) -> tuple[jobs.Job, float]:
    """The network after its training, on the first of stratified images."""
    job = jobs.skeleton(recipe)
    assert isinstance(job.dataset, DataSet)
    assert recipe.data is not None
    assert recipe.pretrain is not None
    _, part = job.dataset.train.hold_out(round(images * fraction))
    job = replace(job, dataset=replace(job.dataset, train=part))
    loader = job_data.training_batches(job.dataset, recipe.data, job.feed, seed=recipe.seed)
    begin = time.perf_counter()
    pretrain(job.network, loader, recipe.pretrain, seed=recipe.seed)
    job.network.eval()
    return job, time.perf_counter() - begin


def _tuned(unit: Unit, place: Place, recipe: Recipe, trials: list[Row]) -> Row:
    """The trial with the best accuracy on validation images; one that diverges loses."""
    known = words(recipe)
    name = hash_of(known["network"], known["data"], known["pretrain"]["rule"], trials, unit.options["images"])
    path = place.work / "rules" / f"{name}.json"
    own = path.with_suffix("")
    own.mkdir(parents=True, exist_ok=True)
    with alone(own):
        found: list[float] = json.loads(path.read_text()) if path.exists() else []
        for trial in trials[len(found) :]:
            base = recipe.updated(seed=TUNED_WITH, pretrain={"epochs": TUNED_FOR})
            try:
                job, _ = _trained(_with(base, trial), unit.options["images"], TUNED_ON)
                found.append(accuracy(job.network, job.dataset.loader("validation", 250)))
            except NonFiniteError:
                found.append(0.0)
            path.write_text(json.dumps(found))
            print(f"{unit.labels['rule']}: {trial} {found[-1]:.2f}", flush=True)
    return trials[max(range(len(trials)), key=found.__getitem__)]


@torch.no_grad()
def _pruned(network: nn.Module, share: float) -> nn.Module:
    """A copy in which the smallest weights are zero."""
    left = copy.deepcopy(network)
    weights = select(left)
    assigner = global_magnitude(share)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    for name, weight in weights.items():
        weight.mul_(plan[name].kept.to(weight.device))  # type: ignore[union-attr]
    return left


def _gaussian(x: Tensor) -> Tensor:
    """With noise of half the images' own standard deviation."""
    return x + 0.5 * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def _salt_and_pepper(x: Tensor) -> Tensor:
    """A twentieth of the pixels black or white."""
    drawn = torch.rand(x.shape[0], 1, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    return x.masked_fill(drawn < 0.025, float(x.min())).masked_fill(drawn > 0.975, float(x.max()))


def _blurred(x: Tensor) -> Tensor:
    """The mean of three by three pixels."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


NOISES: dict[str, Any] = {"gaussian": _gaussian, "salt_and_pepper": _salt_and_pepper, "blurred": _blurred}
