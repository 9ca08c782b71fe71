"""A whole recipe, from data set and network to the files in a folder."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from fewbits import codec, data, zoo
from fewbits.attach import load_plan
from fewbits.compress import Compressed, Evaluate, Progress, compress
from fewbits.data import DataSet, Normalisation
from fewbits.errors import DataError, FileError, RecipeError
from fewbits.recipe import Data, Recipe
from fewbits.report.explain import explain as explain_network
from fewbits.report.explanation import Explanation
from fewbits.report.report import Report
from fewbits.train import Companion, accuracy, pretrain

Say = Callable[[str], None]

EXPLAINED = 512  # samples on which relevance is taken for an explanation


@dataclass(frozen=True, eq=False)
class Job:
    """What a recipe names, loaded: the data and the trained float network."""

    recipe: Recipe
    dataset: DataSet
    network: nn.Module

    def evaluate(self, split: str) -> Evaluate:
        """Accuracy in percent on a split, as a function of a network."""

        def percent(model: nn.Module) -> float:
            return accuracy(model, self.dataset.loader(split, 256))

        return percent

    def skeleton(self) -> nn.Module:
        """An untrained network of the recipe's kind, to decode into."""
        return copy.deepcopy(self.network)

    def decoded(self, path: Path) -> nn.Module:
        """The network that a ``.few`` file holds.

        Raises:
            FileError: the file is missing, damaged, or of another network.
        """
        model = self.skeleton()
        load_plan(model, codec.decode(codec.read(path), like=model))
        return model.eval()


class _Bar(Companion):
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
) -> Job:
    """Load the data set, build the network, and give it trained weights: from a file, or by training it here.

    Args:
        say: called with a sentence about each step.
        trained: a file with the float network's weights that goes before the recipe's.

    Raises:
        RecipeError: the recipe names no network or no data. DataError: files are missing or damaged.
        MismatchError: the weights, or the data's classes, do not fit the network.
    """
    if recipe.network is None or recipe.data is None:
        raise RecipeError(
            "this recipe names no network and no data; add 'network: {name: ...}' and 'data: {name: ...}'"
        )
    dataset = _dataset(recipe.data)
    network = zoo.build(recipe.network.name, seed=recipe.seed, **recipe.network.options)
    weights = trained or (Path(recipe.network.weights) if recipe.network.weights else None)
    if weights is not None:
        wanted = zoo.normalisation(zoo.load_weights(network, weights))
        if wanted is not None:
            dataset = dataset.normalised(wanted)
        say(f"{recipe.network.name}: trained weights from {weights.name}")
    _check_fit(network, dataset)
    if weights is None and recipe.pretrain is not None:
        say(f"{recipe.network.name}: training on {len(dataset.train)} samples of {dataset.name}")
        loader = dataset.loader(
            "train", recipe.data.batch_size, shuffle=True, augment=recipe.data.augment, seed=recipe.seed
        )
        bar = _Bar(progress) if progress else None
        pretrain(network, loader, recipe.pretrain, seed=recipe.seed, companion=bar)
    elif weights is None:
        raise RecipeError("the network is untrained: give network.weights (a .safetensors file) or a pretrain section")
    return Job(recipe, dataset, network.eval())


def _dataset(part: Data) -> DataSet:
    dataset = data.load(part.name, part.folder, **part.options)
    if part.normalise is None:
        return dataset
    return dataset.normalised(Normalisation(part.normalise.mean, part.normalise.std))


def skeleton(recipe: Recipe) -> Job:
    """Like :func:`prepare` for decoding: the network stays untrained, and its normalisation is the data set's.

    Raises:
        RecipeError, DataError: as :func:`prepare`.
    """
    if recipe.network is None or recipe.data is None:
        raise RecipeError("this recipe names no network and no data")
    dataset = _dataset(recipe.data)
    network = zoo.build(recipe.network.name, seed=recipe.seed, **recipe.network.options)
    if recipe.network.weights is not None:  # they say how their inputs are normalised
        wanted = zoo.normalisation(zoo.load_weights(network, recipe.network.weights))
        if wanted is not None:
            dataset = dataset.normalised(wanted)
    _check_fit(network, dataset)
    return Job(recipe, dataset, network.eval())


