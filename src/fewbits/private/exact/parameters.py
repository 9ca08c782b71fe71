"""Parameters of exact programs: a ring, and as many plain moduli as hold the outputs' range."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.private._primes import MOST_BITS, primes_of
from fewbits.private._seal import seal
from fewbits.private.parameters import SECURITY, Parameters

MOST_MODULI = 8
EXACT_DEGREES = (2**13, 2**14, 2**15)
SPARE = 12.0  # bits of noise budget that are left over on purpose
FRESH, AFFINE, SQUARE = 8.0, 10.0, 3.0  # bits of noise beyond the plain modulus, as they were measured, rounded up


@dataclass(frozen=True)
class ExactParameters:
    """Of BFV: a program runs once for each plain modulus, and the Chinese remainder theorem joins what comes out.

    Attributes:
        ring: degree and primes of the ciphertexts, with their security. moduli: plain moduli, primes 1 modulo 2 N.
    """

    ring: Parameters
    moduli: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Numbers in one of a ciphertext's two rows; both hold the same."""
        return self.ring.degree // 2

    @property
    def bits(self) -> float:
        """Of the product of the plain moduli."""
        return log2(prod(self.moduli))

    def context(self, modulus: int) -> Any:
        """SEAL's context for one plain modulus."""
        s = seal()
        made = s.EncryptionParameters(s.SCHEME_TYPE.BFV)
        made.set_poly_modulus_degree(self.ring.degree)
        made.set_coeff_modulus([s.Modulus(prime) for prime in self.ring.primes])
        made.set_plain_modulus(s.Modulus(modulus))
        found = s.SEALContext(made, True, s.SEC_LEVEL_TYPE.TC128)
        if not found.parameters_set():
            raise RecipeError(f"SEAL refuses the parameters: {found.parameters_error_message()}")
        return found


def noise_bits(plain: float, affines: int, squares: int, degree: int) -> float:
    """Bits of the ciphertexts' modulus that a program's noise takes, for a plain modulus of ``plain`` bits.

    Of each product with weights: the modulus and a part for sums. Of each square: the modulus and the degree
    (Fan and Vercauteren, ePrint 2012/144, lemma 2 and section 4).
    """
    return plain + FRESH + affines * (plain + AFFINE) + squares * (plain + log2(degree) + SQUARE) + SPARE


def candidates(degree: int, span: int, affines: int, squares: int) -> list[ExactParameters]:
    """For each number of plain moduli, the smallest ones that hold ``span`` different integers, where 128 bits allow.

    Args:
        span: how many integers an output may be. affines, squares: how many follow each other.
    """
    found = []
    for count in range(1, MOST_MODULI + 1):
        plain = max(ceil(log2(span) / count) + 1, (2 * degree).bit_length() + 2)
        if plain > MOST_BITS:
            continue
        needed = noise_bits(plain, affines, squares, degree)
        primes = max(1, ceil(needed / 58))  # of the ciphertext, of about equal length
        each = max(ceil(needed / primes), (2 * degree).bit_length() + 2)
        if each > MOST_BITS or each * primes + min(each + 1, MOST_BITS) > SECURITY[degree]:
            continue
        try:
            lengths = [each] * (primes + 1) if each == MOST_BITS else [each] * primes + [each + 1]
            ring = Parameters.of_bits(degree, lengths)
            moduli = primes_of(degree, [plain] * count)
        except RecipeError:  # not so many primes of a length
            continue
        if prod(moduli) > span and not set(moduli) & set(ring.primes):
            found.append(ExactParameters(ring, moduli))
    return found


def refused(ranges: list[tuple[str, int, int]]) -> UnsupportedError:
    """The error for a network whose outputs no parameters hold, by its widest layer."""
    widths = [(where, max((high - low).bit_length(), 1)) for where, low, high in ranges]
    by_layer = ", ".join(f"{where} {bits}" for where, bits in widths)
    where, bits = max(widths, key=lambda pair: pair[1])
    return UnsupportedError(
        f"{where}: its integers have up to {bits} bits, which no parameters of 128 bits of security compute exactly "
        f"(bits by layer: {by_layer}); take fewer bits, fewer squares or fewer weights, or CKKS (compile_network)"
    )
