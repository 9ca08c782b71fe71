"""A client's keys: made for one profile, each in an envelope of its own.

Keys have an id, the hash of all that is public of them. What is signed with an id can be checked against it: the
evaluation keys and the public key hold the hashes of each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fewbits.errors import DamagedError, ParametersError, WrongKeyError
from fewbits.private._seal import seal
from fewbits.private.binding import bound_profile, profile_bytes, profile_hash
from fewbits.private.envelope import Envelope, Kind, opened
from fewbits.private.parameters import context
from fewbits.private.parts import join, split
from fewbits.private.serial import from_bytes, to_bytes
from fewbits.private.sizes import ciphertext_limit, key_limit

if TYPE_CHECKING:
    from fewbits.private.profile import Profile

_SALT = b"fewbits private key\0"


@dataclass(frozen=True, slots=True)
class Keys:
    """Sealed envelopes.

    Attributes:
        secret: stays with the client; it encrypts and decrypts.
        public: encrypts, and may be given to whoever sends inputs.
        evaluation: goes to the server, which computes with it; relinearisation and Galois keys, seeded (half the size).
        id: of all of them, 16 bytes.
    """

    secret: bytes
    public: bytes
    evaluation: bytes
    id: bytes


def generate(profile: Profile, limit: int = 8 << 30) -> Keys:
    """New keys, with Galois keys for the profile's rotations and no others. Files have no MAC; messages may.

    Args:
        limit: bytes that the evaluation keys may have: a profile may be a stranger's.

    Raises:
        ParametersError: they would have more.
    """
    size = key_limit(profile.parameters, len(profile.rotations) + profile.relinearise) // 2  # seeded
    if size > limit:
        raise ParametersError(
            f"the profile asks for {len(profile.rotations):,} Galois keys, some {size:,} bytes; {limit:,} are allowed"
        )
    s = seal()
    made = context(profile.parameters)
    generator = s.KeyGenerator(made)
    public = s.PublicKey()
    generator.create_public_key(public)
    relinearise = to_bytes(generator.create_relin_keys()) if profile.relinearise else b""
    elements = galois_elements(profile)
    galois = to_bytes(generator.create_galois_keys(elements)) if elements else b""
    about, bound = profile_bytes(profile), profile_hash(profile)
    shown = to_bytes(public)
    hashes = [hashlib.sha256(part).digest() for part in (shown, relinearise, galois)]
    name = _id(bound, hashes)
    payloads = {
        Kind.SECRET_KEY: [about, to_bytes(generator.secret_key())],
        Kind.PUBLIC_KEY: [about, shown, *hashes[1:]],
        Kind.EVALUATION_KEYS: [hashes[0], relinearise, galois],
    }
    secret, public_key, evaluation = (
        Envelope(kind, join(parts), bound, name).sealed() for kind, parts in payloads.items()
    )
    return Keys(secret, public_key, evaluation, name)


def galois_elements(profile: Profile) -> list[int]:
    """The Galois element of each of the profile's rotations."""
    return [profile.parameters.galois(step) for step in profile.rotations]


def _id(profile: bytes, hashes: Sequence[bytes]) -> bytes:
    return hashlib.sha256(_SALT + profile + b"".join(hashes)).digest()[:16]


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A secret or public key, and what it belongs to.

    Attributes:
        key: SEAL's ``SecretKey`` or ``PublicKey``.
    """

    kind: Kind
    key: Any
    id: bytes
    profile: Profile
    profile_hash: bytes
    context: Any


def open_key(data: bytes, *kinds: Kind, what: str = "the key") -> OpenedKey:
    """A secret or public key out of its envelope, and the profile that it was made for."""
    found = opened(data, *kinds, what=what)
    count = 2 if found.kind is Kind.SECRET_KEY else 4
    about, key, *hashes = split(found.payload, count, what)
    profile = bound_profile(about, found.profile, what)
    if hashes and _id(found.profile, [hashlib.sha256(key).digest(), *map(bytes, hashes)]) != found.key:
        raise WrongKeyError(f"{what} is not the key that its head names")
    set_up = context(profile.parameters)
    s = seal()
    cls = s.SecretKey if found.kind is Kind.SECRET_KEY else s.PublicKey
    made = from_bytes(cls, set_up, key, ciphertext_limit(profile.parameters, with_special=True), what)
    return OpenedKey(found.kind, made, found.key, profile, found.profile, set_up)


@dataclass(frozen=True, slots=True)
class EvaluationKeys:
    """What a server computes with.

    Attributes:
        relinearise: SEAL's ``RelinKeys``; ``None`` where the profile needs none.
        galois: SEAL's ``GaloisKeys`` for the profile's rotations; ``None`` where it has none.
    """

    id: bytes
    relinearise: Any
    galois: Any


def open_evaluation_keys(
    data: bytes, profile: Profile, set_up: Any, mac_key: bytes | None = None, what: str = "the evaluation keys"
) -> EvaluationKeys:
    """Evaluation keys out of their envelope: those of this profile, all of them and no others.

    Args:
        set_up: SEAL's context of the profile's parameters.
    """
    found = opened(data, Kind.EVALUATION_KEYS, profile=profile_hash(profile), mac_key=mac_key, what=what)
    public, relinearise, galois = split(found.payload, 3, what)
    hashes = [bytes(public), hashlib.sha256(relinearise).digest(), hashlib.sha256(galois).digest()]
    if _id(found.profile, hashes) != found.key:
        raise WrongKeyError(f"{what} are not the keys that their head names")
    s = seal()
    elements = galois_elements(profile)
    if bool(len(relinearise)) != profile.relinearise or bool(len(galois)) != bool(elements):
        raise DamagedError(f"{what} are not those that the profile needs")
    relin = rotate = None
    if profile.relinearise:
        relin = from_bytes(s.RelinKeys, set_up, relinearise, key_limit(profile.parameters, 1), what)
        if relin.size() != 1 or not relin.has_key(2):
            raise DamagedError(f"{what} have no relinearisation key, or several")
    if elements:
        rotate = from_bytes(s.GaloisKeys, set_up, galois, key_limit(profile.parameters, len(elements)), what)
        missing = [
            step for step, element in zip(profile.rotations, elements, strict=True) if not rotate.has_key(element)
        ]
        if missing or rotate.size() != len(set(elements)):
            raise DamagedError(f"{what} are not for the profile's {len(elements)} rotations; missing: {missing[:3]}")
    return EvaluationKeys(found.key, relin, rotate)
