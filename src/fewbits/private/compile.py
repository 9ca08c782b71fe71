"""From a network to a program: levels, layouts, parameters and scales."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.private._laid import Arrangement, Map
from fewbits.private._ops import OUTPUT, Op, depth_of, drops, halved_of, ops_of, used_of
from fewbits.private.arrange import arranged
from fewbits.private.noise import Noise, stated
from fewbits.private.parameters import DEGREES, SECURITY, Parameters
from fewbits.private.plain import Plain
from fewbits.private.profile import SENTINEL, Profile
from fewbits.private.program import Program
from fewbits.private.read import INPUT, Reading, read
from fewbits.private.steps import Offset, Square, Step, execute, rotations
from fewbits.private.vectors import InSlots, in_slots, spread_out

PROFILES = ("precise", "fast")
ERRORS = {"precise": 2e-3, "fast": 2e-2}  # share of the largest output that may be lost to noise
RANGES = 256  # calibration samples that ranges are measured on
LOUD = 4  # of these, those with the largest outputs, on which noise is estimated
MARGIN = 2.0  # how much larger than on the calibration samples a number may be


def compile_network(
    model: nn.Module,
    samples: Any,
    *,
    profile: str = "precise",
    error: float | None = None,
    degree: int | None = None,
    like: Profile | None = None,
) -> Program:
    """A program that computes a network on encrypted inputs.

    Args:
        model: a network of linear layers, convolutions, average pooling, normalisations with statistics, sums and
            polynomials of degree 2 to 4. It is not changed.
        samples: calibration data, a tensor [samples, ...]: ranges of all numbers are measured on it, and a margin of
            two is left.
        profile: ``precise`` rescales after each layer; ``fast`` after squares only, which takes fewer primes.
        error: largest noise of an output that is wanted; else 0.2 % (precise) or 2 % (fast) of the largest output.
        degree: of the ring; else the smallest that keeps the error at 128 bits of security.
        like: take the parameters and the scale of this profile, of another program; then the error is what it comes to.

    Raises:
        UnsupportedError: a layer that cannot be computed on encrypted numbers, or a network too deep or too wide.
        RecipeError: no such profile.
    """
    if profile not in PROFILES:
        raise RecipeError(f"no profile {profile!r}; there is {' and '.join(PROFILES)}")
    given = torch.as_tensor(samples, dtype=torch.float64)
    reading = read(model, tuple(given.shape[1:]))
    ops = ops_of(reading, profile)
    depth = depth_of(ops)
    inputs = given.reshape(len(given), -1).numpy()
    tried: list[str] = []
    if like is not None:
        degree = like.parameters.degree
    for one in DEGREES if degree is None else (degree,):
        if like is None and not _chains(profile, depth, one, SENTINEL):
            tried.append(f"degree {one}: {SECURITY[one]} bits are too few")
            continue
        try:
            arrangement = _arranged(reading, ops, depth, one // 2)
        except UnsupportedError as caught:
            if degree is not None or one == DEGREES[-1]:
                raise
            tried.append(f"degree {one}: {caught}")
            continue
        best = _parameters(reading, ops, depth, arrangement, profile, inputs, one, error, like)
        if isinstance(best, Program):
            return best
        tried.append(f"degree {one}: {best}")
    raise UnsupportedError(
        f"no parameters of 128 bits for {depth} levels: {'; '.join(tried)}. A network with fewer squares, or a larger "
        "error, needs less"
    )


def laid_out(model: nn.Module, shape: tuple[int, ...], degree: int, profile: str) -> Arrangement:
    """Where all values of a network would lie at a degree, whether or not its parameters suffice.

    Raises:
        UnsupportedError: as for :func:`compile_network`.
    """
    reading = read(model, shape)
    ops = ops_of(reading, profile)
    return _arranged(reading, ops, depth_of(ops), degree // 2)


def _arranged(reading: Reading, ops: tuple[Op, ...], depth: int, slots: int) -> Arrangement:
    used = used_of(ops)
    steps: list[Map | tuple[str, str]] = []
    shapes = {INPUT: reading.shape} | {node.name: node.shape for node in reading.nodes}
    halved = halved_of(ops, shapes)
    for op in ops:
        if op.form is None or op.kind == "offset":
            steps.append((op.target, op.sources[0]))
            continue
        matrices = {name: term.numpy().T for name, term in op.form.terms.items()}
        before = max(used[source] for source in op.sources)
        primes, after = depth + 1 - before, depth + 1 - used[op.target]
        bias = op.form.bias.numpy()
        last = op.target == OUTPUT
        given = {name: shapes[name] for name in matrices}
        steps.append(
            Map(op.target, op.where, matrices, bias, primes, after, last, op.like, op.shape, given, halved[op.target])
        )
    return arranged(tuple(steps), slots)


def _parameters(
    reading: Reading, ops: tuple[Op, ...], depth: int, arrangement: Arrangement, profile: str, inputs: np.ndarray,
    degree: int, error: float | None, like: Profile | None,
) -> Program | str:  # fmt: skip
    """The program with the least noise at this degree, or why there is none."""
    laid = {one.map.target: in_slots(one) for one in arrangement.maps}
    packed = _packed(inputs, arrangement)
    plain = _values(ops, arrangement, laid, packed[:RANGES])
    last = laid[OUTPUT]
    outputs = np.abs(plain[OUTPUT][:, last.slots])
    largest = float(outputs.max())
    loud = packed[np.argsort(outputs.max(1))[-LOUD:]]
    wanted = ERRORS[profile] * max(largest, 1e-9) if error is None else error
    tried = _chosen(profile, depth, degree, max(largest, SENTINEL))
    if like is not None:
        tried = [(like.parameters, like.input_scale)] if like.parameters.levels >= depth else []
        wanted = inf if error is None else error
    best: Program | None = None
    for parameters, unit in tried:
        steps = _steps(ops, arrangement, laid, parameters, unit)
        if not _fits(steps, parameters, unit, plain):
            continue
        noise = Noise(parameters)
        end = execute(steps, noise, {INPUT: noise.fresh(loud, unit)})[OUTPUT]
        off = stated(end, last.slots)
        if best is None or off < best.profile.error:
            limit = MARGIN * float(np.abs(inputs).max()) or 1.0
            best = Program(steps, _profile(reading, arrangement, steps, parameters, last, unit, off, limit))
    if best is None:
        return f"{SECURITY[degree]} bits are too few"
    if best.profile.error > wanted:
        return f"outputs are off by {best.profile.error:.3g}, and {wanted:.3g} is wanted"
    return best


def _chosen(profile: str, depth: int, degree: int, largest: float) -> list[tuple[Parameters, float]]:
    """Parameters to try, and the scale of inputs for each."""
    found = []
    for bits, scale in _chains(profile, depth, degree, largest):
        with suppress(RecipeError):  # not so many primes of a length, or a few thousandths of a bit too many
            found.append((Parameters.of_bits(degree, bits), 2.0**scale))
    return found


def _chains(profile: str, depth: int, degree: int, largest: float) -> list[tuple[list[int], float]]:
    """Bit lengths of primes to try, and the bits of the inputs' scale."""
    room = int(np.ceil(np.log2(MARGIN * largest))) + 2
    least = (2 * degree).bit_length() + 1
    limit, found = SECURITY[degree], []
    if profile == "precise":
        for bits in range(max(20, least), 46):
            first = min(60, bits + max(room, 4))
            key = min(60, limit - first - depth * bits)
            if key >= least + 8:
                found.append(([first, *[bits] * depth, key], float(bits)))
        return found
    for tenth in range(120, 200, 5):
        scale = tenth / 10
        middle, first = int(3 * scale), int(np.ceil(2 * scale)) + room
        key = min(60, limit - first - depth * middle)
        if key >= least + 8 and middle <= 60 and first <= 60:
            found.append(([first, *[middle] * depth, key], scale))
    return found


