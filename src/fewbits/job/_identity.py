"""By what a network and data of one's own are known again: their names say nothing about what they hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewbits.errors import DataError
from fewbits.job._own_data import OwnData
from fewbits.task.batches import tensors_in
from fewbits.train.checkpoint import digest_of


def given(network: nn.Module, data: Any, *, trained: bool) -> str:
    """What an unfinished run must find again, as JSON.

    Of a network that is trained here only names and shapes count; of one that is given, every number. Of data of one's
    own the numbers of batches and samples count, and the first validation batch, if it is the same each time.
    """
    words = {"network": digest_of(network.state_dict()) if trained else _shapes(network)}
    if isinstance(data, OwnData):
        feed = data.feed(network)
        first = [_digest(list(tensors_in(tuple(feed(data.first("validation")))))) for _ in range(2)]
        lengths = [_length(part) for part in (data.train, data.validation, data.test)]
        words["data"] = f"{lengths} {first[0] if first[0] == first[1] else ''}".strip()
    return json.dumps(words)


def check(found: str, wanted: str, folder: Path, names: dict[str, str]) -> None:
    """Raise DataError unless a job's network and data are those that it was begun with.

    Args:
        folder: of the job. names: of the network and the data, by section.
    """
    before, now = json.loads(found), json.loads(wanted)
    for section in ("network", "data"):
        if before.get(section) != now.get(section):
            raise DataError(
                f"the job in {folder} was begun with another {section} than {names[section]} gives now: make it as it "
                f"was, give another --out, or delete what is in {folder} to start anew"
            )


def _digest(found: list[Tensor]) -> str:
    return digest_of({f"{n} {t.dtype} {list(t.shape)}": t for n, t in enumerate(found)})


def _shapes(network: nn.Module) -> str:
    state = network.state_dict()
    words = [f"{name} {t.dtype} {list(t.shape)}" for name, t in state.items() if isinstance(t, Tensor)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _length(part: Any) -> list[int | None]:
    """Batches, and samples where they are known."""
    found: list[int | None] = []
    for counted in (part, getattr(part, "dataset", None)):
        try:
            found.append(len(counted))  # type: ignore[arg-type]
        except TypeError:
            found.append(None)
    return found
