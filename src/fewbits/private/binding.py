"""What keys, requests and answers are bound to: a profile's bytes, and the hash of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from fewbits.errors import DamagedError, FewbitsError
from fewbits.private.envelope import Envelope, Kind, opened

if TYPE_CHECKING:
    from fewbits.private.profile import Profile

LONGEST = 1 << 20  # bytes of a profile


def profile_bytes(profile: Profile) -> bytes:
    """A profile as JSON, the same bytes for the same profile."""
    return json.dumps(profile.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def profile_hash(profile: Profile) -> bytes:
    """By which envelopes know their profile: SHA-256 of its bytes."""
    return hashlib.sha256(profile_bytes(profile)).digest()


def profile_from(data: bytes | memoryview, what: str) -> Profile:
    """The profile that these bytes are of.

    Raises:
        DamagedError: they are of none. ParametersError: it is one, of parameters that are weak.
    """
    from fewbits.private.profile import Profile

    if len(data) > LONGEST:
        raise DamagedError(f"{what} has {len(data):,} bytes, and a profile has {LONGEST:,} at most")
    try:
        return Profile.from_dict(json.loads(bytes(data), object_pairs_hook=_no_duplicates))
    except FewbitsError:
        raise
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
    """A profile out of its envelope; errors as of :func:`~fewbits.private.envelope.opened` and :func:`profile_from`."""
    found = opened(data, Kind.PROFILE, mac_key=mac_key, what=what)
    if hashlib.sha256(found.payload).digest() != found.profile:
        raise DamagedError(f"{what} is damaged: it is not the profile that its head names")
    return profile_from(found.payload, what)
