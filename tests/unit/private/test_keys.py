"""Keys: of one profile, for its rotations only, and each only as what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard

from fewbits.errors import DamagedError, KindError, ParametersError, WrongKeyError
from fewbits.private._primes import primes_of
from fewbits.private._seal import seal
from fewbits.private.binding import opened_profile, profile_bytes, profile_from, profile_hash, sealed_profile
from fewbits.private.client import Client
from fewbits.private.envelope import Envelope, Kind, opened
from fewbits.private.handler import Handler
from fewbits.private.keys import Keys, _id, generate, open_evaluation_keys, open_key
from fewbits.private.mac import new_mac_key, open_mac_key
from fewbits.private.parameters import context
from fewbits.private.parts import join, split
from fewbits.private.serial import from_bytes, to_bytes
from fewbits.private.sizes import ciphertext_limit, key_limit


def test_there_is_a_galois_key_for_each_rotation_and_no_other(program: Any, keys: Keys) -> None:
    profile = program.profile
    found = open_evaluation_keys(keys.evaluation, profile, context(profile.parameters))
    assert found.id == keys.id
    slots = profile.parameters.slots
    elements = {pow(3, step, 4 * slots) for step in profile.rotations}
    assert found.galois.size() == len(elements)
    assert {e for e in range(1, 4 * slots, 2) if found.galois.has_key(e)} == elements
    assert found.relinearise.has_key(2)


def test_keys_have_their_id_from_what_is_public_of_them(program: Any, keys: Keys, others: Keys) -> None:
    assert keys.id != others.id
    assert {open_key(data, *Kind).id for data in (keys.secret, keys.public)} == {keys.id}
    mine, theirs = (opened(each.evaluation, Kind.EVALUATION_KEYS) for each in (keys, others))
    swapped = dataclasses.replace(mine, payload=theirs.payload).sealed()  # another's keys under this id
    with pytest.raises(WrongKeyError, match="not the keys that their head names"):
        open_evaluation_keys(swapped, program.profile, context(program.profile.parameters))
    mine, theirs = (opened(each.public, Kind.PUBLIC_KEY) for each in (keys, others))
    with pytest.raises(WrongKeyError, match="not the key that its head names"):
        open_key(dataclasses.replace(mine, payload=theirs.payload).sealed(), Kind.PUBLIC_KEY)


def test_each_key_is_only_what_it_is(program: Any, keys: Keys) -> None:
    with pytest.raises(KindError, match="is a secret key; wanted is a public key"):
        open_key(keys.secret, Kind.PUBLIC_KEY)
    for data in (keys.secret, keys.public):
        with pytest.raises(KindError):
            open_evaluation_keys(data, program.profile, context(program.profile.parameters))
    with pytest.raises(KindError, match="evaluation keys; wanted is a secret key or a public key"):
        Client(keys.evaluation)


def test_a_strangers_profile_makes_no_keys_beyond_a_limit(program: Any) -> None:
    many = dataclasses.replace(program.profile, rotations=tuple(range(1, 2048)))
    with pytest.raises(ParametersError, match=r"asks for 2,047 Galois keys, some 403,193,984 bytes"):
        generate(many, limit=1_000_000)
    few = generate(program.profile, limit=1_000_000)
    with pytest.raises(ParametersError):
        generate(program.profile, limit=len(few.evaluation) // 2)


def test_a_secret_key_in_the_place_of_another_is_refused(program: Any, keys: Keys) -> None:
    """As SEAL writes it, under right hashes: nothing says what it is."""
    secret = split(opened(keys.secret, Kind.SECRET_KEY).payload, 2, "key")[1]
    public, relinearise, galois = split(opened(keys.evaluation, Kind.EVALUATION_KEYS).payload, 3, "keys")
    bound = profile_hash(program.profile)
    for parts in ([public, secret, galois], [public, relinearise, secret]):
        hashes = [bytes(public), *(hashlib.sha256(part).digest() for part in parts[1:])]
        sealed = Envelope(Kind.EVALUATION_KEYS, join(parts), bound, _id(bound, hashes)).sealed()
        with pytest.raises(DamagedError, match="cannot be read as"):
            open_evaluation_keys(sealed, program.profile, context(program.profile.parameters))


@pytest.mark.parametrize("rotations", [(), (4,), (4, 9), (4, 9, 2044)])
def test_fewer_or_more_rotations_are_refused(program: Any, rotations: tuple[int, ...]) -> None:
    profile = program.profile
    made = generate(dataclasses.replace(profile, rotations=rotations))
    found = opened(made.evaluation, Kind.EVALUATION_KEYS)
    parts = split(found.payload, 3, "keys")
    hashes = [bytes(parts[0]), *(hashlib.sha256(part).digest() for part in parts[1:])]
    bound = profile_hash(profile)  # a client that says that it is for this profile
    lying = Envelope(Kind.EVALUATION_KEYS, join(parts), bound, _id(bound, hashes)).sealed()
    with pytest.raises(DamagedError, match=r"rotations; missing|not those that the profile needs|larger than"):
        open_evaluation_keys(lying, profile, context(profile.parameters))


def test_a_profile_comes_back_and_binds_its_keys(program: Any, client: Client, keys: Keys) -> None:
    profile = program.profile
    again = opened_profile(sealed_profile(profile))
    assert again == profile
    assert profile_bytes(again) == profile_bytes(profile)
    assert client.profile == profile
    other = dataclasses.replace(profile, rotations=(4, 5))
    with pytest.raises(DamagedError, match="does not hold the profile that its head names"):
        opened_profile(Envelope(Kind.PROFILE, profile_bytes(profile), profile_hash(other)).sealed())
    with pytest.raises(ParametersError, match="another network or to other parameters"):
        open_evaluation_keys(keys.evaluation, other, context(profile.parameters))


def weak(values: dict[str, Any]) -> None:
    """One prime more than 128 bits of security allow."""
    values["parameters"]["primes"] = list(primes_of(4096, (38, 32, 38)))


def test_a_client_refuses_weak_parameters(program: Any) -> None:
    """Also those that SEAL itself takes (107 to 109 bits at degree 4096), and a sparse secret."""
    for change, words in (
        (weak, "less than 128 bits of security.*108"),
        (lambda values: values["parameters"].update(secret="sparse"), "weaker"),
        (lambda values: values["parameters"].update(degree=1024), "degree"),
        (lambda values: values.pop("rotations"), "rotations is missing"),
        (lambda values: values.update(rotations=[0]), "rotations"),
        (lambda values: values.update(more=1), "no key 'more'"),
    ):
        values = json.loads(profile_bytes(program.profile))
        change(values)
        sealed = Envelope(Kind.PROFILE, json.dumps(values).encode(), profile_hash(program.profile)).sealed()
        with pytest.raises(ParametersError, match=f"the profile is refused: .*{words}"):
            opened_profile(sealed)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 1}', b'{"a": NaN}']
)
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    with pytest.raises((DamagedError, ParametersError)):
        profile_from(data, "it")


def test_a_mac_key_is_random_and_of_its_own_kind(keys: Keys) -> None:
    first, second = open_mac_key(new_mac_key()), open_mac_key(new_mac_key())
    assert len(first) == 32
    assert first != second
    with pytest.raises(KindError, match="wanted is a MAC key"):
        open_mac_key(keys.public)


def test_objects_come_back_within_their_bounds_and_no_larger(program: Any, keys: Keys, client: Client) -> None:
    """The bounds are those of the plain objects: a byte less, and they are refused."""
    s, parameters = seal(), program.profile.parameters
    made = context(parameters)
    relin = split(opened(keys.evaluation, Kind.EVALUATION_KEYS).payload, 3, "keys")[1]
    public = split(opened(keys.public, Kind.PUBLIC_KEY).payload, 4, "key")[1]
    part = split(opened(client.encrypt(np.arange(8) / 8), Kind.REQUEST).payload, 1, "request")[0]
    for cls, data, limit in (
        (s.RelinKeys, relin, key_limit(parameters, 1)),
        (s.PublicKey, public, ciphertext_limit(parameters, with_special=True)),
        (s.Ciphertext, part, ciphertext_limit(parameters)),
    ):
        found = from_bytes(cls, made, data, limit, "it")
        again = from_bytes(cls, made, to_bytes(found), limit, "it")
        assert to_bytes(again) == to_bytes(found)
        with pytest.raises(DamagedError, match="larger than"):
            from_bytes(cls, made, to_bytes(found), limit // 4, "it")


def test_a_bomb_is_not_unpacked(program: Any) -> None:
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 26))
    bomb = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 2, 0, 16 + len(packed)) + packed
    assert len(bomb) < 20_000
    made = context(program.profile.parameters)
    tracemalloc.start()
    with pytest.raises(DamagedError, match="larger than"):
        from_bytes(seal().GaloisKeys, made, bomb, 1 << 20, "it")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23


def test_where_memory_has_no_files_a_private_folder_does(
    program: Any, client: Client, handler: Handler, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    modes = []
    real = os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda path, mode=0o777, **more: (modes.append(mode), real(path, mode, **more))[1])
    handler(keys.evaluation)
    request = client.encrypt(np.arange(8) / 8)
    client.decrypt(handler(request), request)
    assert set(modes) == {0o700}
