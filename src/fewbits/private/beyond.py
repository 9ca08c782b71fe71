"""What networks would cost that are refused here: bootstrapping in CKKS, or look-ups in TFHE, by published times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log2, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewbits.task import run

BOOTSTRAPPED_SLOTS = 2**15
"""Of a ciphertext of degree 2^16, which bootstrapping takes at 128 bits of security."""


@dataclass(frozen=True)
class PublishedRun:
    """A network that was run on encrypted inputs. ``seconds`` of a sample; ``bootstraps`` that the rule here counts."""

    network: str
    seconds: float
    bootstraps: int
    where: str


PUBLISHED_RUNS = (
    PublishedRun("ResNet-20", 300.0, 19, "LowMemoryFHEResNet20, OpenFHE, M1 Pro; its README says less than 5 minutes"),
    PublishedRun("ResNet-20", 403.0, 19, "FHEON (arXiv 2510.03996), OpenFHE, a consumer's CPU"),
    PublishedRun("ResNet-20", 1145.0, 19, "arXiv 2508.11575, OpenFHE, ReLU by polynomials"),
)
"""Of networks that need bootstrapping, on CPUs."""
LOOK_UP_SECONDS = 0.047, 0.061
"""Of a thread, for one look-up of TFHE: 184 of them took 8.6 to 11.2 s in Concrete-ML 1.9.0 (an MLP of 4 bits)."""


@dataclass(frozen=True)
class BeyondPrice:
    """Of one sample, from the fastest to the slowest published run.

    Attributes:
        activations: non-linear functions that follow each other. numbers: that they are computed of, together.
        bootstraps: ciphertexts that go through one, together. ckks_seconds: these times a published run's seconds over
            its bootstraps, linear layers included.
        tfhe_seconds: look-ups, one for each number, on one thread.
    """

    activations: int
    numbers: int
    bootstraps: int
    ckks_seconds: tuple[float, float]
    tfhe_seconds: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def beyond(model: nn.Module, samples: Any) -> BeyondPrice:
    """What a network would cost with bootstrapping after each non-linear function, and with look-ups in place of them.

    A maximum of n numbers counts as log2(n) functions of its outputs, one after the other.

    Args:
        model: it is run once, on the first of the samples [n, ...], and not changed.
    """
    seen: list[tuple[int, int]] = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _Watch(seen):
            run(model, samples[:1])
    finally:
        model.train(training)
    bootstraps = sum(depth * ceil(numbers / BOOTSTRAPPED_SLOTS) for depth, numbers in seen)
    looked = sum(depth * numbers for depth, numbers in seen)
    each = [published.seconds / published.bootstraps for published in PUBLISHED_RUNS]
    return BeyondPrice(
        activations=sum(depth for depth, _ in seen),
        numbers=looked,
        bootstraps=bootstraps,
        ckks_seconds=(bootstraps * min(each), bootstraps * max(each)),
        tfhe_seconds=(looked * LOOK_UP_SECONDS[0], looked * LOOK_UP_SECONDS[1]),
    )


_POINTWISE = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "celu", "gelu",
    "silu", "mish", "softplus", "hardswish", "hardsigmoid", "hardtanh", "hardtanh_", "sigmoid", "sigmoid_", "tanh",
    "tanh_", "exp", "softmax", "log_softmax", "clamp", "clamp_", "abs",
)  # fmt: skip
_POOLING = ("max_pool1d", "max_pool2d", "max_pool3d", "_max_pool1d", "_max_pool2d", "_max_pool3d")
_ADAPTIVE = ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")


class _Watch(TorchFunctionMode):
    """Notes each non-linear function: how many follow each other for it, and of how many numbers."""

    def __init__(self, seen: list[tuple[int, int]]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        output = found[0] if isinstance(found, tuple) else found
        if isinstance(output, Tensor):
            if name in _POINTWISE:
                self.seen.append((1, output.numel()))
            elif name in _POOLING:
                size = (kwargs or {}).get("kernel_size", args[1] if len(args) > 1 else 1)
                window = prod(size) if isinstance(size, tuple | list) else size ** (output.dim() - 2)
                self.seen.append((max(1, ceil(log2(max(2, window)))), output.numel()))
            elif name in _ADAPTIVE:
                self.seen.append((max(1, ceil(log2(max(2, args[0].numel() / output.numel())))), output.numel()))
        return found
