"""Keys that a server keeps: so many, so large, and the last used ones."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fewbits.private.key_store import KeyStore, key_store
from fewbits.private.limits import Limits

A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def test_the_keys_that_were_not_used_for_longest_go(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, Limits(keys=2))
    store.put(A, b"a")
    store.put(B, b"b")
    store.used(A)
    store.used(C)  # nobody's
    store.put(C, b"c")
    assert (store.get(A), store.get(B), store.get(C)) == (b"a", None, b"c")
    store.put(A, b"more")
    assert (store.get(A), store.get(C)) == (b"more", b"c")
    assert len(list(tmp_path.iterdir())) == 2


def test_all_together_have_a_size(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, Limits(key_bytes=10))
    for key in (A, B, C):
        store.put(key, bytes(4))
    assert [store.get(key) is not None for key in (A, B, C)] == [False, True, True]
    store.put(A, bytes(11))  # larger than all that is allowed
    assert list(tmp_path.iterdir()) == []


def test_what_comes_in_is_nobodys_until_it_is_taken(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, Limits())
    handle, path = store.incoming()
    with open(handle, "wb") as file:
        file.write(b"keys")
    assert store.get(A) is None
    store.take(A, path)
    assert store.get(A) == b"keys"
    assert not path.exists()


def test_the_folder_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = tmp_path / "fewbits-keys-new"  # of a server that begins this moment
    other.mkdir()
    with key_store(Limits()) as store:
        store.put(A, b"a")
        (folder,) = set(tmp_path.iterdir()) - {other}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == [other]
