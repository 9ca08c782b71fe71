"""Activations on grids: the network's integer form, and the ranges that its activations have on data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from accelerate.utils import send_to_device

from fewbits.int8.form import calibrate, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.pipeline.stages._work import Context, Work
from fewbits.train.loop import batches_of, endless


class Calibrate:
    """Makes the integer form of the network, with ranges from the first batches.

    Args:
        batches: how many.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def run(self, work: Work, context: Context) -> Work:
        """The work with a form to train or to write.

        Raises:
            UnsupportedError, SelectionError: the network has no integer form. DataError, NonFiniteError: as
                :func:`fewbits.int8.calibrate`.
        """
        form = integer_form(work.model, RangedQuantizer)
        calibrate(form, self._inputs(work, context.accelerator.device))
        return replace(work, form=form)

    def _inputs(self, work: Work, device: Any) -> Iterator[Any]:
        for batch in islice(endless(work.train), min(self.batches, batches_of(work.train))):  # of the first epoch
            yield send_to_device(batch[0], device)
