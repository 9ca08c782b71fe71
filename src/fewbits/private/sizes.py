"""How many bytes SEAL's objects have when they are not compressed: no more are ever decompressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewbits.private.parameters import Parameters

_AROUND = 256  # heads, hash of parameters, scale and seed; SEAL 4.3 takes 97 and 178


def ciphertext_limit(parameters: Parameters, polynomials: int = 2, with_special: bool = False) -> int:
    """Of a ciphertext at the first level: N words for each polynomial and prime.

    Args:
        with_special: whether the special prime counts, as in keys.
    """
    primes = len(parameters.primes) - (0 if with_special else 1)
    return 8 * parameters.degree * primes * polynomials + _AROUND


def key_limit(parameters: Parameters, count: int) -> int:
    """Of relinearisation or Galois keys: each is a ciphertext for each prime but the special one.

    SEAL writes an empty entry of 8 bytes for every Galois element that has no key.
    """
    each = (len(parameters.primes) - 1) * ciphertext_limit(parameters, with_special=True)
    return count * each + 8 * parameters.degree + _AROUND
