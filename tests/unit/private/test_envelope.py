"""The envelope's contract: nothing but the very bytes that were sealed is opened, and each error says what is wrong."""

from __future__ import annotations

import hashlib
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import AuthenticationError, DamagedError, KindError, ParametersError, PrivateError, WrongKeyError
from fewbits.private.envelope import HASH, HEAD, Envelope, Kind, head_of, opened

MAC = bytes(range(32))
envelopes = st.builds(
    Envelope,
    st.sampled_from(list(Kind)),
    st.binary(max_size=300),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
)
mac_keys = st.sampled_from([None, MAC])


@given(envelopes, mac_keys)
def test_what_was_sealed_comes_out(envelope: Envelope, mac: bytes | None) -> None:
    sealed = envelope.sealed(mac)
    found = opened(
        sealed, envelope.kind, profile=envelope.profile, key=envelope.key, number=envelope.number, mac_key=mac
    )
    assert found == envelope
    head = head_of(sealed[: HEAD.size])
    assert (head.kind, head.size, head.with_mac) == (envelope.kind, len(sealed), mac is not None)


@settings(max_examples=10)
@given(envelopes, mac_keys)
def test_every_flipped_bit_is_found(envelope: Envelope, mac: bytes | None) -> None:
    sealed = bytearray(envelope.sealed(mac))
    for bit in range(8 * len(sealed)):
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DamagedError, AuthenticationError)) as caught:
            opened(bytes(sealed), *Kind, mac_key=mac)
        within_mac = mac is not None and bit >= 8 * (len(sealed) - HASH)
        assert isinstance(caught.value, AuthenticationError if within_mac else DamagedError)
        sealed[bit // 8] ^= 1 << bit % 8
    assert opened(bytes(sealed), *Kind, mac_key=mac) == envelope


@settings(max_examples=10)
@given(envelopes, mac_keys, st.binary(min_size=1, max_size=80))
def test_every_truncation_and_extension_is_found(envelope: Envelope, mac: bytes | None, more: bytes) -> None:
    sealed = envelope.sealed(mac)
    for kept in range(len(sealed)):
        with pytest.raises(DamagedError):
            opened(sealed[:kept], *Kind, mac_key=mac)
    with pytest.raises(DamagedError, match="followed by bytes"):
        opened(sealed + more, *Kind, mac_key=mac)
    with pytest.raises(DamagedError):
        opened(more + sealed, *Kind, mac_key=mac)


@given(st.binary(max_size=400))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        opened(data, *Kind)


def test_each_mismatch_has_an_error_of_its_own() -> None:
    sealed = Envelope(Kind.REQUEST, b"x", b"p" * 32, b"k" * 16, b"n" * 16).sealed()
    with pytest.raises(KindError, match="the file is a request; wanted is an answer or a public key"):
        opened(sealed, Kind.ANSWER, Kind.PUBLIC_KEY, what="the file")
    with pytest.raises(ParametersError, match="another network or to other parameters"):
        opened(sealed, Kind.REQUEST, profile=b"q" * 32)
    with pytest.raises(WrongKeyError, match="belongs to the key"):
        opened(sealed, Kind.REQUEST, key=b"l" * 16)
    with pytest.raises(WrongKeyError, match="another request"):
        opened(sealed, Kind.REQUEST, number=b"m" * 16)


def test_a_mac_is_asked_for_on_both_sides() -> None:
    bare, signed = Envelope(Kind.HELLO, b"").sealed(), Envelope(Kind.HELLO, b"").sealed(MAC)
    with pytest.raises(AuthenticationError, match="has no MAC"):
        opened(bare, Kind.HELLO, mac_key=MAC)
    with pytest.raises(AuthenticationError, match="no key to check it"):
        opened(signed, Kind.HELLO)
    with pytest.raises(AuthenticationError, match="wrong MAC"):
        opened(signed, Kind.HELLO, mac_key=bytes(32))


@pytest.mark.parametrize(("at", "value"), [(8, 2), (9, 0), (9, 11), (10, 2), (10, 3), (11, 1)])
def test_a_head_of_values_that_do_not_exist_is_refused_behind_a_right_hash(at: int, value: int) -> None:
    """They are for later versions, which mean something by them."""
    data = bytearray(Envelope(Kind.REQUEST, b"x").sealed()[:-HASH])
    data[at] = value
    data += hashlib.sha256(data).digest()
    with pytest.raises(DamagedError, match=r"its head has values that do not exist|is of version 2"):
        opened(bytes(data), *Kind)


@given(envelopes, envelopes)
def test_who_repairs_the_hash_still_has_no_mac(envelope: Envelope, other: Envelope) -> None:
    """The attack that SHA-256 cannot stop: another payload and its right hash, with the HMAC of what was there."""
    forged = bytearray(other.sealed(MAC)[: -2 * HASH])
    forged += hashlib.sha256(forged).digest()
    forged += envelope.sealed(MAC)[-HASH:]
    if envelope == other:
        assert opened(bytes(forged), other.kind, mac_key=MAC) == other
    else:
        with pytest.raises(AuthenticationError):
            opened(bytes(forged), *Kind, mac_key=MAC)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40])
def test_a_declared_length_allocates_nothing(length: int) -> None:
    head = bytearray(Envelope(Kind.REQUEST, b"").sealed()[: HEAD.size])
    head[12:20] = length.to_bytes(8, "big")
    tracemalloc.start()
    assert head_of(head).size == length + HEAD.size + HASH
    with pytest.raises(DamagedError, match="cut off"):
        opened(bytes(head) + bytes(100), Kind.REQUEST)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_work_is_proportional_to_the_bytes() -> None:
    def seconds(size: int) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            opened(Envelope(Kind.REQUEST, bytes(size)).sealed(MAC), Kind.REQUEST, mac_key=MAC)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(1 << 22) < 16 * max(seconds(1 << 20), 1e-3)


def test_errors_are_of_one_tree() -> None:
    for error in (DamagedError, KindError, ParametersError, WrongKeyError, AuthenticationError):
        assert issubclass(error, PrivateError)
