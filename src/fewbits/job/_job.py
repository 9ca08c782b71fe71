"""A whole recipe, from data set and network to the files in a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from fewbits import files, zoo
from fewbits.data import DataSet
from fewbits.data.normalisation import Renormalised
from fewbits.errors import BudgetError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.hardware import count
from fewbits.job import batches as job_data
from fewbits.job import folder as outputs
from fewbits.pipeline import Compressed, Evaluate, Progress, check, compress
from fewbits.pipeline.parts import assigners
from fewbits.pipeline.restore import restore
from fewbits.recipe import Recipe
from fewbits.recipe.sections import Network
from fewbits.report.explain import explain as explain_network
from fewbits.report.explanation import Explanation
from fewbits.report.report import Report
from fewbits.report.words import allowed, lost
from fewbits.task import accuracy
from fewbits.train import Callback, pretrain
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining

Say = Callable[[str], None]

EXPLAINED = 512  # samples on which relevance is taken for an explanation


@dataclass(frozen=True, eq=False)
class Job:
    """What a recipe names, loaded: the data, the trained float network, and the teacher if that is another one.

    ``kept`` has the state of the training that made the float network; see :meth:`safe`.
    """

    recipe: Recipe
    dataset: DataSet
    network: nn.Module
    teacher: nn.Module | None = None
    kept: KeptTraining | None = None

    def safe(self) -> None:
        """The float network is written: remove what an interrupted training of it would have gone on from."""
        if self.kept is not None:
            self.kept.store.forget()

    def evaluate(self, split: str) -> Evaluate:
        """Accuracy in percent on a split, as a function of a network, which goes to the accelerator for it and back."""
        place = Accelerator().device

        def percent(model: nn.Module) -> float:
            home = next(model.parameters()).device
            try:
                return accuracy(
                    model.to(place), self.dataset.loader(split, 256, device=job_data.batches_on(self.dataset, split))
                )
            finally:
                model.to(home)

        return percent

    def skeleton(self) -> nn.Module:
        """An untrained network of the recipe's kind, to decode into."""
        return copy.deepcopy(self.network)

    def decoded(self, path: Path) -> nn.Module:
        """The network that a ``.few`` file holds.

        Raises:
            FileError: the file is missing, damaged, or of another network.
        """
        return restore(files.read(path), self.network)[0]


