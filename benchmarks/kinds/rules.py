"""A learning rule on a share of the training images and a budget of epochs: accuracy, then pruned, then on noise.

Settings are chosen by the rule's trials, equally many for every rule, on validation images. What they found is kept in
the work folder, one after the other, so tuning resumes, too.
"""

import copy
import json
import time
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from benchmarks.noises import NOISES, Spoiled
from benchmarks.process import alone
from benchmarks.unit import Place, Row, Unit, hash_of, words
from fewbits import job as jobs
from fewbits.assign import global_magnitude
from fewbits.data import DataSet
from fewbits.errors import NonFiniteError
from fewbits.job import batches as job_data
from fewbits.recipe import Recipe, changed, make
from fewbits.task import accuracy
from fewbits.train import Callback, KeptTraining, Store, pretrain
from fewbits.train.learning import settled
from fewbits.train.pretrain import read_out
from fewbits.weights import select

PRUNED = (50, 80, 90, 95)  # percent of all weights, one threshold, no training afterwards
TUNED_WITH = 100  # seed of the trials
SEEN = (1, 2, 3, 5, 10, 15, 20, 50, 100)  # epochs after which a curve is taken


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: the accuracies of one training.

    Options of the experiment: ``images`` of the training data, of which ``fraction`` is used; ``trials``, and on which
    share of the images and for how many epochs (``tuned``); ``shown``, the images of a split on which pruned networks
    and noise are measured; ``noise`` in training; ``curve``, whether accuracy is taken on the way.
    """
    assert unit.recipe is not None
    recipe, asked = place.located(unit.recipe), unit.options
    trials = asked.get("trials", [])
    chosen = _tuned(unit, place, recipe, trials) if trials else {}
    training = Training(_with(recipe, chosen), asked["images"], asked["fraction"], asked.get("noise"))
    curve = Curve(training) if asked.get("curve") else None
    seconds = training.run(curve)
    split = "validation" if place.validation else "test"
    shown = first(training.data, split, asked.get("shown"))
    network = training.network
    row = {
        "method": unit.labels["rule"], "split": split, "accuracy": accuracy(network, training.data.loader(split, 250)),
        "images": len(training.data.train),
        "of": asked["images"], "fraction": asked["fraction"], "noise": asked.get("noise", "none"),
        "chosen": json.dumps(chosen, sort_keys=True), "trials": len(trials), "seconds": round(seconds, 2),
        "threads": torch.get_num_threads(), "shown": sum(len(targets) for _, targets in shown),
        "pruned_0": accuracy(network, shown),
    }  # fmt: skip
    for share in PRUNED:
        row[f"pruned_{share}"] = accuracy(pruned(network, share / 100), shown)
    for name, spoil in NOISES.items():
        generator = torch.Generator().manual_seed(0)
        row[name] = accuracy(network, [(spoil(x, generator), t) for x, t in shown])
    if curve:
        row["curve"] = curve.points
    return [unit.settings | row]


class Training:
    """A rule's training on the first of stratified images, always the same ones.

    Attributes:
        data: with that part alone to train on. network: trained in place.
    """

    def __init__(self, recipe: Recipe, images: int, fraction: float = 1.0, noise: str | None = None) -> None:
        job = jobs.skeleton(recipe)
        assert isinstance(job.dataset, DataSet)
        assert recipe.pretrain is not None
        count, train = round(images * fraction), job.dataset.train
        part = train if count == len(train) else train.hold_out(count)[1]
        self.recipe, self.noise, self.network = recipe, noise, job.network
        self.settings, self.feed = settled(recipe.pretrain), job.feed
        self.data = replace(job.dataset, train=part)

    def batches(self) -> Any:
        """Of one epoch after the other."""
        assert self.recipe.data is not None
        loader = job_data.training_batches(self.data, self.recipe.data, self.feed, seed=self.recipe.seed)
        return loader if self.noise in (None, "none") else Spoiled(loader, self.noise, self.recipe.seed)

    def run(self, callback: Callback | None = None) -> float:
        """Seconds of the processor that it took; what a callback does is in them."""
        begin = time.process_time()
        kept = KeptTraining(Store(None, "", Accelerator()), "pretrain", callback=callback)
        pretrain(self.network, self.batches(), self.settings, seed=self.recipe.seed, kept=kept)
        self.network.eval()
        return time.process_time() - begin


class Curve(Callback):
    """Validation accuracy of a training after some of its epochs, each with the readout that it would end with.

    Attributes:
        points: ``[epochs, percent]``.
    """

    def __init__(self, training: Training, images: int = 1000) -> None:
        self.training, self.points = training, list[list[float]]()
        self.per_epoch = len(training.batches())
        self.shown = first(training.data, "validation", images)

    def after_update(self, done: int, total: int, loss: float) -> None:
        epochs, rest = divmod(done, self.per_epoch)
        if rest or epochs not in SEEN:
            return
        training = self.training
        network, part = copy.deepcopy(training.network), training.settings.readout
        with torch.random.fork_rng():
            if part is not None and part.name != "none":
                own, accelerator = training.batches(), Accelerator()
                kept = KeptTraining(Store(None, "", accelerator), "readout")
                read_out(network, own, training.settings, kept=kept, accelerator=accelerator)
            self.points.append([epochs, accuracy(network, self.shown)])


def _with(recipe: Recipe, settings: Row) -> Recipe:
    values = recipe.model_dump(by_alias=True, exclude_unset=True)
    return make(changed(values, {f"pretrain.{key}": value for key, value in settings.items()}))


def first(data: DataSet, split: str, count: int | None) -> list[Any]:
    """Batches of the first of stratified images of a split; all of them by default."""
    whole = data.split(split)
    part = whole if count is None or count >= len(whole) else whole.hold_out(count)[1]
    return list(replace(data, **{split: part}).loader(split, 250))


def _tuned(unit: Unit, place: Place, recipe: Recipe, trials: list[Row]) -> Row:
    """The trial with the best accuracy on validation images; one that diverges loses."""
    known, asked = words(recipe), unit.options
    on = asked.get("tuned", {"fraction": 0.2, "epochs": 5})
    parts = (known["network"], known["data"], known["pretrain"]["rule"], known["pretrain"]["readout"])
    name = hash_of(*parts, trials, asked["images"], on)
    path = place.work / "rules" / f"{name}.json"
    own = path.with_suffix("")
    own.mkdir(parents=True, exist_ok=True)
    with alone(own):
        found: list[float] = json.loads(path.read_text()) if path.exists() else []
        for trial in trials[len(found) :]:
            base = recipe.updated(seed=TUNED_WITH, pretrain={"epochs": on["epochs"]})
            training = Training(_with(base, trial), asked["images"], on["fraction"])
            try:
                training.run()
                found.append(accuracy(training.network, training.data.loader("validation", 250)))
            except NonFiniteError:
                found.append(0.0)
            path.write_text(json.dumps(found))
            print(f"{unit.labels['rule']}: {trial} {found[-1]:.2f}", flush=True)
    return trials[max(range(len(trials)), key=found.__getitem__)]


@torch.no_grad()
def pruned(network: nn.Module, share: float) -> nn.Module:
    """A copy in which the smallest weights are zero."""
    left = copy.deepcopy(network)
    weights = select(left)
    assigner = global_magnitude(share)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    for name, weight in weights.items():
        weight.mul_(plan[name].kept.to(weight.device))  # type: ignore[union-attr]
    return left
