"""The data of a job: the data set that a recipe names, and its batches, made where they are used."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fewbits import data
from fewbits.data import CropFlip, DataSet, Normalisation
from fewbits.errors import DataError
from fewbits.recipe.sections import Augment, Data

ROOM = 0.25  # of the memory that a GPU has free, for a split of the data


def load(part: Data) -> DataSet:
    """The data set, normalised as the recipe says.

    Raises:
        DataError: files are missing or damaged.
    """
    dataset = data.load(part.name, part.folder, **part.options)
    if part.normalise is None:
        return dataset
    return dataset.normalised(Normalisation(part.normalise.mean, part.normalise.std))


def training_batches(dataset: DataSet, part: Data, *, seed: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """The training data as a recipe feeds it: shuffled and augmented, on the accelerator.

    Raises:
        RecipeError: the data set cannot be augmented so.
    """
    augment = CropFlip(**part.augment.model_dump()) if isinstance(part.augment, Augment) else part.augment
    home = batches_on(dataset, "train")
    return dataset.loader("train", part.batch_size, shuffle=True, augment=augment, seed=seed, device=home)


def batches_on(dataset: DataSet, split: str) -> torch.device:
    """Where a split's batches are made: on a GPU that has room for it, else on the processor."""
    place, inputs = Accelerator().device, dataset.split(split).inputs
    if place.type == "cuda" and inputs.nbytes <= torch.cuda.mem_get_info(place)[0] * ROOM:
        return place
    return torch.device("cpu")


def check_fit(network: nn.Module, dataset: DataSet, name: str | None = None) -> None:
    """One forward pass on two samples: wrong shapes are found before hours are spent.

    Raises:
        DataError: the network does not take such inputs, or has another number of classes.
    """
    name = name or type(network).__name__
    inputs, _ = next(iter(dataset.loader("validation", 2)))
    network.eval()
    try:
        with torch.no_grad():
            scores = network(inputs)
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
