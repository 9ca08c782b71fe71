"""The exact global threshold and its masks, against ``torch.nn.utils.prune.global_unstructured`` in one run."""

import time

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from benchmarks.process import forget_peak, resident
from benchmarks.unit import Place, Row, Unit
from fewbits.assign.selection import chosen, smallest


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row. Threshold: finding it; masks: one bool per weight. Peak bytes are over what the process had before."""
    numbers = int(unit.options["weights"])
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(numbers // 10, generator=generator).mul_(0.02) for _ in range(10)]
    held = 4 * sum(w.numel() for w in weights)
    count = round(0.9 * numbers)
    smallest([torch.ones(1 << 21)], 5)  # what torch loads and keeps at its first use is no part of the measurement
    before, begin = forget_peak(), time.perf_counter()
    cuts = smallest(weights, count)
    threshold_seconds, threshold_peak = time.perf_counter() - begin, resident() - before
    begin = time.perf_counter()
    masks, zeros = [], 0
    for weight, cut in zip(weights, cuts, strict=True):
        mask = chosen(weight, cut)
        zeros += int(mask.sum())
        masks += [mask] if numbers <= 1e8 else []
    seconds = threshold_seconds + time.perf_counter() - begin
    row = unit.labels | {
        "model": "normal random numbers", "method": "radix", "weights": numbers, "sparsity": 100 * zeros / numbers,
        "zeros": zeros, "asked_zeros": count, "threshold": cuts[0].threshold, "seconds": seconds,
        "threshold_seconds": threshold_seconds, "peak_bytes": threshold_peak, "peak_share": threshold_peak / held,
        "weights_bytes": held, "threads": torch.get_num_threads(),
    }  # fmt: skip
    if numbers > 1e8:
        return [row]
    layers = [nn.Linear(1, 1, bias=False) for _ in weights]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(weight.view(1000, -1))
    before, begin = forget_peak(), time.perf_counter()
    torch_prune.global_unstructured([(m, "weight") for m in layers], torch_prune.L1Unstructured, amount=count)
    theirs = time.perf_counter() - begin
    pairs = zip(layers, masks, strict=True)
    row |= {"same_mask": all(torch.equal(m.weight_mask.reshape(-1).bool(), ~mask) for m, mask in pairs)}
    row |= {"versus": "torch.nn.utils.prune.global_unstructured", "versus_seconds": theirs}
    return [row | {"versus_peak_bytes": resident() - before, "speedup": theirs / seconds}]
