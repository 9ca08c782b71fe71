"""What quantizing costs before any training: squared error of trained weights, at equal entropy or equal bytes."""

import math
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.unit import Place, Row, Unit
from fewbits import codec
from fewbits.assign import ecq
from fewbits.pipeline.rate_control.controllers import solve
from fewbits.report.sizes import entropy

MOST = 2_000_000  # weights: of a larger network, every k-th filter has the same statistics


def measure(unit: Unit, place: Place) -> list[Row]:
    """With ``grids`` and ``rates`` a row for each pair; else one per lambda: the coder's code length as rate term."""
    tensors = load_file(place.weights / f"{unit.options['file']}.safetensors")
    weights = {key: t.float() for key, t in tensors.items() if t.dim() >= 2}
    if "grids" not in unit.options:
        return [unit.labels | row for row in at_equal_error(weights)]
    every = math.ceil(sum(w.numel() for w in weights.values()) / MOST)
    weights = {key: w[::every] for key, w in weights.items()}
    head = unit.labels | {"weights": sum(w.numel() for w in weights.values())}
    return [
        head | {"bits_per_weight": rate, "grid": grid, "error": error_at(weights, rate, chosen)}
        for rate in unit.options["rates"]
        for grid, chosen in unit.options["grids"].items()
    ]


def error_at(weights: dict[str, Tensor], rate: float, options: dict[str, Any]) -> float | None:
    """The error where lambda makes the entropy ``rate``; ``None`` where no lambda does."""
    lam = solve(lambda lam: point(weights, lam, options)[0], rate, 0.1, tolerance=0.002)
    bits, error = point(weights, lam, options)
    return error if bits > 0.98 * rate else None


def point(weights: dict[str, Tensor], lam: float, options: dict[str, Any]) -> tuple[float, float]:
    """First-order entropy, bits a weight; squared error relative to each layer's mean square, mean over weights."""
    assigner = ecq(lam=lam, zero_floor=0.5, **options)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    total = sum(w.numel() for w in weights.values())
    bits = error = 0.0
    for name, entry in plan.clustered.items():
        weight = weights[name]
        bits += entropy(entry.levels) * weight.numel() / total
        error += float((entry.values() - weight).square().sum() / weight.square().mean()) / total
    return bits, error


def at_equal_error(weights: dict[str, Tensor]) -> list[Row]:
    """Bytes with ``rate: coder`` over bytes with ``rate: entropy`` at the same mean relative squared error of layers.

    The entropy curve is interpolated in logarithms between its two nearest lambdas.
    """

    def at(rate: str, lam: float) -> tuple[float, int]:
        assigner = ecq(lam=lam, rate=rate, refresh=1, zero_floor=0.5)
        state = assigner.init(weights)
        for _ in range(4 if rate == "coder" else 1):  # until the levels and what the coder says of them agree
            plan, state = assigner.update(weights, None, state)
        parts = [(e.values() - weights[n], weights[n]) for n, e in plan.clustered.items()]
        error = sum(float(wrong.square().sum() / right.square().sum()) for wrong, right in parts) / len(parts)
        return error, len(codec.encode(plan))

    curve = sorted(at("entropy", float(lam)) for lam in np.geomspace(0.005, 8, 24))
    errors, sizes = (np.log(np.array(values)) for values in zip(*curve, strict=True))
    found = [(lam, *at("coder", lam)) for lam in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)]
    ratios = [size / float(np.exp(np.interp(np.log(error), errors, sizes))) for _, error, size in found]
    return [{"lam": f[0], "error": f[1], "bytes": f[2], "bytes_ratio": r} for f, r in zip(found, ratios, strict=True)]