def _steps(
    ops: tuple[Op, ...], arrangement: Arrangement, laid: Mapping[str, InSlots], parameters: Parameters, unit: float
) -> tuple[Step, ...]:  # fmt: skip
    scales, levels = {INPUT: unit}, {INPUT: parameters.levels}
    steps: list[Step] = []
    for op in ops:
        level = min(levels[source] for source in op.sources)
        prime = parameters.primes[level]
        if op.kind == "square":
            scale = scales[op.sources[0]] * scales[op.sources[-1]] / prime
            steps.append(Square(op.target, op.sources[0], level, scale, op.other))
        elif op.kind == "offset":
            scale = scales[op.sources[0]]
            steps.append(_offset(op, arrangement))
        else:
            scale = unit * unit if op.bare else unit
            if op.bare and op.target != OUTPUT:
                scale = float(np.sqrt(unit * prime))  # behind the square and its rescaling, the unit again
            product = scale if op.bare else scale * prime
            steps.append(laid[op.target].step(level, scale, product, scales, not op.bare))
        scales[op.target], levels[op.target] = scale, level - drops(op)
    return tuple(steps)


def _offset(op: Op, arrangement: Arrangement) -> Offset:
    assert op.form is not None
    return Offset(op.target, op.sources[0], spread_out(op.form.bias.numpy(), arrangement.layouts[op.target]))