class _Bar(Callback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def after_update(self, done: int, total: int, loss: float) -> None:
        self.progress(done, total, f"loss {loss:.3f}")


def prepare(
    recipe: Recipe,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
    trained: Path | None = None,
    state_file: Path | None = None,
) -> Job:
    """Load the data set, build the network, and give it trained weights: from a file, or by training it here.

    Args:
        say: called with a sentence about each step.
        trained: a file with the float network's weights that goes before the recipe's.
        state_file: where a training here keeps its state, and from where it goes on if it was interrupted. Whoever
            gives it calls :meth:`Job.safe` once the float network is written.

    Raises:
        RecipeError: the recipe names no network or no data. DataError: files are missing or damaged, or the state is
            of another network, data set, training, seed or number of processes.
        MismatchError: the weights, or the data's classes, do not fit the network.
        NonFiniteError: the training's loss is not finite. FileError: its state cannot be written.
    """
    job = skeleton(recipe, trained)
    if recipe.train.teacher is not None:
        job = replace(job, teacher=_teacher(recipe.train.teacher, job.dataset))
        say(f"{recipe.train.teacher.name} teaches")
    assert recipe.network is not None
    assert recipe.data is not None
    name, weights = recipe.network.name, trained or recipe.network.weights
    if recipe.network.weights is None and recipe.pretrain is not None:
        words = recipe.model_dump_json(include={"network", "data", "pretrain", "seed"})
        bar = _Bar(progress) if progress else None
        store = Store(state_file, words, Accelerator())
        job = replace(job, kept=KeptTraining(store, "pretrain", callback=bar))
    if weights is not None:
        say(f"{name}: trained weights from {Path(weights).name}")
    elif job.kept is not None:
        _trained(job, job.kept, say)
    else:
        raise RecipeError("the network is untrained: give network.weights (a .safetensors file) or a pretrain section")
    return job


def _trained(job: Job, kept: KeptTraining, say: Say) -> None:
    """Train the float network of a job, or go on with that."""
    recipe = job.recipe
    assert recipe.network is not None
    assert recipe.data is not None
    assert recipe.pretrain is not None
    check(recipe)
    assigners(recipe, job.network)  # an option that it refuses is found before anything is trained
    loader = job_data.training_batches(job.dataset, recipe.data, seed=recipe.seed)
    again = "" if kept.saved is None else f", from step {kept.saved['steps']} on"
    say(f"{recipe.network.name}: training on {len(job.dataset.train)} samples of {job.dataset.name}{again}")
    try:
        pretrain(job.network, loader, recipe.pretrain, seed=recipe.seed, kept=kept)
    except NonFiniteError:
        kept.store.forget()  # going on from there would only end here again
        raise
    job.network.eval()


def _teacher(part: Network, dataset: DataSet) -> nn.Module:
    network = zoo.build(part.name, **part.options)
    assert part.weights is not None  # the recipe sees to that
    wanted = zoo.normalisation(zoo.load_weights(network, part.weights))
    given = dataset.normalisation
    taught = network if wanted is None or wanted == given else Renormalised(network, given, wanted)
    job_data.check_fit(taught, dataset, part.name)
    return taught.eval()


def skeleton(recipe: Recipe, trained: Path | None = None) -> Job:
    """The recipe's data and network, with its trained weights if there is a file of them: enough to decode into.

    Raises:
        RecipeError, DataError, MismatchError: as :func:`prepare`.
    """
    if recipe.network is None or recipe.data is None:
        raise RecipeError(
            "this recipe names no network and no data; add 'network: {name: ...}' and 'data: {name: ...}'"
        )
    dataset = job_data.load(recipe.data)
    network = zoo.build(recipe.network.name, seed=recipe.seed, **recipe.network.options)
    weights = trained or recipe.network.weights
    if weights is not None:
        wanted = zoo.normalisation(zoo.load_weights(network, weights))
        if wanted is not None:  # the weights say how their inputs are normalised
            dataset = dataset.normalised(wanted)
    job_data.check_fit(network, dataset)
    return Job(recipe, dataset, network.eval())


def run(
    job: Job,
    out: Path,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
    resume: bool = True,
) -> Compressed:
    """Compress the job's network; write the file, its report and the float weights into ``out``.

    All choices are made on validation data; the test data is looked at once, at the end, for the report. Of
    several processes the main one writes.

    Args:
        resume: keep the state of the run in ``out``, and go on from the one that is there.

    Raises:
        FileError: the folder cannot be written, or another job works in it.
    """
    outputs.ready(job.recipe, out)
    with outputs.working_in(out, job.recipe):
        return _run(job, out, say, progress, resume)


def _run(job: Job, out: Path, say: Say, progress: Progress | None, resume: bool) -> Compressed:
    recipe = job.recipe
    assert recipe.data is not None
    outputs.folder(out)
    writes = outputs.is_main_process()
    if writes and resume:
        outputs.save_float(
            job.network, out / outputs.UNFINISHED, job.dataset.normalisation, recipe=recipe.model_dump_json()
        )
        job.safe()
    loader = job_data.training_batches(job.dataset, recipe.data, seed=recipe.seed + 1)
    test = job.evaluate("test")
    before = test(job.network)
    say(f"float network: {before:.2f} % on {len(job.dataset.test)} test samples")
    try:
        result = compress(
            job.network,
            loader,
            evaluate=job.evaluate("validation"),
            recipe=recipe,
            teacher=job.teacher,
            state_file=out / outputs.STATE if resume else None,
            keep_state=True,
            progress=progress,
        )
    except (BudgetError, NonFiniteError):
        if writes and resume:
            outputs.forget(out)  # going on from there would only end here again
        raise
    if result.report.met is False:
        say(_missed(result.report))
    after = test(result.into(job.skeleton()))
    report = result.report.updated(
        accuracy_before=before, accuracy_after=after, split="test", versions=outputs.versions()
    )
    if writes:  # before anything else can go wrong
        result.save(out / recipe.output)
        outputs.save_float(job.network, out / outputs.FLOAT, job.dataset.normalisation)
    if recipe.prune is not None or recipe.channels is not None:
        report = _counted(report, job, result, say)
    result = Compressed(result.plan, result.data, report)
    if writes:
        outputs.write_text(out / "report.json", report.to_json())
        if resume:
            outputs.forget(out)
    return result


def _counted(report: Report, job: Job, result: Compressed, say: Say) -> Report:
    """The report with the multiplications that are left."""
    try:
        dense = count(job.network, job.dataset.input_shape)
        found = count(result.into(job.skeleton()), job.dataset.input_shape, result.plan)
    except UnsupportedError as error:
        say(f"multiplications are not in the report: {error}")
        return report
    return report.updated(macs=dense.macs, macs_left=found.nonzero_macs)


def _missed(report: Report) -> str:
    """What was reached, in the terms of the budget that was not."""
    parts = [f"{report.file_bytes:,} bytes"]
    if report.target is not None:
        parts[0] += f" (asked for at most {report.target:,})"
    if report.max_drop is not None and report.drop is not None:
        asked = allowed(report.max_drop, report.metric)
        parts.append(f"{lost(report.drop, report.metric)} on validation data (asked for {asked})")
    return f"the budget was not met; reached: {' and '.join(parts)}"


def explain(job: Job, file: Path, rules: str) -> Explanation:
    """Relevance before and after compression, on the validation data; heat maps of its first images.

    Raises:
        FileError: missing, damaged, or of another network.
    """
    after, plan = restore(files.read(file), job.network)
    inputs, targets = next(iter(job.dataset.loader("validation", 256)))
    return explain_network(
        job.network,
        after,
        plan,
        list(islice(job.dataset.loader("validation", 64), EXPLAINED // 64)),
        inputs if inputs.dim() == 4 else None,
        targets,
        classes=job.dataset.classes,
        rules=rules,
    )
