"""Evaluation keys that clients have sent, one file for each: they are large, and every worker may need them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from fewbits import files
from fewbits.errors import FileError
from fewbits.private.limits import Limits

_PREFIX = "fewbits-keys-"
_SETTLED = 10.0  # seconds after which a folder without a lock is nobody's


class KeyStore:
    """Files by key id; the ones that were not used for longest go first."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._kept: OrderedDict[bytes, int] = OrderedDict()  # bytes by key id, the last used one at the end

    def put(self, key: bytes, data: bytes) -> None:
        """Keep keys, in their envelope."""
        self._path(key).write_bytes(data)
        self._keep(key)

    def incoming(self) -> tuple[int, Path]:
        """A new file for keys that are not checked yet: its handle, and its path."""
        handle, name = tempfile.mkstemp(dir=self._folder, prefix="incoming-")
        return handle, Path(name)

    def take(self, key: bytes, file: Path) -> None:
        """Keep what came in, now that it was checked."""
        os.replace(file, self._path(key))
        self._keep(key)

    def used(self, key: bytes) -> None:
        """Remember that somebody uses these keys, if they are there."""
        if key in self._kept:
            self._kept.move_to_end(key)

    def get(self, key: bytes) -> bytes | None:
        """Keys in their envelope. Works in forked workers, too, for what came after the fork."""
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def _path(self, key: bytes) -> Path:
        return self._folder / key.hex()

    def _keep(self, key: bytes) -> None:
        self._kept[key] = self._path(key).stat().st_size
        self._kept.move_to_end(key)
        while len(self._kept) > self._limits.keys or sum(self._kept.values()) > self._limits.key_bytes:
            gone, _ = self._kept.popitem(last=False)
            self._path(gone).unlink(missing_ok=True)


@contextlib.contextmanager
def key_store(limits: Limits) -> Iterator[KeyStore]:
    """A store in a temporary folder that only this user can open. What servers left that were killed is removed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, FileError):  # another's, or in use
            if time.time() - old.stat().st_mtime > _SETTLED:
                with files.locked(old, "removing what a server left"):
                    shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, files.locked(Path(folder), "serving"):
        yield KeyStore(Path(folder), limits)