def _profile(
    reading: Reading, arrangement: Arrangement, steps: tuple[Step, ...], parameters: Parameters, last: InSlots,
    unit: float, error: float, limit: float,
) -> Profile:  # fmt: skip
    return Profile(
        parameters=parameters,
        rotations=rotations(steps),
        relinearise=any(isinstance(step, Square) for step in steps),
        shape=reading.shape,
        input_slots=(tuple(int(number) for number in arrangement.layouts[INPUT].numbers),),
        input_scale=unit,
        output_slots=last.slots,
        sentinel_slot=last.free,
        error=error,
        limit=limit,
    )


def _packed(inputs: np.ndarray, arrangement: Arrangement) -> np.ndarray:
    padded = np.concatenate([inputs, np.zeros((len(inputs), 1))], axis=1)
    return padded[:RANGES, arrangement.layouts[INPUT].numbers]


def _values(
    ops: tuple[Op, ...], arrangement: Arrangement, laid: Mapping[str, InSlots], packed: np.ndarray
) -> dict[str, np.ndarray]:
    """All values in slots, of the calibration samples."""
    steps: list[Step] = []
    units = dict.fromkeys([INPUT, *(op.target for op in ops)], 1.0)
    for op in ops:
        if op.kind == "square":
            steps.append(Square(op.target, op.sources[0], 0, 1.0, op.other))
        elif op.kind == "offset":
            steps.append(_offset(op, arrangement))
        else:
            steps.append(laid[op.target].step(0, 1.0, 1.0, units, False))
    return execute(tuple(steps), Plain(), {INPUT: packed})


def _fits(steps: tuple[Step, ...], parameters: Parameters, unit: float, values: Mapping[str, np.ndarray]) -> bool:
    """Whether every number, with its margin, stays below half of the modulus that it lies in."""
    sizes = {name: MARGIN * max(float(np.abs(value).max()), 1e-30) for name, value in values.items()}
    scales = {INPUT: unit}
    for step in steps:
        if isinstance(step, Offset):
            scales[step.target] = scales[step.source]
            continue
        if isinstance(step, Square):
            before, after = scales[step.source] * scales[step.other or step.source], step.level - 1
        else:
            before = step.scale * (parameters.primes[step.level] if step.rescale else 1.0)
            after = step.level - step.rescale
        scales[step.target] = step.scale
        for scale, level in ((before, step.level), (step.scale, after)):
            if np.log2(scale * sizes[step.target]) > parameters.modulus_bits(level) - 1:
                return False
    return True
