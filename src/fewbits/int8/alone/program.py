"""A network in integers alone as a list of integer operations, which NumPy runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewbits.errors import UnsupportedError
from fewbits.int8.affine_grid import LEVELS
from fewbits.int8.alone.form import grids_of, recording
from fewbits.int8.alone.kernels import KERNELS
from fewbits.int8.alone.tape import Step
from fewbits.int8.reference import Whole
from fewbits.task.batches import first_of, run


@dataclass(frozen=True)
class Program:
    """Integer operations from the levels of the inputs to those of the outputs.

    Attributes:
        steps: in order; operands are places of earlier steps.
        grids: ``{place of a step: (name, scale, zero point)}`` of what is on a grid of its own.
        output: the place of what the network gives. shape: of one sample of its input.
    """

    steps: tuple[Step, ...]
    grids: Mapping[int, tuple[str, float, int]]
    output: int
    shape: tuple[int, ...]

    def quantized(self, inputs: NDArray[Any]) -> Whole:
        """Levels less the zero point of inputs ``[N, ...]``: what a sensor would hand over. The only use of floats."""
        entry = next(place for place, step in enumerate(self.steps) if step.kernel == "input")
        if entry not in self.grids:  # tokens
            return np.asarray(inputs, np.int64)
        _, scale, zero = self.grids[entry]
        levels = np.rint(np.asarray(inputs, np.float32) / np.float32(scale))
        return np.clip(levels, -zero, LEVELS - zero).astype(np.int64)

    def __call__(self, levels: Whole) -> Whole:
        """Levels less the zero point of the outputs ``[N, ...]``, for those of the inputs."""
        return self.all(levels)[self.output][:, 0]  # what was recorded is a batch of one

    def all(self, levels: Whole) -> list[Whole]:
        """What every step gives, int64: for each sample what it is of a batch of one."""
        values: list[Whole] = []
        for step in self.steps:
            if step.kernel == "input":
                found = levels.reshape(len(levels), *self.shape)
            elif step.kernel == "constant":
                numbers = step.constants["numbers"]
                found = np.broadcast_to(numbers, (len(levels), *numbers.shape))
            else:
                found = KERNELS[step.kernel](*(values[place] for place in step.operands), **step.constants)
            values.append(found)
        return values

    def floats(self, levels: Whole) -> NDArray[np.float32]:
        """What levels of the outputs stand for."""
        return (levels * np.float32(self.scale)).astype(np.float32)

    @property
    def scale(self) -> float:
        """Of the outputs."""
        return self.grids[self.output][1]

    @property
    def places(self) -> dict[str, int]:
        """``{name of a grid: place of the step that gives what is on it}``."""
        return {name: place for place, (name, _, _) in self.grids.items()}


@torch.no_grad()
def program(net: nn.Module, inputs: Any) -> Program:
    """The integer operations of a network in integers alone.

    Args:
        net: as :func:`fewbits.load` gives it, or in training. inputs: of a batch; the first sample is run once.

    Raises:
        UnsupportedError: the network is not in integers alone, or takes more than one tensor.
    """
    grids_of(net)
    one = first_of(inputs, 1)
    training = net.training
    net.eval()
    try:
        with recording(net) as tape:
            run(net, one)
    finally:
        net.train(training)
    steps = tape.steps or []
    entries = [step for step in steps if step.kernel == "input"]
    if len(entries) != 1 or tape.output is None:
        raise UnsupportedError(f"{type(net).__name__} takes more than one tensor: its integers have no program")
    return Program(tuple(steps), tape.grids, tape.output, tape.shape)
