"""How often a program does what, by its structure: nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fewbits.private.profile import Profile
from fewbits.private.read import INPUT
from fewbits.private.steps import Affine, Offset, Square, Step

Counts = Mapping[tuple[str, int], int]
"""By operation and by level of its operand."""


def counts_of(steps: tuple[Step, ...], levels: int) -> Counter[tuple[str, int]]:
    """Operations that an evaluator will count, exactly. ``levels``: of the input."""
    found: Counter[tuple[str, int]] = Counter()
    at = {INPUT: levels}
    for step in steps:
        if isinstance(step, Offset):
            at[step.target] = at[step.source]
            found["add_vector", at[step.source]] += 1
            continue
        read = [part.source for part in step.parts] if isinstance(step, Affine) else [step.source]
        read += [step.other] if isinstance(step, Square) and step.other is not None else []
        for source in read:
            found["drop", at[source]] += at[source] > step.level
        if isinstance(step, Square):
            found["square" if step.other is None else "product", step.level] += 1
            found["relinearise", step.level] += 1
            found["rescale", step.level] += 1
            at[step.target] = step.level - 1
        else:
            at[step.target] = step.level - step.rescale
            _affine(step, at[step.target], found)
    return +found


def _affine(step: Affine, after: int, found: Counter[tuple[str, int]]) -> None:
    products = 0
    for part in step.parts:
        babies = {baby for _, each in part.terms for baby, _ in each} - {0}
        giants = [giant for giant, _ in part.terms if giant]
        found["rotate", step.level] += len(babies) + len(giants) + len(part.folds)
        found["add", step.level] += len(part.folds)
        products += sum(len(each) for _, each in part.terms)
    found["multiply", step.level] += products
    found["add", step.level] += products - 1
    found["rescale", step.level] += step.rescale
    found["rotate", after] += len(step.folds)
    found["add", after] += len(step.folds)
    found["add_vector", after] += step.bias is not None


def total(counts: Counts, operation: str) -> int:
    """Of all levels."""
    return sum(count for (name, _), count in counts.items() if name == operation)


def plaintexts(steps: tuple[Step, ...]) -> int:
    """Vectors that are encoded, each once."""
    found = 0
    for step in steps:
        if isinstance(step, Affine):
            found += sum(len(each) for part in step.parts for _, each in part.terms)
        found += isinstance(step, Offset) or (isinstance(step, Affine) and step.bias is not None)
    return found


def key_bytes(profile: Profile) -> int:
    """Of all evaluation keys in memory: for each prime but the last two polynomials of all primes, 8 bytes a number."""
    primes = len(profile.parameters.primes)
    one = (primes - 1) * 2 * primes * profile.parameters.degree * 8
    return one * (len(profile.rotations) + profile.relinearise)


def ciphertext_bytes(profile: Profile) -> int:
    """Of an input in memory: two polynomials, 8 bytes a number."""
    return len(profile.input_slots) * 2 * (len(profile.parameters.primes) - 1) * profile.parameters.degree * 8
