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


@pytest.mark.parametrize(("large", "strength", "level"), [(32_000_000, 9, 19), (100, 6, 9)])
def test_sizes_are_those_of_the_bytes_without_a_header(
    monkeypatch: pytest.MonkeyPatch, large: int, strength: int, level: int
) -> None:
    monkeypatch.setattr(sizes, "LARGE", large)
    torch.manual_seed(0)
    weight, bias = torch.randn(30, 40), torch.randn(30)
    levels = torch.randint(-2, 3, (30, 40), dtype=torch.int16)
    plan = Plan({"weight": Clustered(levels, 4, step=0.5), "bias": Dense(bias.half())})
    floats = weight.numpy().tobytes() + bias.numpy().tobytes()
    rest = levels.numpy().astype(np.int8).tobytes() + bias.half().numpy().tobytes()
    found = general_purpose({"weight": weight, "bias": bias}, plan)
    assert found == {
        f"gzip -{strength}, float32": len(gzip.compress(floats, strength, mtime=0)),
        f"zstd -{level}, float32": len(zstandard.ZstdCompressor(level=level).compress(floats)),
        f"gzip -{strength}, int8": len(gzip.compress(rest, strength, mtime=0)),
        f"zstd -{level}, int8": len(zstandard.ZstdCompressor(level=level).compress(rest)),
    }
