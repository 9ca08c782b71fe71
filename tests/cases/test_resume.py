"""What an interrupted run needs to end in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from later import Net, batches, recipe
from torch.utils.data import DataLoader, TensorDataset

import fewbits as fb


def test_a_loader_with_a_seeded_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    data = TensorDataset(*(torch.cat(parts) for parts in zip(*batches(), strict=True)))
    torch.manual_seed(0)
    net, job = Net(), recipe(train={"epochs": 2, "lr": 1e-2}, rounds=4)

    def run(**options: object) -> bytes:
        loader = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(5))
        return fb.compress(net, loader, recipe=job, **options).data  # type: ignore[arg-type]

    def stop(done: int, total: int, line: str) -> None:
        if done >= total / 2:
            raise KeyboardInterrupt

    whole = run()
    if run() != whole:
        pytest.fail("two whole runs differ, so nothing is said about resuming")
    with pytest.raises(KeyboardInterrupt):
        run(state_file=tmp_path / "state", progress=stop)
    assert run(state_file=tmp_path / "state") == whole
