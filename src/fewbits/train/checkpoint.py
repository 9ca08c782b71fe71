"""The state of an unfinished compression, on disk, so that it can go on after an interruption."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from fewbits import files
from fewbits.errors import DataError

_FORMAT = 12


def save(path: Path, values: dict[str, Any]) -> None:
    """Write plain data and tensors (read back with torch's restricted loader), wholly or not at all.

    Raises:
        FileError: it cannot be written; an older checkpoint stays intact.
    """
    with files.uninterrupted(), files.writing_state(path) as stream:
        torch.save({"format": _FORMAT, **values}, stream)


def read(path: Path) -> dict[str, Any]:
    """The values that :func:`save` wrote, whomever they belong to.

    Raises:
        DataError: the file is damaged. FileError: it cannot be read.
    """
    payload = io.BytesIO(files.read_state(path))
    try:
        with files.uninterrupted():
            # What a GPU left can be gone on from without one.
            place = None if torch.cuda.is_available() else "cpu"
            values = torch.load(payload, weights_only=True, map_location=place)
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
        values = None
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise DataError(f"{path} is not a checkpoint of this version; delete it to start anew")
    return values


def load(path: Path, recipe: str, *, whole: bool = True) -> dict[str, Any] | None:
    """The values that :func:`save` wrote, or ``None`` when there is no file.

    Args:
        whole: whether ``recipe`` is all that the file has to be of; else its beginning, where base and network are not
            known yet.

    Raises:
        DataError: the file is damaged, or belongs to another recipe.
    """
    if not path.exists():
        return None
    values = read(path)
    if values["recipe"] != recipe and (whole or not values["recipe"].startswith(f"{recipe} ")):
        raise DataError(f"{path} belongs to another recipe, network or data; delete it to start anew")
    return values


def random_state() -> dict[str, Any]:
    """What the next random numbers depend on, here and on the GPU in use."""
    return {"cpu": torch.get_rng_state(), "gpu": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers that followed :func:`random_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["gpu"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["gpu"].cpu())


class Store:
    """What an interrupted run goes on from: values by key in one file, the main process's on every process.

    Every stage keeps what it needs under keys of its own, so that resuming is solved here and nowhere else.

    Args:
        path: the file; ``None`` keeps nothing on disk.
        owner: the words by which the run is known again, such as its recipe as JSON.

    Raises:
        DataError: the file is damaged, or belongs to another run or number of processes.
    """

    def __init__(self, path: Path | None, owner: str, accelerator: Accelerator) -> None:
        self.path, self.owner, self.accelerator = path, owner, accelerator
        found = [load(path, owner) if path is not None and accelerator.is_main_process else None]
        broadcast_object_list(found)  # other processes may not see its disk
        state, processes = found[0], accelerator.num_processes
        if state is not None and state["processes"] != processes:
            raise DataError(
                f"{path} was begun with {state['processes']} processes, now there are {processes}; "
                "use as many again, or delete it to start anew"
            )
        self._values: dict[str, Any] = {} if state is None else state["values"]

    def get(self, key: str) -> Any:
        """What was put under a key, or ``None``."""
        return self._values.get(key)

    def put(self, key: str, value: Any, *, drop: Iterable[str] = ()) -> None:
        """Keep plain data and tensors under a key, and let others go, in one write.

        Raises:
            FileError: it cannot be written; what was kept before stays intact.
        """
        for name in drop:
            self._values.pop(name, None)
        if self.path is None:
            return  # nobody asks again, and it would keep a whole training in memory
        self._values[key] = value
        if self.accelerator.is_main_process:
            known = {"recipe": self.owner, "processes": self.accelerator.num_processes}
            save(self.path, {**known, "values": self._values})

    def forget(self) -> None:
        """Remove the file: what it would lead to is safe elsewhere."""
        self._values = {}
        if self.path is not None and self.accelerator.is_main_process:
            self.path.unlink(missing_ok=True)


def digest_of(named: dict[str, Any]) -> str:
    """SHA-256 of names and numbers."""
    digest = hashlib.sha256()
    for key, tensor in named.items():
        if isinstance(tensor, Tensor):
            digest.update(key.encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
