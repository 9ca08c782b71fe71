"""The primes of a modulus: which numbers allow the transforms of a ring, without any library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fewbits.errors import RecipeError

MOST_BITS = 60  # of a prime in SEAL
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(number: int) -> bool:
    """Exact below 3.3e24: Miller and Rabin's test with the first twelve primes (Sorenson and Webster, 2015)."""
    if number < 2:
        return False
    for small in _WITNESSES:
        if number % small == 0:
            return number == small
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, witness, odd, twos) for witness in _WITNESSES)


def _passes(number: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def primes_of(degree: int, bits: Sequence[int]) -> tuple[int, ...]:
    """Distinct primes p = 1 mod 2 N of these bit lengths, the largest that there are, as SEAL takes them.

    Args:
        degree: N. bits: of each prime, at most 60.

    Raises:
        RecipeError: a length that no such prime has, or not so many.
    """
    found: dict[int, list[int]] = {}
    for length, count in Counter(bits).items():
        if not 2 * degree < 2**length <= 2**MOST_BITS:
            raise RecipeError(
                f"a prime of degree {degree} has {(2 * degree).bit_length() + 1}..{MOST_BITS} bits, got {length}"
            )
        found[length] = _largest(degree, length, count)[
            ::-1
        ]  # SEAL's CoeffModulus.Create hands them out from the smallest
    return tuple(found[length].pop(0) for length in bits)


def _largest(degree: int, length: int, count: int) -> list[int]:
    step, primes = 2 * degree, []
    number = (2**length - 1) // step * step + 1
    while number >= 2 ** (length - 1):
        if number < 2**length and is_prime(number):
            primes.append(number)
            if len(primes) == count:
                return primes
        number -= step
    raise RecipeError(f"degree {degree} has {len(primes)} primes of {length} bits, not {count}")
