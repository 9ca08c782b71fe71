"""Where trials are kept: a journal beside the results, a database, or a gRPC proxy before one."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from fewbits.errors import DataError, MissingExtraError, RecipeError

JOURNAL = "sweep.journal"
GRACE = 30  # seconds after which the lock of a journal counts as left behind by a process that died


def optuna() -> Any:
    """Optuna, quiet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("optuna", "search", "a sweep") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def opened(address: str | None, out: Path) -> Any:
    """The storage behind an address.

    Args:
        address: ``None``: a journal in ``out``; a path: a journal there; ``grpc://host:port``: a proxy (Optuna's
            ``run_grpc_proxy_server``); anything else with ``://``: a database URL, as SQLAlchemy writes them.

    Raises:
        RecipeError: no such kind of address. DataError: it cannot be reached or read.
        MissingExtraError: Optuna, or for a proxy grpcio, is not installed.
    """
    library = optuna()
    if address is None or "://" not in address:
        return _journal(library, Path(address) if address else out / JOURNAL)
    proxy = re.fullmatch(r"grpc://([^:/]+):(\d+)/?", address)
    if address.startswith("grpc://"):
        if proxy is None:
            raise RecipeError(f"a gRPC proxy is written grpc://host:port, got {address!r}")
        return _proxy(library, proxy[1], int(proxy[2]))
    try:
        return library.storages.get_storage(address)
    except ImportError as error:
        raise DataError(f"the storage {_shown(address)} needs a driver: pip install {error.name}") from None
    except Exception as error:  # SQLAlchemy's own tree, and each driver's
        raise DataError(f"the storage {_shown(address)} cannot be opened: {_first_line(error)}") from error


def _journal(library: Any, path: Path) -> Any:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # Not Optuna's default lock, a symbolic link: of one left behind beside a relative path it finds no age and waits
    # for ever, and so it would where machines see a shared folder at different places.
    lock = JournalFileOpenLock(str(path), GRACE)
    left = path.with_name(f"{path.name}.lock")
    try:
        if left.is_symlink():  # by an earlier version
            left.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend(path, lock)
        return library.storages.JournalStorage(JournalFileBackend(str(path), lock))
    except OSError as error:
        raise DataError(f"the journal {path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not a journal of a sweep, or damaged: {_first_line(error)}") from error


def _mend(path: Path, lock: Any) -> None:
    """Cut off a last line that a full disk or a power cut left unfinished: Optuna would read nothing behind it."""
    if not path.exists() or path.read_bytes()[-1:] in (b"", b"\n"):
        return
    lock.acquire()
    try:
        text = path.read_bytes()  # again, now that nobody writes
        if not text.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(text.rfind(b"\n") + 1)
    finally:
        lock.release()


def _proxy(library: Any, host: str, port: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
            storage = library.storages.GrpcStorageProxy(host=host, port=port)
        storage.wait_server_ready(timeout=10)
    except ImportError:
        raise MissingExtraError("grpcio", "grpc", "a gRPC proxy as storage") from None
    except ConnectionError as error:
        raise DataError(f"no gRPC proxy answers at {host}:{port}") from error
    return storage


def _shown(address: str) -> str:
    """An address without its password."""
    return re.sub(r"://([^:/@]+):[^@]*@", r"://\1:...@", address)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
