"""What an encrypted program costs, without running it: operations by level, bytes, precision, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import log2
from statistics import median
from typing import Any

import numpy as np

from fewbits.private._seal import seal
from fewbits.private.counts import Counts, ciphertext_bytes, key_bytes, total
from fewbits.private.evaluator import Evaluator
from fewbits.private.parameters import Parameters, context
from fewbits.private.program import Program

Seconds = Mapping[tuple[str, int], float]
"""Of one operation, by its name and the level of its operand."""
REPEATS = 5


@dataclass(frozen=True)
class PrivatePrice:
    """Of one sample.

    Attributes:
        degree, levels, modulus_bits: of the parameters. rotations, products, rescales, relinearisations: how many.
        rotations_by_level: from the highest level to 0.
        keys: Galois keys. key_bytes: of all evaluation keys. input_bytes, answer_bytes: of ciphertexts, all in memory.
        error: stated error of an output. precision_bits: of the largest output on the calibration samples, over it.
        seconds: of one thread. probed: whether they were measured here, operation by operation, or are estimated.
    """

    degree: int
    levels: int
    modulus_bits: float
    rotations: int
    products: int
    rescales: int
    relinearisations: int
    rotations_by_level: tuple[int, ...]
    keys: int
    key_bytes: int
    input_bytes: int
    answer_bytes: int
    error: float
    precision_bits: float
    seconds: float
    probed: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def price_of(program: Program, samples: Any, seconds: Seconds | None = None) -> PrivatePrice:
    """What a program takes.

    Args:
        samples: plain inputs, for the size of outputs. seconds: from :func:`calibrate`; else they are estimated.
    """
    counts, parameters = program.counts, program.profile.parameters
    largest = float(np.abs(program.plain(samples)).max())
    last = min(level for _, level in counts)
    times = estimated(parameters) if seconds is None else seconds
    return PrivatePrice(
        degree=parameters.degree,
        levels=parameters.levels,
        modulus_bits=parameters.bits,
        rotations=total(counts, "rotate"),
        products=total(counts, "multiply"),
        rescales=total(counts, "rescale"),
        relinearisations=total(counts, "relinearise"),
        rotations_by_level=tuple(counts[("rotate", level)] for level in range(parameters.levels, -1, -1)),
        keys=len(program.profile.rotations),
        key_bytes=key_bytes(program.profile),
        input_bytes=ciphertext_bytes(program.profile),
        answer_bytes=2 * (last + 1) * parameters.degree * 8,
        error=program.profile.error,
        precision_bits=log2(max(largest, 1e-30) / program.profile.error),
        seconds=predicted(counts, times),
        probed=seconds is not None,
    )


def predicted(counts: Counts, seconds: Seconds) -> float:
    """Seconds of all operations, one after the other."""
    return sum(count * seconds[operation] for operation, count in counts.items())


def estimated(parameters: Parameters) -> dict[tuple[str, int], float]:
    """Seconds of operations as they were on one machine, by primes p and degree: rotations grow with p squared.

    Of SEAL 4.3 on one thread of a Xeon: milliseconds at degree 2^13, times the degree's share of that.
    """
    found = {}
    for level in range(parameters.levels + 1):
        primes, size = level + 1, parameters.degree / 2**13 / 1000
        rotate = (0.25 + 0.38 * primes + 0.12 * primes**2) * size
        found["rotate", level] = found["relinearise", level] = rotate
        found["multiply", level] = 0.05 * primes * size
        found["square", level] = found["product", level] = 0.06 * primes * size
        found["rescale", level] = 0.2 * primes * size
        found["add", level] = found["add_vector", level] = found["drop", level] = 0.015 * primes * size
    return found


def calibrate(parameters: Parameters) -> dict[tuple[str, int], float]:
    """Seconds of each operation here, at each level: the median of a few, on one thread's clock.

    Raises:
        MissingExtraError: tenseal is not installed.
    """
    s, found = seal(), {}
    keys = s.KeyGenerator(context(parameters))
    galois, relinearise = s.GaloisKeys(), s.RelinKeys()
    keys.create_galois_keys([parameters.galois(1)], galois)
    keys.create_relin_keys(relinearise)
    evaluator = Evaluator(parameters, galois, relinearise)
    vector, other = np.linspace(0.1, 1, parameters.slots), np.linspace(1, 2, parameters.slots)
    scale = 2.0 ** min(18.0, parameters.modulus_bits(0) / 3)
    fresh, plain = s.Ciphertext(), evaluator.encodings.encoded(vector, parameters.levels, scale)
    s.Encryptor(evaluator.encodings.context, keys.secret_key()).encrypt_symmetric(plain, fresh)
    for level in range(parameters.levels, -1, -1):
        value = evaluator.drop(fresh, level)
        both = evaluator.multiply(value, vector, scale)
        timed: dict[str, Callable[[], Any]] = {
            "rotate": lambda value=value: evaluator.rotate(value, 1),  # type: ignore[misc]
            "multiply": lambda value=value: evaluator.multiply(value, vector, scale),  # type: ignore[misc]
            "add": lambda value=value: evaluator.add(value, value),  # type: ignore[misc]
            "add_vector": lambda value=value: evaluator.add_vector(value, other),  # type: ignore[misc]
            "square": lambda value=value: evaluator.square(value),  # type: ignore[misc]
            "product": lambda value=value: evaluator.product(value, value),  # type: ignore[misc]
        }
        if level:
            prime = parameters.primes[level]
            timed["rescale"] = lambda both=both, prime=prime: evaluator.rescale(both, both.scale / prime)  # type: ignore[misc]
            timed["drop"] = lambda value=value, level=level: evaluator.drop(value, level - 1)  # type: ignore[misc]
        for name, run in timed.items():
            found[name, level] = _median(run)
        found["relinearise", level] = 0.0  # in that of squares and products
    return found


def _median(run: Callable[[], Any]) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return median(times)
