"""Published points of the accuracy-over-bytes plane, for drawing beside our own: never measured here.

ECQx and ECQ: Becking et al., arXiv 2109.04236v2, table 1 (single runs, sizes of the coded weights with DeepCABAC,
1 KB = 1000 bytes). Keywords: the paper's features come from augmented recordings and its float network has 88.24 %;
the features used here have no augmentation, so only ratios and losses compare, not accuracies. CIFAR-10, VGG16: float
network 90.72 %. EPR (arXiv 1906.06624) is from the tutorial of its authors, LilNetX (arXiv 2204.02965) as
others quote it, not checked against the paper itself; both have a float network of 93.4 % and about 60 MB.
"""

from __future__ import annotations

from typing import Any

MLP_FLOAT, VGG_FLOAT = 2_567_216, 59_929_896


def _points(
    model: str, data: str, method: str, source: str, baseline: float, size: int, rows: list[tuple[float, float]]
) -> list[dict[str, Any]]:
    """Rows of ``(kilobytes, accuracy in percent)``."""
    return [
        {
            "model": model,
            "data": data,
            "method": f"{method}, float {baseline:g} %",
            "target": f"{kilobytes:g} KB",
            "seed": None,
            "split": "test",
            "accuracy": accuracy,
            "baseline_accuracy": baseline,
            "bytes": round(1000 * kilobytes),
            "float_bytes": size,
            "ratio": size / (1000 * kilobytes),
            "source": source,
        }
        for kilobytes, accuracy in rows
    ]


_ECQX = "arXiv 2109.04236v2, table 1"
_VGG = [
    *_points(
        "vgg16", "cifar10", "ECQx paper", _ECQX, 90.72, VGG_FLOAT,
        [(4446.39, 92.27), (1394.52, 90.42), (933.99, 90.86), (584.16, 90.62)],
    ),
    *_points(
        "vgg16", "cifar10", "ECQ paper", _ECQX, 90.72, VGG_FLOAT,
        [(4658.01, 92.09), (1486.76, 90.19), (1246.27, 91.03), (585.40, 89.49)],
    ),
]  # fmt: skip

_FRONTIER = [
    *[row | {"model": "vgg16-bn"} for row in _VGG],
    *_points(
        "vgg16-bn", "cifar10", "LilNetX paper", "arXiv 2204.02965", 93.4, 60_000_000,
        [(129, 92.6), (76, 90.0)],
    ),
    *_points("vgg16-bn", "cifar10", "EPR paper", "arXiv 1906.06624", 93.4, 60_000_000, [(101, 90.0)]),
]  # fmt: skip

PUBLISHED: dict[str, list[dict[str, Any]]] = {
    "mlp-gsc": [
        *_points(
            "mlp-gsc", "speech-commands", "ECQx paper", _ECQX, 88.24, MLP_FLOAT,
            [(128.03, 88.95), (92.46, 88.34), (87.52, 87.89), (68.77, 87.46)],
        ),
        *_points(
            "mlp-gsc", "speech-commands", "ECQ paper", _ECQX, 88.24, MLP_FLOAT,
            [(139.96, 88.71), (98.32, 88.32), (78.54, 87.72), (69.67, 86.84)],
        ),
    ],
    "vgg16": _VGG,
    "vgg16-folded": _VGG,
    "vgg16-bn": _FRONTIER,
    "vgg16-frontier": _FRONTIER,
}  # fmt: skip

# Structured pruning of ResNet-56: as the README of Torch-Pruning (MIT) lists it, not checked against each paper.
CHANNELS: list[dict[str, Any]] = [
    {
        "model": "resnet-56",
        "data": "cifar10",
        "method": method,
        "seed": None,
        "split": "test",
        "accuracy": accuracy,
        "baseline_accuracy": baseline,
        "fewer_macs": fewer,
        "source": "as quoted in the README of Torch-Pruning",
    }
    for method, baseline, accuracy, fewer in (
        ("DepGraph", 93.53, 93.77, 2.13),
        ("DepGraph without sparse learning", 93.53, 93.46, 2.13),
        ("DepGraph", 93.53, 93.64, 2.57),
        ("DepGraph without sparse learning", 93.53, 93.36, 2.57),
    )
]
