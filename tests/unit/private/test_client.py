"""A client and a server's handler: what fits together gives outputs, and what does not says why."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fewbits.errors import DamagedError, FewbitsError, KindError, ParametersError, WrongKeyError
from fewbits.private._seal import seal
from fewbits.private.binding import profile_hash
from fewbits.private.client import Client
from fewbits.private.envelope import Envelope, Kind, head_of, opened
from fewbits.private.handler import Handler
from fewbits.private.keys import Keys, generate, open_key
from fewbits.private.messages import UnknownKeyError, answered, hello, refusal
from fewbits.private.parts import join, split
from fewbits.private.serial import _plain, to_bytes


def refused(reply: bytes) -> None:
    """Raises what the server says."""
    answered(reply, Kind.ANSWER, None)


@pytest.fixture
def ready(handler: Handler, keys: Keys) -> Handler:
    assert head_of(handler(keys.evaluation)).kind is Kind.ACCEPTED
    return handler


def test_outputs_come_out_for_both_ways_to_encrypt(
    ready: Handler, client: Client, keys: Keys, sample: np.ndarray, plain: np.ndarray
) -> None:
    requests = [client.encrypt(sample), Client(keys.public).encrypt(sample)]
    for request in requests:
        found = client.decrypt(ready(request), request)
        assert found.shape == plain.shape
        assert np.abs(found - plain).max() < client.profile.error
    assert len(requests[0]) < 0.55 * len(requests[1])  # seeded


def test_the_same_input_is_never_the_same_request(client: Client, sample: np.ndarray) -> None:
    first, second = (opened(client.encrypt(sample), Kind.REQUEST) for _ in range(2))
    assert first.number != second.number
    assert bytes(first.payload)[1000:1064] not in bytes(second.payload)


def test_an_answer_belongs_to_one_key_and_one_request(
    ready: Handler, client: Client, keys: Keys, others: Keys, sample: np.ndarray
) -> None:
    first, second = client.encrypt(sample), client.encrypt(sample)
    answer = ready(first)
    with pytest.raises(WrongKeyError, match="belongs to another request"):
        client.decrypt(answer, second)
    with pytest.raises(WrongKeyError, match="belongs to the key"):
        Client(others.secret).decrypt(answer)
    with pytest.raises(KindError, match="a public key encrypts only"):
        Client(keys.public).decrypt(answer)
    with pytest.raises(KindError, match="the answer is a request; wanted is an answer"):
        client.decrypt(first)


def test_the_sentinel_tells_a_wrong_key(
    ready: Handler, client: Client, keys: Keys, others: Keys, sample: np.ndarray
) -> None:
    """Heads and hashes are right in all of these: nothing but what is decrypted is wrong."""
    request = client.encrypt(sample)
    answer = opened(ready(request), Kind.ANSWER)
    ready(others.evaluation)
    theirs = opened(ready(Client(others.secret).encrypt(sample)), Kind.ANSWER)
    with pytest.raises(WrongKeyError, match="decrypts to nonsense"):
        client.decrypt(dataclasses.replace(theirs, key=keys.id).sealed())
    mine, other = (opened(each.secret, Kind.SECRET_KEY) for each in (keys, others))
    swapped = Client(dataclasses.replace(other, key=mine.key).sealed())
    with pytest.raises(WrongKeyError, match="decrypts to nonsense"):
        swapped.decrypt(answer.sealed())
    encrypted_by_others = opened(Client(others.secret).encrypt(sample), Kind.REQUEST)
    with pytest.raises(WrongKeyError, match="decrypts to nonsense"):
        client.decrypt(ready(dataclasses.replace(encrypted_by_others, key=keys.id).sealed()))
    client.decrypt(answer.sealed(), request)


def test_a_message_of_other_parameters_or_unknown_keys_is_refused(
    ready: Handler, client: Client, others: Keys, sample: np.ndarray
) -> None:
    other = Client(generate(dataclasses.replace(client.profile, rotations=(4, 5))).secret)
    with pytest.raises(ParametersError, match="another network or to other parameters"):
        refused(ready(other.encrypt(sample)))
    replayed = dataclasses.replace(opened(other.encrypt(sample), Kind.REQUEST), profile=profile_hash(client.profile))
    with pytest.raises(UnknownKeyError, match="send them before the request"):
        refused(ready(replayed.sealed()))
    with pytest.raises(UnknownKeyError):
        refused(ready(Client(others.secret).encrypt(sample)))


def test_what_is_no_fresh_ciphertext_is_refused(ready: Handler, client: Client, keys: Keys, sample: np.ndarray) -> None:
    """In sound envelopes of the right key: an answer sent as a request, one more or less, one that hides nothing."""
    s, opened_key = seal(), open_key(keys.secret, Kind.SECRET_KEY)
    request = opened(client.encrypt(sample), Kind.REQUEST)
    (part,) = split(request.payload, 1, "it")
    (low,) = split(opened(ready(client.encrypt(sample)), Kind.ANSWER).payload, 1, "it")
    plain, clear = s.Plaintext(), s.Ciphertext()
    s.CKKSEncoder(opened_key.context).encode([0.5], client.profile.input_scale / 2, plain)
    s.Encryptor(opened_key.context, opened_key.key).encrypt_symmetric(plain, clear)
    whole = bytearray(_plain(memoryview(to_bytes(clear)), 1 << 20, "it"))
    bare = bytes(whole[: len(whole) // 2 + 200]) + bytes(len(whole) - len(whole) // 2 - 200)  # its second half is zero
    secret = to_bytes(opened_key.key)  # as SEAL writes it, so nothing says what it is
    for parts in ([], [part, part], [low], [to_bytes(clear)], [bare], [secret], [b""], [part[:-1]], [part[:50]]):
        with pytest.raises(FewbitsError, match="the server says"):
            refused(ready(dataclasses.replace(request, payload=join(parts)).sealed()))
    with pytest.raises(DamagedError, match="the server says"):
        refused(ready(dataclasses.replace(request, payload=b"").sealed()))
    client.decrypt(ready(request.sealed()))


def test_a_secret_key_is_found_in_whatever_it_is_in(
    ready: Handler, client: Client, keys: Keys, sample: np.ndarray
) -> None:
    request = client.encrypt(sample)
    sound = opened(request, Kind.REQUEST)
    for data in (keys.secret, request + keys.secret, dataclasses.replace(sound, payload=keys.secret).sealed()):
        with pytest.raises(KindError, match="the message holds a secret key"):
            refused(ready(data))


def test_a_hostile_answer_is_refused(ready: Handler, client: Client, sample: np.ndarray) -> None:
    request = client.encrypt(sample)
    answer = opened(ready(request), Kind.ANSWER)
    (part,) = split(answer.payload, 1, "it")
    for payload in (b"", join([]), join([part, part]), join([part[:-9]]), join([b"\x5e\xa1" + bytes(20)]), bytes(part)):
        with pytest.raises(DamagedError):
            client.decrypt(dataclasses.replace(answer, payload=payload).sealed())


def test_no_message_of_a_client_holds_input_output_or_key(
    ready: Handler, client: Client, keys: Keys, sample: np.ndarray
) -> None:
    request = client.encrypt(sample)
    answer = ready(request)
    outputs = client.decrypt(answer)
    secret = to_bytes(open_key(keys.secret, Kind.SECRET_KEY).key)
    for data in (request, answer, keys.public, keys.evaluation):
        for needle in (
            sample.tobytes()[8:],
            sample.astype(np.float32).tobytes()[4:],
            outputs.tobytes(),
            secret[100:164],
        ):
            assert needle not in data
    assert secret[100:164] in keys.secret


def test_decrypted_values_have_no_way_back(ready: Handler, client: Client, sample: np.ndarray) -> None:
    """What a server takes are greetings, evaluation keys and requests; outputs in any envelope are none of them."""
    outputs = client.decrypt(ready(client.encrypt(sample))).tobytes()
    for kind in Kind:
        with pytest.raises(FewbitsError, match="the server says"):
            refused(ready(Envelope(kind, outputs, profile_hash(client.profile), client.id).sealed()))


def test_errors_come_back_as_what_they_are() -> None:
    with pytest.raises(WrongKeyError, match=r"the server says: no\\x1b\[31m"):
        refused(refusal(WrongKeyError("no\x1b[31m")))
    for payload in (b"", b"{}", b'{"error": "OSError", "message": 3}', b"[" * 4000):
        with pytest.raises(FewbitsError):
            refused(Envelope(Kind.ERROR, payload).sealed())
    assert len(refusal(DamagedError("x" * 100_000))) < 5000
    with pytest.raises(KindError, match="wanted is an answer"):
        refused(hello())


def test_an_error_that_no_message_should_cause_is_told_on_the_servers_side_only(
    program: Any, keys: Keys, client: Client, sample: np.ndarray
) -> None:
    class Broken:
        profile = program.profile

        def run(self, evaluator: Any, ciphertexts: Any) -> Any:
            raise ZeroDivisionError("layer3.weight is 42")

    told: list[str] = []
    handler = Handler(Broken(), tell=told.append)  # type: ignore[arg-type]
    handler(keys.evaluation)
    reply = handler(client.encrypt(sample))
    assert b"42" not in reply
    with pytest.raises(FewbitsError, match="the server failed at this message"):
        refused(reply)
    assert told == ["failed at a message: ZeroDivisionError: layer3.weight is 42"]


def test_few_clients_keys_stay_loaded(program: Any, keys: Keys, others: Keys, sample: np.ndarray) -> None:
    asked: list[bytes] = []

    def stored(key: bytes) -> bytes | None:
        asked.append(key)
        return {keys.id: keys.evaluation, others.id: others.evaluation}.get(key)

    handler = Handler(program, stored=stored, cached=1)
    for each in (keys, keys, others, others, keys):
        client = Client(each.secret)
        client.decrypt(handler(client.encrypt(sample)))
    assert asked == [keys.id, others.id, keys.id]
