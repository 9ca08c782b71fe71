"""The comparison with general-purpose compressors: what is compressed, and at which level."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
import zstandard

from fewbits.plan import Clustered, Dense, Plan
from fewbits.report import sizes
from fewbits.report.sizes import general_purpose


@pytest.mark.parametrize(("large", "level"), [(32_000_000, 19), (100, 9)])
def test_sizes_are_those_of_the_bytes_without_a_header(monkeypatch: pytest.MonkeyPatch, large: int, level: int) -> None:
    monkeypatch.setattr(sizes, "LARGE", large)
    torch.manual_seed(0)
    weight, bias = torch.randn(30, 40), torch.randn(30)
    levels = torch.randint(-2, 3, (30, 40), dtype=torch.int16)
    plan = Plan({"weight": Clustered(levels, 4, step=0.5), "bias": Dense(bias.half())})
    floats = weight.numpy().tobytes() + bias.numpy().tobytes()
    rest = levels.numpy().astype(np.int8).tobytes() + bias.half().numpy().tobytes()
    found = general_purpose({"weight": weight, "bias": bias}, plan)
    assert found == {
        "gzip -9, float32": len(gzip.compress(floats, 9, mtime=0)),
        f"zstd -{level}, float32": len(zstandard.ZstdCompressor(level=level).compress(floats)),
        "gzip -9, int8": len(gzip.compress(rest, 9, mtime=0)),
        f"zstd -{level}, int8": len(zstandard.ZstdCompressor(level=level).compress(rest)),
    }
