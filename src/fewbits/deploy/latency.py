"""How long ONNX Runtime takes, model by model in one run: figures of different runs cannot be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.deploy.onnx.runtime import session
from fewbits.errors import ExportError, RecipeError

BURST = 0.02  # seconds that a model runs before the next one does: caches are then its own, as in use
WARM_UP = 2  # bursts that do not count


@dataclass(frozen=True)
class Latency:
    """One model at one batch size.

    Attributes:
        bytes: of the model. batch: samples per call. threads: that an operation may use.
        seconds: median of one call. fast, slow: its tenth and ninetieth percentile. calls: how many were timed.
        speedup: median of the first model over this one's.
    """

    name: str
    bytes: int
    batch: int
    threads: int
    seconds: float
    fast: float
    slow: float
    calls: int
    speedup: float

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.batch / self.seconds


def measure_latency(
    models: Mapping[str, bytes],
    *,
    batches: Iterable[int] = (1, 64),
    threads: int = 1,
    rounds: int = 30,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Median time of a call of every model on random inputs.

    The models take turns, in bursts, forward and backward: what slows the machine slows all of them.

    Args:
        models: serialized ONNX models with one float32 input [batch, ...]; the first one is what others are compared
        with.
        batches: batch sizes. threads: per operation. rounds: bursts of each model that are timed.
        clock: seconds; with one thread, ``time.thread_time`` leaves out what other processes take of a busy machine.

    Returns:
        A row for every batch size and model, in that order.

    Raises:
        MissingExtraError: no ONNX Runtime. ExportError: it does not take a model, or its input has no fixed shape
        behind
            the batch. RecipeError: not a positive number.
    """
    batches = tuple(batches)
    for what, number in (("batch", min(batches, default=0)), ("threads", threads), ("rounds", rounds)):
        if number < 1:
            raise RecipeError(f"{what} must be at least 1, got {number}")
    sessions = {name: session(data, threads=threads) for name, data in models.items()}
    generator = np.random.default_rng(seed)
    rows = []
    for batch in batches:
        inputs = {name: _input(name, made, batch, generator) for name, made in sessions.items()}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for turn in range(-WARM_UP, rounds):
            for name in sessions if turn % 2 else reversed(sessions):
                taken = _burst(sessions[name], inputs[name], clock)
                if turn >= 0:
                    times[name] += taken
        medians = {name: float(np.median(taken)) for name, taken in times.items()}
        first = next(iter(medians.values()))
        for name, taken in times.items():
            fast, slow = (float(q) for q in np.quantile(taken, (0.1, 0.9)))
            speedup = first / medians[name]
            size = len(models[name])
            rows.append(Latency(name, size, batch, threads, medians[name], fast, slow, len(taken), speedup))
    return rows


def _burst(made: Any, inputs: dict[str, np.ndarray], clock: Callable[[], float]) -> list[float]:
    made.run(None, inputs)  # the other models have used the caches since
    taken: list[float] = []
    while sum(taken) < BURST:
        begin = clock()
        made.run(None, inputs)
        taken.append(clock() - begin)
    return taken


def _input(name: str, made: Any, batch: int, generator: np.random.Generator) -> dict[str, Any]:
    (given,) = made.get_inputs()
    shape = given.shape[1:]
    if given.type != "tensor(float)" or not all(isinstance(size, int) for size in shape):
        raise ExportError(f"{name} has an input of {given.type} {given.shape}, not of float32 [batch, sizes ...]")
    if isinstance(given.shape[0], int) and given.shape[0] != batch:
        raise ExportError(f"{name} takes batches of {given.shape[0]} only, not of {batch}")
    return {given.name: generator.standard_normal((batch, *shape), np.float32)}