def _check_fit(network: nn.Module, dataset: DataSet) -> None:
    """One forward pass on two samples: wrong shapes are found before hours are spent."""
    inputs, _ = next(iter(dataset.loader("validation", 2)))
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(inputs)
    except RuntimeError as error:
        raise DataError(
            f"{dataset.name} has inputs of shape {dataset.input_shape}, which {type(network).__name__} does not take: "
            f"{' '.join(str(error).split())}"
        ) from None
    if outputs.shape[-1] != len(dataset.classes):
        raise DataError(
            f"{dataset.name} has {len(dataset.classes)} classes, but {type(network).__name__} has "
            f"{outputs.shape[-1]} outputs; set network.options.classes"
        )


def run(
    job: Job,
    out: Path,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
    resume: bool = True,
) -> Compressed:
    """Compress the job's network; write the file, its report and the float weights into ``out``.

    All choices are made on validation data; the test data is looked at once, at the end, for the report.

    Raises:
        FileError: the folder cannot be written.
    """
    folder(out)
    recipe = job.recipe
    assert recipe.data is not None
    loader = job.dataset.loader(
        "train", recipe.data.batch_size, shuffle=True, augment=recipe.data.augment, seed=recipe.seed + 1
    )
    test = job.evaluate("test")
    before = test(job.network)
    say(f"float network: {before:.2f} % on {len(job.dataset.test)} test samples")
    result = compress(
        job.network,
        loader,
        evaluate=job.evaluate("validation"),
        recipe=recipe,
        state_file=out / "unfinished.state" if resume else None,
        progress=progress,
    )
    after = test(result.into(job.skeleton()))
    report = result.report.updated(accuracy_before=before, accuracy_after=after, split="test", versions=versions())
    result = Compressed(result.plan, result.data, report)
    result.save(out / recipe.output)
    save_float(job.network, out / "float.safetensors", job.dataset.normalisation)
    write_text(out / "report.json", report.to_json())
    return result


def explain(job: Job, file: Path, rules: str) -> Explanation:
    """Relevance before and after compression, on the validation data; heat maps of its first images.

    Raises:
        FileError: the file is missing, damaged, or of another network.
    """
    plan = codec.decode(codec.read(file), like=job.network)
    inputs, targets = next(iter(job.dataset.loader("validation", 256)))
    return explain_network(
        job.network,
        job.decoded(file),
        plan,
        list(islice(job.dataset.loader("validation", 64), EXPLAINED // 64)),
        inputs if inputs.dim() == 4 else None,
        targets,
        classes=job.dataset.classes,
        rules=rules,
    )


def write_pictures(explanation: Explanation, out: Path) -> list[str]:
    """Write an explanation's pictures as PNG files into a folder, and return their names.

    Raises:
        MissingExtraError: matplotlib is not installed. FileError: the folder cannot be written.
    """
    from fewbits.report import plots

    figures = {"kept.png": plots.kept(explanation)}
    if explanation.maps:
        figures["heatmaps.png"] = plots.heatmaps(explanation)
    for layer in explanation.layers:
        figures[f"relevance-{layer.name}.png"] = plots.relevance_v_magnitude(explanation, layer.name)
    for name, figure in figures.items():
        codec.write(out / name, plots.figure_png(figure))
    return list(figures)


def versions() -> dict[str, str]:
    """What a figure depends on."""
    names = ("fewbits", "torch", "numpy", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def folder(path: Path) -> Path:
    """Make a folder.

    Raises:
        FileError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        FileError: it cannot be written.
    """
    codec.write(path, text.encode())


def save_float(network: nn.Module, path: Path, normalise: Normalisation) -> None:
    """The float network as safetensors, with the normalisation that its inputs want.

    Raises:
        FileError: it cannot be written.
    """
    mean, std = (" ".join(str(v) for v in values) for values in (normalise.mean, normalise.std))
    try:
        tensors = {n: t.contiguous() for n, t in network.state_dict().items()}
        save_file(tensors, path, metadata={"normalise": f"mean {mean} std {std}"})
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}") from error


def load_report(path: Path) -> Report:
    """The report beside a file.

    Raises:
        DataError: missing or not a report.
    """
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a report: {error}") from error
