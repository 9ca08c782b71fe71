"""A plan in other formats: the same numbers come back."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fewbits.deploy import to_safetensors
from fewbits.errors import FileError
from fewbits.plan import Clustered, Dense, Plan

GENERATOR = torch.Generator().manual_seed(1)


def sample() -> Plan:
    levels = torch.randint(-3, 4, (4, 3, 3), generator=GENERATOR).to(torch.int16)
    wide = torch.randint(-3000, 3001, (5, 6), generator=GENERATOR).to(torch.int16)
    book = torch.randint(-1, 2, (7,), generator=GENERATOR).to(torch.int16)
    return Plan(
        {
            "w": Clustered(levels, 3, step=0.1),
            "wide": Clustered(wide, 16, step=1e-4),
            "book": Clustered(book, 2, codebook=(-0.3, 0.0, 0.7), lowest=-1),
            "none": Clustered(torch.zeros(0, 3, dtype=torch.int16), 4, step=1.0),
            "half": Dense(torch.randn(5, generator=GENERATOR).half()),
            "steps": Dense(torch.tensor(7)),
        }
    )


def test_floats_are_what_the_network_computes_with(tmp_path):
    plan = sample()
    size = to_safetensors(plan, tmp_path / "x.safetensors")
    assert size == (tmp_path / "x.safetensors").stat().st_size
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(plan)
    for name, tensor in plan.tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_levels_stay_integers(tmp_path):
    plan = sample()
    to_safetensors(plan, tmp_path / "x.safetensors", levels=True)
    found = load_file(tmp_path / "x.safetensors")
    assert (found["w"].dtype, found["wide"].dtype, found["none"].dtype) == (torch.int8, torch.int16, torch.int8)
    for name, entry in plan.clustered.items():
        assert torch.equal(found[name].to(torch.int16), entry.levels)
    assert torch.equal(found["w"].float() * found["w.step"], plan.clustered["w"].values())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        lowest = int(file.metadata()["book.lowest"])
    assert torch.equal(found["book.codebook"][found["book"].long() - lowest], plan.clustered["book"].values())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        to_safetensors(sample(), tmp_path / "no" / "x.safetensors")
