"""The data of a job, a data set or one's own, and its batches, made where they are used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.data import CropFlip, DataSet, Normalisation
from fewbits.errors import DataError, FewbitsError
from fewbits.job import _sources as sources
from fewbits.job._own_code import blame
from fewbits.job._own_data import OwnData
from fewbits.recipe.sections import Augment, Data
from fewbits.search.layer_rates import carve
from fewbits.task import Classification, Fed, Feed, Task, first_of, main_output, samples_in
from fewbits.task.batches import described

PROXY_BATCH = 250  # samples per forward pass of a search
ROOM = 0.25  # of the memory that a GPU has free, for a split of the data


def load(part: Data, *, seed: int = 0) -> DataSet | OwnData:
    """The data, normalised as the recipe says.

    Args:
        seed: of what is drawn while a function of one's own makes its batches.

    Raises:
        RecipeError: no such data, or code of one's own fails. DataError: files are missing or damaged.
    """
    dataset = sources.data(part, seed=seed)
    if part.normalise is None or isinstance(dataset, OwnData):
        return dataset
    return dataset.normalised(Normalisation(part.normalise.mean, part.normalise.std))


def feed_of(network: nn.Module, dataset: DataSet | OwnData) -> Feed:
    """What splits the data's batches for a network."""
    return dataset.feed(network) if isinstance(dataset, OwnData) else Feed(network)


def training_batches(dataset: DataSet | OwnData, part: Data, feed: Feed, *, seed: int) -> Any:
    """The training data as a recipe feeds it: shuffled and augmented, on the accelerator; one's own as it is.

    Args:
        feed: splits batches of one's own.

    Raises:
        RecipeError: the data set cannot be augmented so.
    """
    if isinstance(dataset, OwnData):
        return Fed(dataset.train, feed, "the training data")
    augment = CropFlip(**part.augment.model_dump()) if isinstance(part.augment, Augment) else part.augment
    home = batches_on(dataset, "train")
    return dataset.loader("train", part.batch_size, shuffle=True, augment=augment, seed=seed, device=home)


def batches_on(dataset: DataSet, split: str) -> torch.device:
    """Where a split's batches are made: on a GPU that has room for it, else on the processor."""
    place, inputs = Accelerator().device, dataset.split(split).inputs
    if place.type == "cuda" and inputs.nbytes <= torch.cuda.mem_get_info(place)[0] * ROOM:
        return place
    return torch.device("cpu")


def evaluation_batches(dataset: DataSet | OwnData, split: str, feed: Feed, size: int = 256) -> Iterable[Any]:
    """A split as it is evaluated, from its first batch on; one's own has batches of its own size.

    Args:
        feed: splits batches of one's own.
    """
    if isinstance(dataset, OwnData):
        return Fed(dataset.batches(split), feed, f"the {split} data of {dataset.name}")
    return dataset.loader(split, size, device=batches_on(dataset, split))


def some_batches(dataset: DataSet | OwnData, feed: Feed, samples: int, split: str = "validation") -> list[Any]:
    """The first batches of at least so many samples, if there are as many, on the processor."""
    if isinstance(dataset, DataSet):
        size = min(64, samples)
        return list(islice(dataset.loader(split, size), max(1, samples // size)))
    found: list[Any] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same ones each time, if PyTorch draws them
        for batch in evaluation_batches(dataset, split, feed):
            found.append(batch)
            samples -= samples_in(batch[0])
            if samples <= 0:
                break
    return found


def proxies(
    dataset: DataSet | OwnData, feed: Feed, proxy: int, calibration: int, seed: int
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Training samples for a search of rates; see :func:`fewbits.search.layer_rates.carve`.

    Of one's own data they are the first ones.

    Raises:
        DataError: there are not so many, or they are no inputs and classes.
    """
    if isinstance(dataset, DataSet):
        return carve(dataset, proxy, calibration, seed)
    end = proxy + calibration
    batches = some_batches(dataset, feed, end, "train")
    if any(not isinstance(part, Tensor) for batch in batches for part in batch):
        raise DataError(f"{dataset.name}: a search needs batches of (inputs, classes), one tensor each")
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if proxy < 1 or calibration < 1 or end > len(targets):
        raise DataError(
            f"{proxy} proxy and {calibration} calibration samples cannot be taken of the {len(targets)} training "
            f"samples of {dataset.name}; take at least one of each"
        )
    first, second = (
        list(zip(inputs[part].split(PROXY_BATCH), targets[part].split(PROXY_BATCH), strict=True))
        for part in (slice(proxy), slice(proxy, end))
    )
    return first, second


def samples(dataset: DataSet | OwnData, feed: Feed, split: str) -> int:
    """How many samples a split has; of one's own they are counted, in a pass over it."""
    if isinstance(dataset, DataSet):
        return len(dataset.split(split))
    return sum(samples_in(batch[0]) for batch in evaluation_batches(dataset, split, feed))


def amount_of_training(dataset: DataSet | OwnData) -> str:
    """How much there is to train on, in words."""
    if isinstance(dataset, DataSet):
        return f"{len(dataset.train)} samples"
    return f"{len(dataset.train)} batches" if hasattr(dataset.train, "__len__") else "the batches"


def one_sample(dataset: DataSet | OwnData, feed: Feed) -> Any:
    """The shape of one sample, or what the network is given for it, if that is not one tensor of floats."""
    if isinstance(dataset, DataSet):
        return dataset.input_shape
    inputs = first_of(some_batches(dataset, feed, 1)[0][0], 1)
    return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs


def check_fit(network: nn.Module, dataset: DataSet | OwnData, task: Task, name: str | None = None) -> None:
    """One forward pass on two samples, or on a first batch of one's own: what does not fit is found before the work.

    Raises:
        DataError: the network does not take such inputs, or has another number of classes.
    """
    name = name or type(network).__name__
    network.eval()
    if isinstance(dataset, OwnData) or not isinstance(task, Classification):
        _check_own(network, dataset, task, name)
        return
    inputs, _ = next(iter(dataset.loader("validation", 2)))
    try:
        with torch.no_grad():
            scores = main_output(network(inputs))
    except (RuntimeError, IndexError) as error:
        raise DataError(
            f"{dataset.name} has inputs of shape {dataset.input_shape}, which {name} does not take: "
            f"{' '.join(str(error).split())}"
        ) from None
    if scores.shape[-1] != len(dataset.classes):
        raise DataError(
            f"{dataset.name} has {len(dataset.classes)} classes, but {name} has "
            f"{scores.shape[-1]} outputs; set network.options.classes"
        )


def _check_own(network: nn.Module, data: DataSet | OwnData, task: Task, name: str) -> None:
    feed = feed_of(network, data)
    first = data.first("validation") if isinstance(data, OwnData) else next(iter(data.loader("validation", 2)))
    one = Fed([first], feed, f"the validation data of {data.name}")
    inputs = first
    try:
        batch = send_to_device(next(iter(one)), next(network.parameters(), torch.zeros(())).device)
        inputs = batch.inputs
        with torch.no_grad(), one.naming():
            outputs = task.forward(network, batch)
            task.check(outputs, batch)
    except FewbitsError:
        raise
    except Exception as error:
        raise DataError(
            f"{name} does not take the first batch of {one.what}, {described(inputs)}: {blame(error)}"
        ) from error
