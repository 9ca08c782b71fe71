"""A plan as a safetensors file, for programs that do not read ``.few``."""

from __future__ import annotations

import os

import torch
from safetensors.torch import save
from torch import Tensor

from fewbits import files
from fewbits.plan import Clustered, Entry, Plan


def to_safetensors(plan: Plan, path: str | os.PathLike[str], *, levels: bool = False) -> int:
    """Write every tensor of a plan; returns the bytes of the file.

    Args:
        path: where to; replaced wholly or not at all.
        levels: keep clustered tensors as integers: ``name`` (int8 where that holds them, else int16) and
            ``name.step`` (float32 scalar) or ``name.codebook`` (float32 values from the level in the metadata
            entry ``name.lowest`` on). By default ``name`` is the float32 tensor the network computes with.

    Raises:
        FileError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    notes = {"format": "pt"}
    for name in (*plan, *plan.aliases):
        entry = plan.named(name)
        assert entry is not None
        if levels and isinstance(entry, Clustered):
            tensors |= _integers(name, entry)
            if entry.codebook is not None:
                notes[f"{name}.lowest"] = str(entry.lowest)
        else:
            tensors[name] = _values(entry)
    data = save(tensors, metadata=notes)
    files.write(path, data)
    return len(data)


def _values(entry: Entry) -> Tensor:
    return entry.values().detach().cpu().contiguous().clone()


def _integers(name: str, entry: Clustered) -> dict[str, Tensor]:
    levels = entry.levels.cpu().contiguous()
    prune_channels = levels.numel() == 0 or (int(levels.min()) >= -128 and int(levels.max()) <= 127)
    found = {name: levels.to(torch.int8) if prune_channels else levels.clone()}
    if entry.codebook is not None:
        return found | {f"{name}.codebook": torch.tensor(entry.codebook, dtype=torch.float32)}
    return found | {f"{name}.step": torch.tensor(entry.step, dtype=torch.float32)}
