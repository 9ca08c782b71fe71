"""Numbers as people write them in recipes: sizes, times, energies, shares, N:M patterns. Needs no torch."""

from __future__ import annotations

import re

from fewbits.errors import RecipeError

_UNITS = {"b": 1, "byte": 1, "bytes": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")
MOST = 2**60  # bytes
_UNITS |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3}


def parse_size(text: str | int) -> int:
    """Bytes from ``"200 KB"`` (1 KB = 1000 bytes; 1 KiB = 1024), ``"1.5MB"`` or a plain number of bytes.

    Raises:
        RecipeError: not a size, or not positive.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", str(text))
    unit = _UNITS.get((found[2] or "b").lower()) if found else None
    if found is None or unit is None:
        raise RecipeError(f"{text!r} is not a size; write for example '200 KB', '1.5 MB' or 4096 (bytes)")
    size = int(float(found[1]) * unit)
    if size <= 0:
        raise RecipeError(f"a size must be positive, got {text!r}")
    if size >= MOST:
        raise RecipeError(f"no file is as large as {text!r}")
    return size


_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*([mnuµμ]?)([sJ])\s*")


def parse_seconds(text: str) -> float:
    """Seconds from ``"2 ms"``, ``"350 us"`` or ``"0.1 s"``.

    Raises:
        RecipeError: not a time with its unit, or not positive.
    """
    return _quantity(text, "s", "a time", "'2 ms', '350 us' or '0.1 s'")


def parse_joules(text: str) -> float:
    """Joules from ``"0.5 mJ"`` or ``"20 uJ"``.

    Raises:
        RecipeError: not an energy with its unit, or not positive.
    """
    return _quantity(text, "J", "an energy", "'0.5 mJ' or '20 uJ'")


def _quantity(text: str, unit: str, what: str, examples: str) -> float:
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[3] != unit:
        raise RecipeError(f"{text!r} is not {what} with its unit; write for example {examples}")
    value = float(found[1]) * _PREFIXES[found[2]]
    if not 0 < value < 1e9:
        raise RecipeError(f"{what} must be positive, and of this world, got {text!r}")
    return value


def parse_pattern(text: str) -> tuple[int, int]:
    """``(N, M)`` of ``"2:4"``.

    Raises:
        RecipeError: anything else, or not ``1 <= N <= M``.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    n, m = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= n <= m:
        raise RecipeError(f"an N:M pattern is written like '2:4', with 1 <= N <= M; got {text!r}")
    return n, m


def share_of(share: float | str) -> float:
    """A share of a layer's weights: a number from 0 to 1, or percent (``"0.5%"``).

    Raises:
        RecipeError: neither.
    """
    found = _PERCENT.fullmatch(share) if isinstance(share, str) else None
    value = float(found[1]) / 100 if found else share
    if isinstance(value, bool | str) or not isinstance(value, float | int) or not 0 <= value <= 1:
        raise RecipeError(f"min_kept is a share of each layer's weights, 0 to 1 or percent like '0.5%', got {share!r}")
    return float(value)


def min_kept_of(min_kept: int | str, weights: int) -> int:
    """The minimum threshold sigma as a number of weights: an int, or percent of all ``weights`` (``"0.02%"``).

    Raises:
        RecipeError: neither, negative, or more than 100 %.
    """
    if isinstance(min_kept, str):
        found = _PERCENT.fullmatch(min_kept)
        if not found:
            raise RecipeError(f"min_kept is a number of weights or percent like '0.02%', got {min_kept!r}")
        if float(found[1]) > 100:
            raise RecipeError(f"min_kept is a share of all weights, so at most 100 %, got {min_kept!r}")
        return int(weights * float(found[1]) / 100)
    if isinstance(min_kept, bool) or not isinstance(min_kept, int):
        raise RecipeError(f"min_kept is a number of weights or percent like '0.02%', got {min_kept!r}")
    if min_kept < 0:
        raise RecipeError(f"min_kept must not be negative, got {min_kept}")
    return min_kept
