"""Damaged and hostile messages through a server's message handler: an error as the answer, each time.

``FEWBITS_FUZZ`` says how many times as many as usual.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from fewbits.errors import PrivateError
from fewbits.private.binding import opened_profile, sealed_profile
from fewbits.private.client import Client
from fewbits.private.envelope import HASH, HEAD, Envelope, Kind, head_of, opened
from fewbits.private.handler import Handler
from fewbits.private.keys import generate
from fewbits.private.messages import hello
from private_programs import SAMPLE, small_program

MORE = int(os.environ.get("FEWBITS_FUZZ", "1"))
MAC = bytes(range(32))


class Attacked:
    """A server's handler, its client, and the messages that are mutated."""

    def __init__(self, mac: bytes | None = None) -> None:
        program = small_program()
        self.failures: list[str] = []
        self.handler = Handler(program, mac, tell=self.failures.append)
        self.mac = mac
        self.keys = generate(program.profile)
        self.client = Client(self.keys.secret, mac)
        self.sample = np.asarray(SAMPLE)
        self.request = self.client.encrypt(self.sample)
        sealed = opened(self.keys.evaluation, Kind.EVALUATION_KEYS).sealed(mac)
        assert head_of(self.handler(sealed)).kind is Kind.ACCEPTED
        self.wanted = self.client.decrypt(self.handler(self.request))
        self.messages = {"request": self.request, "evaluation keys": sealed, "greeting": hello(mac)}

    def still_sound(self) -> None:
        assert np.abs(self.client.decrypt(self.handler(self.request), self.request) - self.wanted).max() < 1e-3

    def answer(self, message: bytes) -> Kind:
        started = time.process_time()
        reply = self.handler(message)
        assert time.process_time() - started < 5
        found = opened(reply, *Kind, mac_key=self.mac)
        if found.kind is Kind.ERROR:
            told = json.loads(bytes(found.payload))
            assert set(told) == {"error", "message"}
            assert told["message"]
        return found.kind


@pytest.fixture(scope="module")
def attacked() -> Attacked:
    return Attacked()


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Another byte string than the one that is given, near to it."""
    made = bytearray(data)
    at = chance.randrange(len(made))
    match chance.randrange(8):
        case 0:
            made[at] ^= 1 << chance.randrange(8)
        case 1:
            made[at : at + 8] = chance.randbytes(8)
        case 2:
            del made[at:]
        case 3:
            made += chance.randbytes(chance.randrange(1, 100))
        case 4:
            del made[at : at + chance.randrange(1, 100)]
        case 5:
            made[at:at] = made[: chance.randrange(1, 200)]
        case 6:
            made[: HEAD.size] = bytes(chance.choices(range(256), k=HEAD.size))
        case 7:
            at = chance.randrange(HEAD.size)
            made[at] = chance.randrange(256)
    if made == data:
        made[-1] ^= 1
    return bytes(made)


def damaged(attacked: Attacked, count: int) -> None:
    chance = random.Random(0)
    names = list(attacked.messages)
    for _ in range(count):
        message = mutate(chance, attacked.messages[chance.choice(names)])
        assert attacked.answer(message) is Kind.ERROR
    assert not attacked.failures
    attacked.still_sound()


def forged(attacked: Attacked, count: int) -> tuple[int, int]:
    """Payloads mutated behind heads and hashes that are right: what SHA-256 cannot refuse. How many were taken."""
    chance = random.Random(1)
    taken = 0
    for _ in range(count):
        kind = chance.choice((Kind.REQUEST, Kind.REQUEST, Kind.EVALUATION_KEYS))
        data = attacked.request if kind is Kind.REQUEST else attacked.messages["evaluation keys"]
        found = opened(data, kind, mac_key=attacked.mac)
        payload = mutate(chance, bytes(found.payload))
        if chance.random() < 0.5:  # where SEAL's own heads and those of parts are
            bad = bytearray(found.payload)
            bad[chance.randrange(min(200, len(bad)))] ^= 1 << chance.randrange(8)
            payload = bytes(bad)
        message = Envelope(kind, payload, found.profile, found.key, found.number).sealed()
        if attacked.mac is not None:  # who has no MAC key takes the MAC of the message that was there
            message = bytearray(Envelope(kind, payload, found.profile, found.key, found.number).sealed(bytes(32)))
            message[-HASH:] = data[-HASH:]
        taken += attacked.answer(bytes(message)) is not Kind.ERROR
    attacked.still_sound()
    return taken, count


def on_the_clients_side(attacked: Attacked, count: int) -> None:
    """Answers, keys and profiles: damaged ones are refused; of forged ones nothing but an error or numbers comes."""
    chance = random.Random(2)
    answer = attacked.handler(attacked.request)
    profile = sealed_profile(attacked.client.profile)
    openers: list[tuple[bytes, Callable[[bytes], Any]]] = [
        (answer, lambda data: attacked.client.decrypt(data, attacked.request)),
        (attacked.keys.secret, lambda data: Client(data).decrypt(answer)),
        (attacked.keys.public, lambda data: Client(data).encrypt(attacked.sample)),
        (profile, opened_profile),
    ]
    for _ in range(count):
        data, opener = chance.choice(openers)
        with pytest.raises(PrivateError):
            opener(mutate(chance, data))
        found = opened(data, *Kind)
        payload = mutate(chance, bytes(found.payload))
        with contextlib.suppress(PrivateError):
            opener(Envelope(found.kind, payload, found.profile, found.key, found.number).sealed())
    attacked.still_sound()


def test_a_client_opens_nothing_damaged(attacked: Attacked) -> None:
    on_the_clients_side(attacked, 60 * MORE)


@pytest.mark.long
def test_a_client_opens_nothing_of_ten_thousand_damaged(attacked: Attacked) -> None:
    on_the_clients_side(attacked, 10_000)


def test_what_is_damaged_is_never_taken(attacked: Attacked) -> None:
    damaged(attacked, 250 * MORE)


@pytest.mark.long
def test_ten_thousand_damaged_messages_are_never_taken(attacked: Attacked) -> None:
    damaged(attacked, 10_000)


def test_forged_messages_end_no_server(attacked: Attacked) -> None:
    taken, count = forged(attacked, 60 * MORE)
    assert taken < count / 2


@pytest.mark.long
def test_ten_thousand_forged_messages_end_no_server(attacked: Attacked) -> None:
    forged(attacked, 10_000)


def test_forged_messages_are_never_taken_where_a_mac_is_asked() -> None:
    assert forged(Attacked(MAC), 60 * MORE)[0] == 0


@pytest.mark.long
def test_ten_thousand_forged_messages_are_never_taken_where_a_mac_is_asked() -> None:
    assert forged(Attacked(MAC), 10_000)[0] == 0
