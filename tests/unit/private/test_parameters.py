"""Parameters: weak ones are refused, and what is read back is the same."""

from __future__ import annotations

import json
from math import log2, prod

import pytest

from fewbits.errors import RecipeError
from fewbits.private import SECURITY, Parameters
from fewbits.private._primes import is_prime, primes_of


def test_primes_are_the_largest_of_their_length() -> None:
    primes = primes_of(2**12, (30, 31, 30))
    assert all(is_prime(p) and p % 2**13 == 1 for p in primes)
    assert [p.bit_length() for p in primes] == [30, 31, 30]
    between = [n for n in range(primes[0] + 2**13, 2**30, 2**13) if is_prime(n)]
    assert between == [primes[2]]


def test_one_bit_too_many_is_refused_with_the_arithmetic() -> None:
    sound = Parameters.of_bits(2**13, (44, 54, 54, 60))
    assert sound.bits == pytest.approx(log2(prod(sound.primes)), abs=1e-9)
    assert sound.bits <= SECURITY[2**13]
    with pytest.raises(RecipeError, match=r"47\.00 \+ 54\.00 \+ 54\.00 \+ 60\.00 = 215\.00 bits, and 214 are allowed"):
        Parameters.of_bits(2**13, (47, 54, 54, 60))


def test_the_last_prime_counts_as_well() -> None:
    with pytest.raises(RecipeError, match="128 bits"):
        Parameters.of_bits(2**12, (36, 36, 36))
    Parameters.of_bits(2**12, (35, 35, 36))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secret": "sparse"}, "weaker"),
        ({"scheme": "bfv"}, "no scheme 'bfv'"),
        ({"degree": 2**16}, "the degree is one of"),
        ({"primes": [3, 5]}, "3 is no prime of at most 60 bits"),
        ({"primes": ["7", 5]}, "primes a list"),
        ({"primes": [True, 5]}, "primes a list"),
        ({"degree": 8192.0}, "degree is a whole number"),
        ({"hamming_weight": 192}, "no key 'hamming_weight'"),
    ],
)
def test_what_somebody_else_sends_is_checked(change: dict[str, object], message: str) -> None:
    values = json.loads(json.dumps(Parameters.of_bits(2**12, (30, 30, 40)).as_dict()))
    assert Parameters.from_dict(values).as_dict() == values
    with pytest.raises(RecipeError, match=message):
        Parameters.from_dict(values | change)


def test_a_twin_prime_is_refused() -> None:
    primes = Parameters.of_bits(2**12, (30, 30, 40)).primes
    with pytest.raises(RecipeError, match="all of them different"):
        Parameters(2**12, (primes[0], primes[0], primes[2]))


def test_the_digest_is_that_of_the_numbers() -> None:
    one, two = Parameters.of_bits(2**12, (30, 30, 40)), Parameters.of_bits(2**12, (30, 31, 40))
    assert one.digest() == Parameters.from_dict(one.as_dict()).digest() != two.digest()
    assert len(one.digest()) == 32
