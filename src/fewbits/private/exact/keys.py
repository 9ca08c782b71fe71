"""Keys of exact programs: secret ones that encrypt and decrypt, and evaluators that have public ones only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fewbits.errors import WrongKeyError
from fewbits.private._seal import seal
from fewbits.private.exact.machine import ExactEvaluator, centred

if TYPE_CHECKING:
    from fewbits.private.exact.parameters import ExactParameters


class ExactKeys:
    """A client's secret keys, one for each plain modulus.

    Args:
        parameters: of the program. rotations: steps that need a key.

    Raises:
        MissingExtraError: tenseal is not installed.
    """

    def __init__(self, parameters: ExactParameters, rotations: Iterable[int]) -> None:
        s = seal()
        self.parameters = parameters
        self._seal, self._parts, ring = s, [], parameters.ring
        self.evaluators: list[ExactEvaluator] = []
        for modulus in parameters.moduli:
            context = parameters.context(modulus)
            made = s.KeyGenerator(context)
            galois, relinearise = s.GaloisKeys(), s.RelinKeys()
            made.create_galois_keys([ring.galois(step) for step in rotations], galois)
            made.create_relin_keys(relinearise)
            secret = made.secret_key()
            self._parts.append(
                (modulus, s.BatchEncoder(context), s.Encryptor(context, secret), s.Decryptor(context, secret))
            )
            self.evaluators.append(ExactEvaluator(context, modulus, galois, relinearise))

    def encrypt(self, slots: np.ndarray) -> list[Any]:
        """Integers [slots] in both rows of a ciphertext, for each modulus."""
        found = []
        for modulus, encoder, encryptor, _ in self._parts:
            plain, cipher = self._seal.Plaintext(), self._seal.Ciphertext()
            encoder.encode(centred(np.tile(slots, 2), modulus), plain)
            encryptor.encrypt_symmetric(plain, cipher)
            found.append(cipher)
        return found

    def decrypt(self, answers: list[Any]) -> np.ndarray:
        """The integers of an answer, object [slots], each between minus and plus half of the moduli's product.

        Raises:
            WrongKeyError: no noise budget is left, so that the integers could be wrong.
        """
        whole, product = np.zeros(self.parameters.slots, dtype=object), 1
        for (modulus, encoder, _, decryptor), answer in zip(self._parts, answers, strict=True):
            if decryptor.invariant_noise_budget(answer) <= 0:
                raise WrongKeyError("the answer has no noise budget left: another key, or a damaged ciphertext")
            plain = self._seal.Plaintext()
            decryptor.decrypt(answer, plain)
            rest = np.array(encoder.decode_int64(plain)[: len(whole)], dtype=object)
            whole = whole + product * ((rest - whole) * pow(product, -1, modulus) % modulus)  # Garner
            product *= modulus
        return np.where(whole > product // 2, whole - product, whole)

    def budget(self, answers: list[Any]) -> int:
        """Bits of noise budget that are left, of the modulus with the fewest."""
        pairs = zip(self._parts, answers, strict=True)
        return min(int(decryptor.invariant_noise_budget(answer)) for (*_, decryptor), answer in pairs)
