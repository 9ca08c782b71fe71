"""What a server computes with: public evaluation keys, and a count of every operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from fewbits.errors import RecipeError
from fewbits.private._seal import seal
from fewbits.private.parameters import Parameters, context

OPERATIONS = (
    "rotate",
    "multiply",
    "square",
    "product",
    "relinearise",
    "rescale",
    "add",
    "add_vector",
    "drop",
    "encode",
)


class Encodings:
    """Encoded vectors by level and scale, made once. Evaluators of one process may share them: no key is in them."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.context = context(parameters)
        self.parms_ids: dict[int, Any] = {}
        found = self.context.first_context_data()
        while found is not None:
            self.parms_ids[found.chain_index()] = found.parms_id()
            found = found.next_context_data()
        self.levels = {tuple(name): level for level, name in self.parms_ids.items()}
        self._seal = seal()
        self._encoder = self._seal.CKKSEncoder(self.context)
        self._made: dict[tuple[int, int, float], tuple[np.ndarray, Any]] = {}
        self.made = 0

    def encoded(self, vector: np.ndarray, level: int, scale: float) -> Any:
        """A vector's plaintext; the vector itself is kept, so that its identity stays its own."""
        key = id(vector), level, scale
        found = self._made.get(key)
        if found is None:
            plain = self._seal.Plaintext()
            self._encoder.encode(vector.tolist(), self.parms_ids[level], scale, plain)
            found = self._made[key] = vector, plain
            self.made += 1
        return found[1]


class Evaluator:
    """Executes steps on ciphertexts. It holds no secret key, and has no way to be given one.

    Args:
        parameters: of the ciphertexts.
        galois: SEAL's Galois keys. relinearise: SEAL's relinearisation keys. Either may be left out if none is needed.
        encodings: shared with other evaluators of the same parameters.

    Attributes:
        counts: how often each of ``OPERATIONS`` was done, by name and level of its operand.
    """

    def __init__(
        self, parameters: Parameters, galois: Any = None, relinearise: Any = None, encodings: Encodings | None = None
    ) -> None:
        self.parameters = parameters
        self.encodings = Encodings(parameters) if encodings is None else encodings
        if self.encodings.parameters != parameters:
            raise RecipeError("encodings of other parameters")
        self._seal = seal()
        self._evaluator = self._seal.Evaluator(self.encodings.context)
        self._galois, self._relinearise = galois, relinearise
        self._known: set[int] = set()
        self.counts: Counter[tuple[str, int]] = Counter()

    def require(self, rotations: Iterable[int], relinearise: bool) -> None:
        """Checks that there is a key for every rotation: without one, SEAL may put a rotation together from others.

        Raises:
            RecipeError: a key is missing.
        """
        missing = [step for step in rotations if not self._has(step)]
        if missing:
            raise RecipeError(
                f"no Galois key for rotations by {', '.join(map(str, missing[:8]))}; make the keys for this program's "
                "profile"
            )
        if relinearise and self._relinearise is None:
            raise RecipeError("no relinearisation key; make the keys for this program's profile")

    def _has(self, step: int) -> bool:
        if step in self._known:
            return True
        if self._galois is not None and self._galois.has_key(self.parameters.galois(step)):
            self._known.add(step)
            return True
        return False

    def level(self, value: Any) -> int:
        """How many primes a ciphertext can still lose."""
        found = self.encodings.levels.get(tuple(value.parms_id()))
        if found is None:
            raise RecipeError("a ciphertext of other parameters")
        return found

    def check_input(self, value: Any, scale: float) -> None:
        """Checks that a ciphertext is one that a client of this program makes.

        Raises:
            RecipeError: another level, size or scale, or one that hides nothing.
        """
        if self.level(value) != self.parameters.levels:
            raise RecipeError(f"an input has level {self.level(value)}, not {self.parameters.levels}")
        if value.size() != 2 or not value.is_ntt_form():
            raise RecipeError("an input is no fresh ciphertext")
        if abs(value.scale / scale - 1) > 1e-9:
            raise RecipeError(f"an input has scale {value.scale:g}, not {scale:g}")
        if value.is_transparent():
            raise RecipeError("an input is not encrypted")

    def rotate(self, value: Any, step: int) -> Any:
        self.require((step,), False)
        self._count("rotate", value)
        found = self._seal.Ciphertext()
        self._evaluator.rotate_vector(value, step, self._galois, found)
        return found

    def multiply(self, value: Any, vector: np.ndarray, scale: float) -> Any:
        level = self._count("multiply", value)
        found = self._seal.Ciphertext()
        self._evaluator.multiply_plain(value, self.encodings.encoded(vector, level, scale), found)
        return found

    def add(self, left: Any, right: Any) -> Any:
        self._count("add", left)
        found = self._seal.Ciphertext()
        self._evaluator.add(left, right, found)
        return found

    def add_vector(self, value: Any, vector: np.ndarray) -> Any:
        level = self._count("add_vector", value)
        found = self._seal.Ciphertext()
        self._evaluator.add_plain(value, self.encodings.encoded(vector, level, value.scale), found)
        return found

    def square(self, value: Any) -> Any:
        self._count("square", value)
        self._count("relinearise", value)
        found = self._seal.Ciphertext()
        self._evaluator.square(value, found)
        self._evaluator.relinearize_inplace(found, self._relinearise)
        return found

    def product(self, left: Any, right: Any) -> Any:
        self._count("product", left)
        self._count("relinearise", left)
        found = self._seal.Ciphertext()
        self._evaluator.multiply(left, right, found)
        self._evaluator.relinearize_inplace(found, self._relinearise)
        return found

    def rescale(self, value: Any, scale: float) -> Any:
        self._count("rescale", value)
        found = self._seal.Ciphertext()
        self._evaluator.rescale_to_next(value, found)
        if abs(found.scale / scale - 1) > 1e-6:
            raise RecipeError(f"a program's scale is {scale:g}, its ciphertext's {found.scale:g}")
        found.scale = scale  # the same number, rounded otherwise
        return found

    def drop(self, value: Any, level: int) -> Any:
        if self.level(value) == level:
            return value
        self._count("drop", value)
        found = self._seal.Ciphertext()
        self._evaluator.mod_switch_to(value, self.encodings.parms_ids[level], found)
        return found

    def _count(self, name: str, value: Any) -> int:
        level = self.level(value)
        self.counts[name, level] += 1
        return level
