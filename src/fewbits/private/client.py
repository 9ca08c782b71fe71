"""What a client does with its key: inputs become requests, and answers become outputs."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from fewbits.errors import DamagedError, KindError, WrongKeyError
from fewbits.private._seal import seal
from fewbits.private.envelope import Envelope, Kind, opened
from fewbits.private.keys import OpenedKey, open_key
from fewbits.private.parts import join, split
from fewbits.private.profile import Profile
from fewbits.private.serial import SEAL_ERRORS, from_bytes, to_bytes
from fewbits.private.sizes import ciphertext_limit


class Client:
    """Encrypts with a secret or a public key, and decrypts with a secret one.

    Args:
        key: a key in its envelope.
        mac_key: that client and server share, if any.
        what: the key is called in errors.
    """

    def __init__(self, key: bytes, mac_key: bytes | None = None, what: str = "the key") -> None:
        self._key: OpenedKey = open_key(key, Kind.SECRET_KEY, Kind.PUBLIC_KEY, what=what)
        self._mac_key = mac_key

    @property
    def profile(self) -> Profile:
        """The profile that the key was made for."""
        return self._key.profile

    @property
    def id(self) -> bytes:
        """Of the keys, 16 bytes."""
        return self._key.id

    def encrypt(self, sample: np.ndarray) -> bytes:
        """A request for one sample, without a batch dimension; with a secret key it is half as large (seeded)."""
        s, key = seal(), self._key
        encoder, encryptor = s.CKKSEncoder(key.context), s.Encryptor(key.context, key.key)
        parts = []
        for values in key.profile.pack(sample):
            plain = s.Plaintext()
            encoder.encode(np.asarray(values, dtype=np.float64).tolist(), key.profile.input_scale, plain)
            if key.kind is Kind.SECRET_KEY:
                parts.append(to_bytes(encryptor.encrypt_symmetric(plain)))
            else:
                made = s.Ciphertext()
                encryptor.encrypt(plain, made)
                parts.append(to_bytes(made))
        number = secrets.token_bytes(16)
        return Envelope(Kind.REQUEST, join(parts), key.profile_hash, key.id, number).sealed(self._mac_key)

    def decrypt(self, answer: bytes, request: bytes | None = None, what: str = "the answer") -> np.ndarray:
        """The outputs in an answer.

        Args:
            request: that it must answer; ``None`` for any of this key.
            what: the answer is called in errors.

        Raises:
            KindError: the key is a public one. WrongKeyError: the answer belongs to another key or request, or its
                sentinel does not have its value: the server computed with other keys than these.
        """
        key = self._key
        if key.kind is not Kind.SECRET_KEY:
            raise KindError("a public key encrypts only: decrypt with the secret key")
        number = None
        if request is not None:
            number = opened(request, Kind.REQUEST, mac_key=self._mac_key, what="the request").number
        found = opened(
            answer,
            Kind.ANSWER,
            profile=key.profile_hash,
            key=key.id,
            number=number,
            mac_key=self._mac_key,
            what=what,
        )
        parts = split(found.payload, 1, what)
        return self._outputs([self._decrypted(part, what) for part in parts], what)

    def _decrypted(self, part: memoryview, what: str) -> np.ndarray:
        s, key = seal(), self._key
        limit = ciphertext_limit(key.profile.parameters)
        made: Any = from_bytes(s.Ciphertext, key.context, part, limit, what)
        if made.size() != 2:
            raise DamagedError(f"{what} has a ciphertext of {made.size()} polynomials, not of two")
        plain = s.Plaintext()
        try:
            s.Decryptor(key.context, key.key).decrypt(made, plain)
            return np.array(s.CKKSEncoder(key.context).decode_double(plain))
        except SEAL_ERRORS as error:
            raise DamagedError(f"{what} cannot be decrypted: {error}") from None

    def _outputs(self, slots: list[np.ndarray], what: str) -> np.ndarray:
        outputs, sentinel = self._key.profile.unpack(slots)
        if not self._key.profile.sound(sentinel):
            raise WrongKeyError(
                f"{what} decrypts to nonsense: it was computed with other keys than this one's, or by another program"
            )
        return outputs
