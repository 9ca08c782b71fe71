"""Accuracy on a few training samples: what a search looks at, so that nobody's test data is spent on choices."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fewbits.data.dataset import DataSet
from fewbits.data.stratify import stratify
from fewbits.errors import DataError
from fewbits.search.layer_rates._journal import Journal
from fewbits.search.layer_rates._space import Kept, RateSpace
from fewbits.task import accuracy, laid_out
from fewbits.train import FloatStatistics
from fewbits.train.recalibrate import recalibrate
from fewbits.train.step import computing

Batches = Sequence[tuple[Tensor, Tensor]]

BATCH = 250  # samples per forward pass
RECALIBRATION = "relative to the float network"  # a journal of answers taken otherwise is of no use


def carve(dataset: DataSet, proxy: int = 500, calibration: int = 128, seed: int = 0) -> tuple[Batches, Batches]:
    """Proxy and calibration batches, out of the training split; validation and test are not touched.

    The two share no sample. By class, and the same for the same seed.

    Args:
        proxy: samples that accuracy is taken on. calibration: samples that normalisation statistics are corrected on.

    Raises:
        DataError: the training split has not so many.
    """
    train = dataset.train
    if proxy < 1 or calibration < 1 or proxy + calibration >= len(train):
        raise DataError(
            f"{proxy} proxy and {calibration} calibration samples cannot be taken of the {len(train)} training samples "
            f"of {dataset.name}; take at least one of each, and leave one"
        )
    _, taken = stratify(train.targets, proxy + calibration, seed)
    first, second = stratify(train.targets[taken], calibration, seed)

    def batches(indices: Tensor) -> Batches:
        part = dataclasses.replace(dataset, train=train.subset(indices))
        return list(part.loader("train", BATCH))

    return batches(taken[first]), batches(taken[second])


class Proxy:
    """The accuracy of pruned copies of one network: mask, recalibrate, count what is right.

    Always from the dense weights: nothing of one choice is left in the next. Answers are remembered, here and, with a
    journal, on disk; what a search pays is :class:`Evaluator`'s business.

    Args:
        model: the dense network; it is copied.
        space: its layers. proxy, calibration: batches of (inputs, classes), see :func:`carve`.
        precision: ``bfloat16`` (autocast) is faster on processors that have it; accuracies then differ a little.
        journal: file that keeps the answers, so that an interrupted search repeats none of them.

    Raises:
        DataError: no samples, or a journal of another network, data or precision.
    """

    def __init__(
        self,
        model: nn.Module,
        space: RateSpace,
        proxy: Batches,
        calibration: Batches,
        *,
        precision: str = "float32",
        journal: Path | None = None,
    ) -> None:
        self.space, self.precision = space, precision
        self.model = copy.deepcopy(model).eval()
        if precision != "float32":
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = [self.model.get_parameter(name) for name in space.names]
        self.proxy = [(laid_out(x), y) for x, y in proxy]
        self.calibration = [(laid_out(x), y) for x, y in calibration]
        if not self.proxy or not self.calibration:
            raise DataError("a search needs proxy and calibration samples")
        self._dense = FloatStatistics(self.model)  # while the copy still is the dense network
        with computing(precision, self.parameters[0].device):
            for number, batch in enumerate(self.calibration):
                self._dense.see(number, batch[0])
        self.runs = 0  # of the network, for nothing but curiosity and tests
        self._journal = Journal(journal, self.fingerprint()) if journal is not None else None
        self._known: dict[Kept, float] = dict(self._journal.known) if self._journal is not None else {}

    def __call__(self, kept: Kept) -> float:
        """Percent of the proxy samples that the network gets right with these weights."""
        if kept not in self._known:
            self.load(kept)
            self.runs += 1
            with computing(self.precision, self.parameters[0].device):
                recalibrate(self.model, self.calibration, self._dense)
                self._known[kept] = accuracy(self.model, self.proxy)
            if self._journal is not None:
                self._journal.note(kept, self._known[kept])
        return self._known[kept]

    @torch.no_grad()
    def load(self, kept: Kept) -> None:
        """Give the copy of the network the dense weights under the masks of a choice."""
        for i, (parameter, weight) in enumerate(zip(self.parameters, self.space.weights.values(), strict=True)):
            parameter.copy_(weight * self.space.mask(i, kept[i]))

    def fingerprint(self) -> str:
        """Of all that an answer depends on, but for the machine."""
        found = hashlib.sha256(repr((self.space.names, self.space.sizes, self.precision, RECALIBRATION)).encode())
        tensors = [t for t in self.model.state_dict().values() if t.is_floating_point()]
        for tensor in (
            *tensors,
            *(t for batches in (self.proxy, self.calibration) for batch in batches for t in batch),
        ):
            found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()
