"""A server's answer to one message: bytes in, bytes out, whatever they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fewbits.errors import DamagedError, FewbitsError, KindError, PrivateError, RecipeError, ServerError
from fewbits.private._seal import seal
from fewbits.private.binding import profile_hash, sealed_profile
from fewbits.private.envelope import MAGIC, VERSION, Envelope, Kind, head_of, opened
from fewbits.private.evaluator import Encodings, Evaluator
from fewbits.private.keys import EvaluationKeys, open_evaluation_keys
from fewbits.private.limits import largest
from fewbits.private.messages import UnknownKeyError, refusal
from fewbits.private.parts import join, split
from fewbits.private.serial import from_bytes, to_bytes
from fewbits.private.sizes import ciphertext_limit

if TYPE_CHECKING:
    from fewbits.private.program import Program

_SECRET = MAGIC + bytes([VERSION, Kind.SECRET_KEY])


def refuse_secret_key(data: bytes | bytearray | memoryview, what: str) -> None:
    """A server has no use for a secret key, and must not come to have one.

    Raises:
        KindError: there is one in these bytes, also inside of something else.
    """
    if _SECRET in bytes(data):
        raise KindError(
            f"{what} holds a secret key, which nobody but the client may have: give evaluation keys; if it has "
            "left the client's machine, make new keys"
        )


class Handler:
    """What a server does with messages, without sockets: greeting, evaluation keys, request.

    It never raises: what is wrong with a message is the answer, as an envelope of kind ``ERROR``.

    Args:
        program: that requests are computed with.
        mac_key: which clients must use, if any.
        stored: evaluation keys in their envelope by their id, which this handler has not seen yet; ``None`` if there
            are none.
        cached: so many clients' keys stay loaded.
        tell: hears of errors that no message should cause.
    """

    def __init__(
        self,
        program: Program,
        mac_key: bytes | None = None,
        stored: Callable[[bytes], bytes | None] = lambda key: None,
        cached: int = 2,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._program, self._mac_key, self._stored, self._cached, self._tell = program, mac_key, stored, cached, tell
        self._profile = program.profile
        self._hash = profile_hash(self._profile)
        self._encodings = Encodings(self._profile.parameters)
        self._context = self._encodings.context
        self._largest = largest(self._profile)
        self._evaluators: OrderedDict[bytes, Evaluator] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, message: bytes) -> bytes:
        """The answer to a message."""
        number = bytes(16)
        try:
            refuse_secret_key(message, "the message")
            head = head_of(message, "the message")
            number = head.number
            if head.kind not in self._largest:
                raise KindError(f"the message is {head.kind.words}, and a server takes none")
            if len(message) > self._largest[head.kind]:
                raise DamagedError(f"the message has {len(message):,} bytes; at most {self._largest[head.kind]:,}")
            if head.kind is Kind.HELLO:
                if opened(message, Kind.HELLO, mac_key=self._mac_key, what="the message").payload:
                    raise DamagedError("the message is a greeting that holds something")
                return sealed_profile(self._profile, self._mac_key)
            with self._lock:
                return self._keys(message) if head.kind is Kind.EVALUATION_KEYS else self._request(message)
        except PrivateError as error:
            return refusal(error, number, self._mac_key)
        except FewbitsError as error:
            return refusal(ServerError(str(error)), number, self._mac_key)
        except Exception as error:  # SEAL's are of many kinds, and a client's bytes end no server
            self._tell(f"failed at a message: {type(error).__name__}: {error}")
            return refusal(ServerError("the server failed at this message"), number, self._mac_key)

    def _keys(self, message: bytes) -> bytes:
        keys = open_evaluation_keys(message, self._profile, self._context, self._mac_key)
        self._keep(keys)
        return Envelope(Kind.ACCEPTED, b"", self._hash, keys.id).sealed(self._mac_key)

    def _keep(self, keys: EvaluationKeys) -> Evaluator:
        made = Evaluator(self._profile.parameters, keys.galois, keys.relinearise, self._encodings)
        self._evaluators[keys.id] = made
        while len(self._evaluators) > self._cached:
            self._evaluators.popitem(last=False)
        return made

    def _evaluator(self, key: bytes) -> Evaluator:
        if key in self._evaluators:
            self._evaluators.move_to_end(key)
            return self._evaluators[key]
        found = self._stored(key)
        if found is None:
            raise UnknownKeyError(f"there are no evaluation keys {key.hex()} here: send them before the request")
        keys = open_evaluation_keys(found, self._profile, self._context, self._mac_key)
        if keys.id != key:
            raise UnknownKeyError(f"the evaluation keys {key.hex()} are not what was kept under their name")
        return self._keep(keys)

    def _request(self, message: bytes) -> bytes:
        found = opened(message, Kind.REQUEST, profile=self._hash, mac_key=self._mac_key, what="the request")
        evaluator = self._evaluator(found.key)
        parts = split(found.payload, len(self._profile.input_slots), "the request")
        given = [self._ciphertext(part) for part in parts]
        try:
            outputs = [to_bytes(out) for out in self._program.run(evaluator, given)]
        except RecipeError as error:
            raise DamagedError(f"the request holds what no client of this program makes: {error}") from None
        return Envelope(Kind.ANSWER, join(outputs), self._hash, found.key, found.number).sealed(self._mac_key)

    def _ciphertext(self, part: memoryview) -> Any:
        limit = ciphertext_limit(self._profile.parameters)
        return from_bytes(seal().Ciphertext, self._context, part, limit, "the request's ciphertext")
