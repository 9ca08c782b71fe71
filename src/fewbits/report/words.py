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


def accuracy(value: float | None, metric: str = "percent") -> str:
    """``97.78 %``, or ``not evaluated``; losses and scores in four significant digits."""
    if value is None:
        return "not evaluated"
    return f"{value:.4g}" if metric in OWN_UNIT else f"{value:.2f} %"


OWN_UNIT = ("loss", "score")
"""Metrics that are no percent."""


def measure_word(metric: str) -> str:
    """What a metric is called: ``accuracy``, ``loss`` or ``score``."""
    return metric if metric in OWN_UNIT else "accuracy"


def quality(value: float | None, metric: str) -> str:
    """The same with its name, unless it is an accuracy: ``97.78 %``, ``loss 0.0213``."""
    words = accuracy(value, metric)
    return f"{metric} {words}" if metric in OWN_UNIT and value is not None else words


def lost(drop: float, metric: str = "percent") -> str:
    """``0.19 points lost``; of a loss ``0.0021 more``."""
    if metric == "loss":
        return f"{abs(drop):.4g} {'more' if drop >= 0 else 'less'}"
    amount = f"{abs(drop):.4g}" if metric == "score" else f"{abs(drop):.2f} points"
    return f"{amount} {'lost' if drop >= 0 else 'gained'}"


def allowed(drop: float, metric: str = "percent") -> str:
    """A budget of quality in words."""
    if metric == "loss":
        return f"a loss at most {drop:g} higher"
    return f"at most {drop:g} {'of the score' if metric == 'score' else 'points of accuracy'} lost"


def duration(seconds: float) -> str:
    """``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def si(value: float, unit: str) -> str:
    """``2.3 ms`` or ``450 KB`` of 0.0023 s or 450,000 B: three digits, with the prefix that fits."""
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
    if value == 0:
        return f"0 {unit}"
    scale, prefix = next((pair for pair in prefixes if value >= 0.9995 * pair[0]), prefixes[-1])
    return f"{value / scale:.3g} {prefix}{unit}"


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
