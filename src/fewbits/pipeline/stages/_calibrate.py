"""Activations on grids: the network's integer form, and the ranges that its activations have on data."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice

from accelerate.utils import send_to_device

from fewbits.int8.form import calibrate, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.pipeline.stages._once import check_folding
from fewbits.pipeline.stages._work import Context, Work
from fewbits.train.loop import first_inputs


class Collect:
    """Keeps inputs of the first batches, with which plans of clusters are calibrated whenever one is written.

    The network trains as it is: normalisation goes on learning from batches, which its integer form has none of.

    Args:
        batches: how many.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def run(self, work: Work, context: Context) -> Work:
        """The work with its inputs.

        Raises:
            DataError: no batches. UnsupportedError, SelectionError: the network has no integer form.
        """
        check_folding(work)
        integer_form(work.model)  # what cannot be written is not trained
        return replace(work, calibration=tuple(first_inputs(work.train, self.batches)))


class Calibrate:
    """Makes the integer form of the network, with ranges from the first batches.

    Args:
        batches: how many. alone: whether it is to compute in integers alone.
    """

    def __init__(self, batches: int, *, alone: bool = False) -> None:
        self.batches, self.alone = batches, alone

    def run(self, work: Work, context: Context) -> Work:
        """The work with a form to train or to write.

        Raises:
            UnsupportedError, SelectionError: the network has no integer form. DataError, NonFiniteError: as
                :func:`fewbits.int8.calibrate`.
        """
        check_folding(work)
        device = context.accelerator.device
        batches = (send_to_device(inputs, device) for inputs in first_inputs(work.train, self.batches))
        first = list(islice(batches, 1))
        form = integer_form(work.model, RangedQuantizer, alone=self.alone, inputs=first[0] if first else None)
        calibrate(form, chain(first, batches))
        return replace(work, form=form)
