"""What steps that follow the rate save before any training: squared error at equal entropy, on trained networks.

Relative squared error, mean over the weights of a network (each layer's against its own mean square), where lambda
makes the first-order entropy of its levels the given bits a weight; no training, no entropy coder.

    python benchmarks/steps.py --weights FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fewbits.assign import ecq
from fewbits.pipeline.rate_control.controllers import solve
from fewbits.report import provenance
from fewbits.report.sizes import entropy

NETWORKS = {
    "resnet-20": "cifar10_resnet20", "resnet-56": "cifar10_resnet56", "vgg16-bn": "cifar10_vgg16bn_fp16",
    "ds-cnn-l": "kws_ds_cnn_l",
}  # fmt: skip
GRIDS = {
    f"{step}, {bits} bit": {"bits": bits, "step": step}
    for step, some in (("range", (2, 3, 4, 5)), ("rate", (3, 4))) for bits in some
}  # fmt: skip
RATES = (2.0, 1.3, 0.9, 0.6, 0.3)
MOST = 2_000_000  # weights: of a larger network, every k-th filter has the same statistics
RESULT = Path(__file__).parent.parent / "results" / "steps.json"


def point(weights: dict[str, Tensor], lam: float, options: dict[str, Any]) -> tuple[float, float]:
    """Bits a weight, and relative squared error."""
    assigner = ecq(lam=lam, zero_floor=0.5, **options)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    total = sum(w.numel() for w in weights.values())
    bits = error = 0.0
    for name, entry in plan.clustered.items():
        weight = weights[name]
        bits += entropy(entry.levels) * weight.numel() / total
        error += float((entry.values() - weight).square().sum() / weight.square().mean()) / total
    return bits, error


def error_at(weights: dict[str, Tensor], rate: float, options: dict[str, Any]) -> float | None:
    """The error where lambda makes the entropy ``rate``; ``None`` where no lambda does."""
    lam = solve(lambda lam: point(weights, lam, options)[0], rate, 0.1, tolerance=0.002)
    bits, error = point(weights, lam, options)
    return error if bits > 0.98 * rate else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with trained weights")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for name, file in NETWORKS.items():
        tensors = load_file(options.weights / f"{file}.safetensors")
        weights = {key: t.float() for key, t in tensors.items() if t.dim() >= 2}
        every = math.ceil(sum(w.numel() for w in weights.values()) / MOST)
        weights = {key: w[::every] for key, w in weights.items()}
        count = sum(w.numel() for w in weights.values())
        for rate in RATES:
            for grid, chosen in GRIDS.items():
                row = {"model": name, "weights": count, "bits_per_weight": rate, "grid": grid}
                rows.append(row | {"error": error_at(weights, rate, chosen)})
                print(json.dumps(rows[-1]), flush=True)
    head = provenance("steps", "python benchmarks/steps.py --weights FOLDER")
    options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
