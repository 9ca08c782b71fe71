"""All four roles in one process, for tests: keys, an encrypted input, an evaluator and the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewbits.private import Evaluator, Profile, Program, context


class Client:
    """A secret key, and public ones for a profile."""

    def __init__(self, profile: Profile) -> None:
        import tenseal.sealapi as seal

        self.seal, self.profile = seal, profile
        self.context = context(profile.parameters)
        made = seal.KeyGenerator(self.context)
        self.secret = made.secret_key()
        self.galois, self.relinearise = seal.GaloisKeys(), seal.RelinKeys()
        made.create_galois_keys([profile.parameters.galois(step) for step in profile.rotations], self.galois)
        if profile.relinearise:
            made.create_relin_keys(self.relinearise)

    def evaluator(self) -> Evaluator:
        return Evaluator(self.profile.parameters, self.galois, self.relinearise)

    def encrypt(self, slots: np.ndarray, scale: float | None = None) -> Any:
        plain, cipher = self.seal.Plaintext(), self.seal.Ciphertext()
        self.seal.CKKSEncoder(self.context).encode(slots.tolist(), scale or self.profile.input_scale, plain)
        self.seal.Encryptor(self.context, self.secret).encrypt_symmetric(plain, cipher)
        return cipher

    def decrypt(self, cipher: Any) -> np.ndarray:
        plain = self.seal.Plaintext()
        self.seal.Decryptor(self.context, self.secret).decrypt(cipher, plain)
        return np.array(self.seal.CKKSEncoder(self.context).decode_double(plain))


def answer(program: Program, client: Client, evaluator: Evaluator, sample: Any) -> np.ndarray:
    """All slots of the answer to one sample."""
    found = program.run(evaluator, [client.encrypt(part) for part in program.profile.pack(sample)])
    return client.decrypt(found[0])
