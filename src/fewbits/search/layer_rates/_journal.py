"""Answers on disk, one a line, so that an interrupted search goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

from fewbits.errors import DataError, FileError
from fewbits.search.layer_rates._space import Kept

_SCHEMA = 1


class Journal:
    """A file that only grows: a line that says what it is of, then ``[accuracy, kept, kept, ...]`` per answer.

    A search asks the same questions again when it is started anew with the same seed; the answers that are here cost
    no run of the network. A last line that was cut off by the interruption is left out.

    Raises:
        DataError: the file is of another network, data or precision, or damaged. FileError: it cannot be used.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.known: dict[Kept, float] = {}
        head = json.dumps({"journal": _SCHEMA, "of": fingerprint})
        try:
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
            whole = lines[:-1]  # what stands behind the last newline was cut off
            if not whole:
                path.write_text(head + "\n", encoding="utf-8")
                return
            if whole[0] != head:
                raise DataError(
                    f"{path} holds the answers of another network, other data or another precision; delete it"
                )
            for line in whole[1:]:
                accuracy, *kept = json.loads(line)
                self.known[tuple(kept)] = float(accuracy)
            if lines[-1]:
                path.write_text("\n".join(whole) + "\n", encoding="utf-8")
        except OSError as error:
            if isinstance(error, DataError):
                raise
            raise FileError(f"cannot use the journal {path}: {error.strerror}") from error
        except (ValueError, TypeError):
            raise DataError(f"the journal {path} is damaged; delete it to start anew") from None

    def note(self, kept: Kept, accuracy: float) -> None:
        """Add an answer.

        Raises:
            FileError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([accuracy, *kept]) + "\n")
        except OSError as error:
            raise FileError(f"cannot write the journal {self.path}: {error.strerror}") from error
