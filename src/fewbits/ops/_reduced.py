"""Numbers as a power of two times a rest, of which the function is approximated on one short interval.

``exp x = 2**n 2**f`` with ``n + f = x log2 e``; ``log``, ``1 / x`` and ``1 / sqrt x`` of ``m 2**e`` are those of ``m``,
moved or multiplied by what ``e`` says. Softmax in base two is Softermax (Stevens et al. 2021).
"""

from __future__ import annotations

import math
from dataclasses import replace

from fewbits.approximation import Approximation

SUMS = 4e-6
"""Relative, of sums of up to a million float32 numbers as torch and ONNX Runtime add them, and of a quotient."""
ARGUMENT = 126 * 2.0**-24 * 1.5
"""Relative, of ``2**z`` with a z of at most 126 that was rounded to float32."""


def inherited(found: Approximation) -> Approximation:
    """The approximation of an operation, with the bound that follows from the one of its core."""
    core, name = found.bound, found.operation
    tiny = 2.0**-22
    if name == "exp":  # the core is at least 1
        return replace(found, bound=core * (1 + ARGUMENT) + ARGUMENT + tiny, relative=True, outside=math.inf)
    if name == "log":  # e ln 2, rounded, is at most 88
        return replace(found, bound=core + 89 * 2.0**-23, outside=math.inf)
    if name in ("reciprocal", "rsqrt"):  # the core is at least 1/2
        return replace(found, bound=2 * core + tiny, relative=True, outside=math.inf)
    if name == "softmax":
        # With factors within 1 +- r, p becomes p (1 + d) / sum p (1 + d), which moves it by at most
        # 2 p (1 - p) r / (1 - r), and p (1 - p) <= 1/4. A factor of x < 126 / log2 e off by ARGUMENT x / 126 moves
        # exp(-x) by at most a 126 e-th of it.
        share = core + SUMS
        whole = share / (2 * (1 - share)) if share < 1 else math.inf
        return replace(found, bound=whole + SUMS, outside=whole + SUMS)
    share = 2 * core + tiny  # of 1 / sqrt of the mean square; the sums are torch's own
    return replace(found, bound=share + SUMS, relative=True, outside=share + SUMS)
