"""Who answers encrypted images: a program of fewbits, TenSEAL's matrix product, or Orion in a process of its own.

Each runner has keys of its own, encrypts an image, computes, and decrypts; only the computing is timed.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tenseal
import tenseal.sealapi as seal
from torch import nn

from benchmarks.kinds.private_networks import without_pooling
from benchmarks.unit import Row
from fewbits.private import Evaluator, Program, context
from fewbits.private.counts import ciphertext_bytes, key_bytes, total
from fewbits.private.price import calibrate, predicted

TENSEAL_BITS = (8192, [38, 27, 27, 27, 27, 27, 41], 27)  # degree, primes, scale: a precise program's of five levels


class Runner(Protocol):
    """``answer``: outputs, float64 [classes], and the CPU seconds of computing on the ciphertext."""

    def answer(self, image: np.ndarray) -> tuple[np.ndarray, float]: ...
    def facts(self) -> Row: ...


class Own:
    """A program of fewbits: a secret key, and the evaluator that a server has, with public keys only."""

    def __init__(self, program: Program) -> None:
        profile = program.profile
        self.program, self.profile, made = program, profile, seal.KeyGenerator(context(profile.parameters))
        galois, relinearise = seal.GaloisKeys(), seal.RelinKeys()
        made.create_galois_keys([profile.parameters.galois(step) for step in profile.rotations], galois)
        made.create_relin_keys(relinearise)
        self.evaluator = Evaluator(profile.parameters, galois, relinearise)
        there = context(profile.parameters)
        self._encoder = seal.CKKSEncoder(there)
        self._encryptor = seal.Encryptor(there, made.secret_key())
        self._decryptor = seal.Decryptor(there, made.secret_key())

    def answer(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        given = self._encrypt(image)
        self.evaluator.counts.clear()
        start = time.process_time()
        found = self.program.run(self.evaluator, given)
        seconds = time.process_time() - start
        plain = seal.Plaintext()
        self._decryptor.decrypt(found[0], plain)
        outputs, sentinel = self.profile.unpack([np.array(self._encoder.decode_double(plain))])
        assert self.profile.sound(sentinel)
        return outputs, seconds

    def _encrypt(self, image: np.ndarray) -> list[Any]:
        found = []
        for part in self.profile.pack(image):
            plain, cipher = seal.Plaintext(), seal.Ciphertext()
            self._encoder.encode(part.tolist(), self.profile.input_scale, plain)
            self._encryptor.encrypt_symmetric(plain, cipher)
            found.append(cipher)
        return found

    def facts(self) -> Row:
        """What the program is made of; the evaluator's counts of its last run are those predicted."""
        parameters, counts = self.profile.parameters, self.program.counts
        return {
            "degree": parameters.degree, "prime_bits": [prime.bit_length() for prime in parameters.primes],
            "modulus_bits": parameters.bits, "rotations": total(counts, "rotate"),
            "products": total(counts, "multiply"), "keys": len(self.profile.rotations),
            "predicted_milliseconds": 1000 * predicted(counts, calibrate(parameters)),
            "counted_as_predicted": self.evaluator.counts == counts,
            "key_bytes": key_bytes(self.profile), "input_bytes": ciphertext_bytes(self.profile),
        }  # fmt: skip


class TenSeal:
    """Linear layers by TenSEAL's ``mm``, and squares; the parameters are those of our precise program."""

    def __init__(self, model: nn.Module) -> None:
        self.layers: list[tuple[Any, Any] | None] = []
        for module in model:  # type: ignore[attr-defined]
            if isinstance(module, nn.Linear):
                self.layers.append((module.weight.detach().T.tolist(), module.bias.detach().tolist()))
            elif not isinstance(module, nn.Flatten):
                self.layers.append(None)
        degree, bits, scale = TENSEAL_BITS
        self.context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits, n_threads=1)
        self.context.global_scale = 2**scale
        self.context.generate_galois_keys()

    def answer(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        value = tenseal.ckks_vector(self.context, image.flatten().tolist())
        start = time.process_time()
        for layer in self.layers:
            value = value.square() if layer is None else value.mm(layer[0]) + layer[1]
        seconds = time.process_time() - start
        return np.array(value.decrypt()), seconds

    def facts(self) -> Row:
        degree, bits, _ = TENSEAL_BITS
        return {"degree": degree, "prime_bits": bits, "modulus_bits": float(sum(bits))}


class Orion:
    """A network in Orion 1.0.2, which wants older packages: a process of its own, asked image by image.

    Args:
        python: an interpreter that has ``orion-fhe``. layers: the network as plain data, see ``orion_peer``.
        folder: where the weights and images for its fit may lie.
    """

    def __init__(self, python: str, model: nn.Module, images: np.ndarray, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        model = without_pooling(model)  # a level less for each, and faster
        given = folder / "orion.npz"
        layers = list(_layers(model))
        weights = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
        np.savez(given, images=images, layers=json.dumps(layers), **weights)
        alone = os.environ | {"GOMAXPROCS": "1", "OMP_NUM_THREADS": "1"}
        command = [python, str(Path(__file__).with_name("orion_peer.py")), str(given)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone)
        self._facts = self._told()

    def answer(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        assert self.process.stdin is not None
        print(json.dumps(image.tolist()), file=self.process.stdin, flush=True)
        found = self._told()
        return np.array(found["outputs"]), found["seconds"]

    def facts(self) -> Row:
        return self._facts

    def close(self) -> None:
        """End the process; its memory goes with it."""
        self.process.communicate()

    def _told(self) -> Row:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                found: Row = json.loads(line.removeprefix("RESULT "))
                return found
        raise RuntimeError(f"Orion's process ended with {self.process.wait()}; what it said is above")


def _layers(model: nn.Module) -> Iterable[tuple[str, str, list[int]]]:
    """Name, kind and sizes of each layer of a chain."""
    for name, module in model.named_children():
        if isinstance(module, nn.Conv2d):
            size, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
            yield name, "conv", [module.in_channels, module.out_channels, size, stride, padding]
        elif isinstance(module, nn.Linear):
            yield name, "linear", [module.in_features, module.out_features]
        else:
            yield name, type(module).__name__.lower(), []
