"""A whole recipe, from data set and network to the files in a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewbits import zoo
from fewbits.attach.plain import plain_copy
from fewbits.data import DataSet
from fewbits.data.normalisation import Renormalised
from fewbits.errors import BudgetError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.hardware import count
from fewbits.job import _identity as identity
from fewbits.job import _sources as sources
from fewbits.job import batches as job_data
from fewbits.job import folder as outputs
from fewbits.job._own_data import OwnData
from fewbits.pipeline import Compressed, Evaluate, Progress, check_network, compress
from fewbits.pipeline._sources import Opened, opened
from fewbits.pipeline.restore import restore
from fewbits.recipe import Recipe
from fewbits.recipe.sections import Network
from fewbits.report.explain import explain as explain_network
from fewbits.report.explanation import Explanation
from fewbits.report.report import Report
from fewbits.report.words import allowed, lost, quality
from fewbits.task import Classification, Feed, Task
from fewbits.train import Whitened, pretrain
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.told import Told

Say = Callable[[str], None]

EXPLAINED = 512  # samples on which relevance is taken for an explanation
SHOWN = 256  # of them, those among which images for heat maps are looked for


@dataclass(frozen=True, eq=False)
class Job:
    """What a recipe names, loaded: the data, the trained float network, the task, and the teacher if that is another.

    ``kept`` has the state of the training that made the float network; see :meth:`safe`. ``given`` says what a network
    and data of one's own were; ``None`` without such. ``trained``: whether the network is.
    """

    recipe: Recipe
    dataset: DataSet | OwnData
    network: nn.Module
    teacher: nn.Module | None = None
    kept: KeptTraining | None = None
    given: str | None = None
    trained: bool = False
    task: Task = field(default_factory=Classification)

    @property
    def feed(self) -> Feed:
        """Splits batches of one's own for the network."""
        return job_data.feed_of(self.network, self.dataset)

    @property
    def final_split(self) -> str:
        """The data that figures in the report are of: ``test``, or ``validation`` if one's own data has no test."""
        return "test" if self.dataset.test is not None else "validation"

    @property
    def words(self) -> dict[str, str]:
        """What a file with the float network says beside its tensors, for whoever goes on from there."""
        return {} if self.given is None else {outputs.GIVEN: self.given}

    def safe(self) -> None:
        """The float network is written: remove what an interrupted training of it would have gone on from."""
        if self.kept is not None:
            self.kept.store.forget()

    def evaluate(self, split: str) -> Evaluate:
        """The task's metric on a split, as a function of a network, which goes to the accelerator for it and back."""
        place = Accelerator().device

        def measured(model: nn.Module) -> float:
            home = next(model.parameters()).device
            batches = job_data.evaluation_batches(self.dataset, split, self.feed)
            try:
                return self.task.evaluate(model.to(place), batches)
            finally:
                model.to(home)

        return measured

    def shown(self, value: float) -> float:
        """What the task's metric measured, as reports show it: percent for fractions."""
        return self.task.scale.shown(self.task.scale.score(value))

    def skeleton(self) -> nn.Module:
        """An untrained network of the recipe's kind, to decode into."""
        return copy.deepcopy(self.network)

    def decoded(self, path: Path, base: Path | None = None, member: str | None = None) -> nn.Module:
        """The network that a ``.few`` file holds.

        Args:
            base: of a file of differences, what these are to; default: the recipe's. member: of a file of several
                networks, which one.

        Raises:
            FileError: the file is missing, damaged, or of another network.
        """
        found = self.opened(path, base, member)
        return restore(found.data, self.network, found.base)[0]

    def opened(self, path: Path, base: Path | None, member: str | None) -> Opened:
        """The bytes of a file, and its base; see :meth:`decoded`."""
        return opened(path, base or self.recipe.base, member, self.network)


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
        RecipeError: the recipe names no network or no data, or cannot be met whatever is trained. SelectionError: a
            pattern of its section select matches no weight. DataError: files are missing or damaged, or the state is
            of another network, data set, training, seed or number of processes.
        MismatchError: the weights, or the data's classes, do not fit the network.
        NonFiniteError: the training's loss is not finite. FileError: its state cannot be written.
    """
    job = skeleton(recipe, trained)
    if recipe.train.teacher is not None:
        job = replace(job, teacher=_teacher(recipe.train.teacher, job, recipe.seed))
        say(f"{recipe.train.teacher.name} teaches")
    assert recipe.network is not None
    assert recipe.data is not None
    name, weights = recipe.network.name, trained or recipe.network.weights
    if recipe.network.weights is None and recipe.pretrain is not None:
        job = keeping(job, progress, state_file)
    if weights is not None:
        say(f"{name}: trained weights from {Path(weights).name}")
    elif job.kept is not None:
        inputs = job_data.some_batches(job.dataset, job.feed, 1)[0][0] if recipe.ops else None
        check_network(recipe, job.network, inputs, evaluate=job.evaluate("validation"), teacher=job.teacher)
        train_here(job, job.kept, say)
    elif job.trained:
        say(f"{name}: taken as trained")
    else:
        ways = ["network.weights (a .safetensors file)", "a pretrain section", *_more_ways(name)]
        raise RecipeError(f"the network is untrained: give {', '.join(ways[:-1])} or {ways[-1]}")
    return job


def keeping(job: Job, progress: Progress | None, state_file: Path | None) -> Job:
    """The job with what keeps the training of its float network."""
    words = job.recipe.model_dump_json(include={"network", "data", "pretrain", "seed"}) + (job.given or "")
    store = Store(state_file, words, Accelerator())
    return replace(job, kept=KeptTraining(store, "pretrain", callback=Told(progress) if progress else None))


def _more_ways(name: str) -> list[str]:
    """How a network that is not of the zoo may be trained already."""
    library, colon, _ = name.partition(":")
    options = {"torchvision": "network.options.weights (DEFAULT)", "timm": "network.options.pretrained (true)"}
    if library in options:
        return [options[library]]
    return ["the name of a function that returns it trained"] if colon else []


def train_here(job: Job, kept: KeptTraining, say: Say) -> None:
    """Train the float network of a job, or go on with that."""
    recipe = job.recipe
    assert recipe.network is not None
    assert recipe.data is not None
    assert recipe.pretrain is not None
    loader = job_data.training_batches(job.dataset, recipe.data, job.feed, seed=recipe.seed)
    again = "" if kept.saved is None else f", from step {kept.saved['steps']} on"
    amount = job_data.amount_of_training(job.dataset)
    say(f"{recipe.network.name}: training on {amount} of {job.dataset.name}{again}")
    try:
        pretrain(job.network, loader, recipe.pretrain, seed=recipe.seed, kept=kept, task=job.task)
    except NonFiniteError:
        kept.store.forget()  # going on from there would only end here again
        raise
    job.network.eval()


def _teacher(part: Network, job: Job, seed: int) -> nn.Module:
    source = sources.network(part, seed=seed)
    wanted = None
    if part.weights is not None:
        wanted = zoo.normalisation(sources.load_weights(source.network, part.weights))
    elif not source.trained:
        raise RecipeError("an untrained teacher teaches nothing: give train.teacher.weights")
    network = plain_copy(source.network) if source.own else source.network
    given = job.dataset.normalisation
    taught = network if wanted is None or given is None or wanted == given else Renormalised(network, given, wanted)
    job_data.check_fit(taught, job.dataset, job.task, part.name)
    return taught.eval()


def skeleton(recipe: Recipe, trained: Path | None = None) -> Job:
    """The recipe's data and network, with its trained weights if there is a file of them: enough to decode into.

    Code of one's own that the recipe names is run.

    Raises:
        RecipeError, DataError, MismatchError, MissingExtraError: as :func:`prepare`.
    """
    if recipe.network is None or recipe.data is None:
        missing = [key for key in ("network", "data") if getattr(recipe, key) is None]
        ways = " and ".join(f"'{key}: {{name: ...}}'" for key in missing)
        raise RecipeError(f"this recipe names no {' and no '.join(missing)}; add {ways}")
    task = sources.task(recipe.task, seed=recipe.seed)
    source = sources.network(recipe.network, seed=recipe.seed)
    dataset, network = job_data.load(recipe.data, seed=recipe.seed), source.network
    wanted, given, weights = None, None, recipe.network.weights
    recorded = None if trained is None else outputs.recorded(trained, outputs.GIVEN)
    known_again = (source.own or isinstance(dataset, OwnData)) and (trained is None or recorded is not None)
    whiten = recipe.network.whiten
    network = network if whiten is None else _whitened(network, dataset, whiten)
    if weights is not None and (trained is None or known_again):
        wanted = zoo.normalisation(sources.load_weights(network, weights))
    network = plain_copy(network) if source.own else network
    if known_again:
        given = identity.given(network, dataset, trained=weights is not None or recipe.pretrain is None)
        if trained is not None and recorded is not None:
            names = {"network": recipe.network.name, "data": recipe.data.name}
            identity.check(recorded, given, trained.parent, names)
    if trained is not None:
        wanted = zoo.normalisation(sources.load_weights(network, trained))
    if wanted is not None and isinstance(dataset, DataSet):  # the weights say how their inputs are normalised
        dataset = dataset.normalised(wanted)
    ready = source.trained or trained is not None
    job_data.check_fit(network, dataset, task, recipe.network.name if source.own else None)
    return Job(recipe, dataset, network.eval(), given=given, trained=ready, task=task)


def _whitened(network: nn.Module, dataset: DataSet | OwnData, whiten: int | str) -> nn.Module:
    shape = job_data.one_sample(dataset, job_data.feed_of(network, dataset))
    if not isinstance(shape, tuple):
        raise RecipeError("network.whiten is for one tensor of numbers, and this network takes something else")
    return Whitened(network, shape, None if whiten == "whole" else int(whiten))


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
            job.network,
            out / outputs.UNFINISHED,
            job.dataset.normalisation,
            recipe=recipe.model_dump_json(),
            **job.words,
        )
        job.safe()
    loader = job_data.training_batches(job.dataset, recipe.data, job.feed, seed=recipe.seed + 1)
    split = job.final_split
    final = job.evaluate(split)
    before, metric = job.shown(final(job.network)), job.task.scale.name
    amount = job_data.samples(job.dataset, job.feed, split)
    say(f"float network: {quality(before, metric)} on {amount} {split} samples")
    try:
        result = compress(
            job.network,
            loader,
            evaluate=job.evaluate("validation"),
            recipe=recipe,
            task=job.task,
            metric=metric,
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
    after = job.shown(final(result.into(job.skeleton())))
    report = result.report.updated(
        accuracy_before=before, accuracy_after=after, split=split, versions=outputs.versions()
    )
    if writes:  # before anything else can go wrong
        result.save(out / recipe.output)
        outputs.save_float(job.network, out / outputs.FLOAT, job.dataset.normalisation)
    if recipe.prune is not None or recipe.channels is not None:
        report = _counted(report, job, result, say)
    result = replace(result, report=report)
    if writes:
        outputs.write_text(out / "report.json", report.to_json())
        if resume:
            outputs.forget(out)
    return result


def _counted(report: Report, job: Job, result: Compressed, say: Say) -> Report:
    """The report with the multiplications that are left."""
    sample = job_data.one_sample(job.dataset, job.feed)
    try:
        dense = count(job.network, sample)
        found = count(result.into(job.skeleton()), sample, result.plan)
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


def _shown(batches: list[Any]) -> tuple[Any, Tensor | None]:
    """The first inputs and targets, if they are images or texts, and classes."""
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    count = 0
    for batch in batches:
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(t, Tensor) for t in batch)
        if count >= SHOWN or not pair or batch[0].dim() != 4 or batch[1].dim() != 1:
            break
        if inputs and inputs[0].shape[1:] != batch[0].shape[1:]:
            break
        inputs.append(batch[0])
        targets.append(batch[1])
        count += len(batch[0])
    if inputs:
        return torch.cat(inputs), torch.cat(targets)
    first = batches[0] if batches else (None, None)
    texts = isinstance(first[1], Tensor) and first[1].dim() == 1
    return (first[0], first[1]) if texts else (None, None)


def explain(
    job: Job,
    file: Path,
    rules: str,
    base: Path | None = None,
    member: str | None = None,
    vocabulary: Mapping[int, str] | None = None,
) -> Explanation:
    """Relevance before and after compression, on the validation data; heat maps of its first images or texts.

    Args:
        vocabulary: the text of each token; their numbers by default.
        base, member: as of :meth:`Job.decoded`.

    Raises:
        FileError: missing, damaged, or of another network.
    """
    found = job.opened(file, base, member)
    after, plan = restore(found.data, job.network, found.base)
    batches = job_data.some_batches(job.dataset, job.feed, EXPLAINED)
    shown, targets = _shown(batches) if isinstance(job.task, Classification) else (None, None)
    return explain_network(
        job.network,
        after,
        plan,
        batches,
        shown,
        targets,
        classes=job.dataset.classes,
        vocabulary=vocabulary,
        rules=rules,
        task=job.task,
    )
