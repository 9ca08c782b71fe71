"""Figures and names in words, as every view of a report says them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def human(size: float) -> str:
    """``12.3 KB``: decimal units, three or four significant digits."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(3, int(math.log10(size) // 3))
    return f"{size / 1000**power:.4g} {('B', 'KB', 'MB', 'GB')[power]}"


def size(count: int) -> str:
    """``12.3 KB (12,345 bytes)``."""
    return f"{human(count)} ({count:,} bytes)"


def percent(share: float) -> str:
    """``97.3`` for 0.973. Never rounds to 0.0 or 100.0 what is neither."""
    if 0 < share < 0.0005:
        return "<0.1"
    if 0.9995 <= share < 1:
        return ">99.9"
    return f"{100 * share:.1f}"


def times(ratio: float) -> str:
    """``45.9x``, three significant digits below 100."""
    digits = 2 if ratio < 10 else 1 if ratio < 100 else 0
    return f"{ratio:,.{digits}f}x"


def accuracy(value: float | None) -> str:
    """``97.78 %``, or ``not evaluated``."""
    return "not evaluated" if value is None else f"{value:.2f} %"


def duration(seconds: float) -> str:
    """``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def shorten(name: str, width: int, tail: int | None = None) -> str:
    """A name of at most ``width`` characters: its middle gives way, its start and last ``tail`` stay.

    Control characters, which could rewrite a terminal, become ``?``.
    """
    name = "".join(c if c.isprintable() else "?" for c in name)
    if len(name) <= width:
        return name
    tail = (width - 2) // 2 if tail is None else tail
    return f"{name[: width - 3 - tail]}...{name[len(name) - tail :]}"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Names of at most ``width`` characters, cut where they stay different from each other, if anywhere."""
    middle = (width - 2) // 2
    for tail in sorted(range(1, width - 3), key=lambda tail: abs(tail - middle)):
        short = [shorten(name, width, tail) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return [shorten(name, width) for name in names]
