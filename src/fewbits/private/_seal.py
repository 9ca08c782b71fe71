"""SEAL's bindings, imported when something is encrypted, and not before."""

from __future__ import annotations

from typing import Any

from fewbits.errors import MissingExtraError


def seal() -> Any:
    """The module ``tenseal.sealapi``.

    Raises:
        MissingExtraError: tenseal is not installed.
    """
    try:
        import tenseal.sealapi as sealapi
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != "tenseal":
            raise  # installed, but broken
        raise MissingExtraError("tenseal", "private", "encrypted inference") from error
    return sealapi
