"""What an encryption is made with: the ring, its primes, and whether they keep 128 bits of security."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import log2
from typing import Any

from fewbits.errors import RecipeError, did_you_mean
from fewbits.private._primes import MOST_BITS, is_prime, primes_of
from fewbits.private._seal import seal

SECURITY = {2**10: 26, 2**11: 53, 2**12: 106, 2**13: 214, 2**14: 430, 2**15: 868}
"""By degree, the bits that all primes together may have: 128 bits against classical attacks, for secrets whose
coefficients are uniform in -1, 0, 1 (Security Guidelines for Implementing Homomorphic Encryption, ePrint 2024/463,
table 5.2)."""
DEGREES = (2**12, 2**13, 2**14, 2**15)
SCHEMES = ("ckks",)
SECRETS = ("dense-ternary",)


@dataclass(frozen=True)
class Parameters:
    """Of a ciphertext, and of all keys. Weak ones cannot be made.

    Attributes:
        degree: N of the ring Z[X] / (X^N + 1); a ciphertext has N / 2 slots.
        primes: of the modulus, from the one that is dropped last; the final one is used in keys only.
        scheme: ``ckks``. secret: coefficients of the secret key are uniform in -1, 0, 1.

    Raises:
        RecipeError: less than 128 bits of security, or numbers that are no such primes.
    """

    degree: int
    primes: tuple[int, ...]
    scheme: str = "ckks"
    secret: str = "dense-ternary"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise RecipeError(f"no scheme {self.scheme!r}; there is {', '.join(SCHEMES)}")
        if self.secret not in SECRETS:
            raise RecipeError(
                f"secret keys are {SECRETS[0]}; {self.secret!r} ones are weaker than the table of security says"
            )
        if self.degree not in DEGREES:
            raise RecipeError(f"the degree is one of {', '.join(map(str, DEGREES))}, got {self.degree}")
        primes = self.primes
        if len(primes) < 2 or len(set(primes)) != len(primes):
            raise RecipeError(f"a modulus has two primes or more, all of them different, got {len(primes)}")
        for prime in primes:
            if prime.bit_length() > MOST_BITS or prime % (2 * self.degree) != 1 or not is_prime(prime):
                raise RecipeError(f"{prime} is no prime of at most {MOST_BITS} bits that is 1 modulo {2 * self.degree}")
        if self.bits > SECURITY[self.degree]:
            terms = " + ".join(f"{log2(prime):.2f}" for prime in primes)
            raise RecipeError(
                f"less than 128 bits of security: the primes of degree {self.degree} have {terms} = {self.bits:.2f} "
                f"bits, and {SECURITY[self.degree]} are allowed (ePrint 2024/463, table 5.2); take fewer or smaller "
                "primes, or a larger degree"
            )

    @classmethod
    def of_bits(cls, degree: int, bits: Sequence[int]) -> Parameters:
        """With primes of these lengths, the one for keys at the end."""
        return cls(degree, primes_of(degree, bits))

    @property
    def slots(self) -> int:
        """Numbers in a ciphertext."""
        return self.degree // 2

    @property
    def levels(self) -> int:
        """How many primes can be dropped."""
        return len(self.primes) - 2

    @property
    def bits(self) -> float:
        """Of the product of all primes, exactly."""
        return sum(map(log2, self.primes))

    def modulus_bits(self, level: int) -> float:
        """Of the primes of a ciphertext at a level; at level 0 one prime is left."""
        return sum(map(log2, self.primes[: level + 1]))

    def galois(self, step: int) -> int:
        """The Galois element of a rotation to the left by ``step`` slots."""
        return pow(3, step % self.slots, 2 * self.degree)

    def digest(self) -> bytes:
        """SHA-256 of the parameters, 32 bytes."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "primes": list(self.primes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parameters:
        """From plain data of somebody else.

        Raises:
            RecipeError: unknown, missing or wrong keys, or weak parameters.
        """
        strict_keys(cls, values, "parameters")
        primes = values["primes"]
        whole = isinstance(primes, list) and 2 <= len(primes) <= 64 and all(type(prime) is int for prime in primes)
        if not whole or type(values["degree"]) is not int:
            raise RecipeError("parameters: degree is a whole number, and primes a list of 2..64 of them")
        return cls(values["degree"], tuple(primes), values["scheme"], values["secret"])


def strict_keys(cls: Any, values: Any, what: str) -> None:
    """Refuses anything but exactly the fields of a class."""
    if not isinstance(values, Mapping):
        raise RecipeError(f"{what}: not a mapping")
    known = [field.name for field in fields(cls)]
    for key in values:
        if key not in known:
            raise RecipeError(f"{what}: no key {key!r}{did_you_mean(str(key), known)}; there is {', '.join(known)}")
    missing = [key for key in known if key not in values]
    if missing:
        raise RecipeError(f"{what}: {', '.join(missing)} is missing")


def context(parameters: Parameters) -> Any:
    """SEAL's context, with its own check of security left on.

    Raises:
        MissingExtraError: tenseal is not installed.
        RecipeError: SEAL refuses them.
    """
    s = seal()
    made = s.EncryptionParameters(s.SCHEME_TYPE.CKKS)
    made.set_poly_modulus_degree(parameters.degree)
    made.set_coeff_modulus([s.Modulus(prime) for prime in parameters.primes])
    found = s.SEALContext(made, True, s.SEC_LEVEL_TYPE.TC128)
    if not found.parameters_set():
        raise RecipeError(f"SEAL refuses the parameters: {found.parameters_error_message()}")
    return found
