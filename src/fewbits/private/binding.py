"""What keys, requests and answers are bound to: a profile's bytes, and the hash of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fewbits.errors import DamagedError, ParametersError, RecipeError
from fewbits.private.envelope import Envelope, Kind, opened
from fewbits.private.profile import Profile

LONGEST = 1 << 23  # bytes of a profile


def profile_bytes(profile: Profile) -> bytes:
    """A profile as JSON, the same bytes for the same profile."""
    return _json(profile.as_dict())


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def profile_hash(profile: Profile) -> bytes:
    """By which envelopes know their profile: SHA-256 of all that keys and ciphertexts depend on.

    The stated error and the limit of inputs are left out: they are measured, and keys outlive another measurement.
    """
    about = {name: value for name, value in profile.as_dict().items() if name not in ("error", "limit")}
    return hashlib.sha256(_json(about)).digest()


def profile_from(data: bytes | memoryview, what: str) -> Profile:
    """The profile that these bytes are of.

    Raises:
        DamagedError: they are of none. ParametersError: it has values that no profile has, or weak parameters.
    """
    if len(data) > LONGEST:
        raise DamagedError(f"{what} has {len(data):,} bytes, and a profile has {LONGEST:,} at most")
    try:
        return Profile.from_dict(json.loads(bytes(data), object_pairs_hook=_no_duplicates))
    except RecipeError as error:
        raise ParametersError(f"{what} is refused: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedError(f"{what} is no profile: {error}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def sealed_profile(profile: Profile, mac_key: bytes | None = None) -> bytes:
    """A profile in its envelope."""
    return Envelope(Kind.PROFILE, profile_bytes(profile), profile_hash(profile)).sealed(mac_key)


def opened_profile(data: bytes, mac_key: bytes | None = None, what: str = "the profile") -> Profile:
    """A profile out of its envelope; errors as of :func:`~fewbits.private.envelope.opened`, :func:`profile_from`."""
    found = opened(data, Kind.PROFILE, mac_key=mac_key, what=what)
    return bound_profile(found.payload, found.profile, what)


def bound_profile(data: bytes | memoryview, bound: bytes, what: str) -> Profile:
    """A profile of which a head gives the hash."""
    profile = profile_from(data, what)
    if profile_hash(profile) != bound:
        raise DamagedError(f"{what} is damaged: it does not hold the profile that its head names")
    return profile
