"""The same integers survive a journey through the MPEG standard's reference coder, if that is installed."""

import importlib.util

import pytest
import torch

from fewbits.deploy import from_nnc, to_nnc
from fewbits.errors import FileError, MissingExtraError, RecipeError
from fewbits.plan import Clustered, Dense, Plan

installed = importlib.util.find_spec("nncodec") is not None
needed = pytest.mark.skipif(not installed, reason="nncodec is not installed")


def sample() -> Plan:
    generator = torch.Generator().manual_seed(1)
    conv = (torch.randn(16, 8, 3, 3, generator=generator) * 2).round().clamp(-7, 7).to(torch.int16)
    wide = torch.randint(-300, 301, (5, 60), generator=generator).to(torch.int16)
    return Plan(
        {"a.weight": Clustered(conv, 4, 0.1), "b.weight": Clustered(wide, 16, 1e-4), "b.bias": Dense(torch.ones(5))}
    )


@needed
def test_levels_come_back(tmp_path):
    plan = sample()
    written = to_nnc(plan, tmp_path / "x.nnc")
    assert (written.tensors, written.count) == (2, 16 * 72 + 300)
    assert written.bytes == (tmp_path / "x.nnc").stat().st_size
    back = from_nnc(tmp_path / "x.nnc")
    assert set(back) == {"a.weight", "b.weight"}
    for name, entry in plan.clustered.items():
        assert back[name].dtype == torch.int16
        assert torch.equal(back[name], entry.levels)


@needed
def test_nothing_to_export(tmp_path):
    with pytest.raises(RecipeError, match="no clustered tensor"):
        to_nnc(Plan({"b": Dense(torch.ones(2))}), tmp_path / "x.nnc")
    with pytest.raises(FileError, match="cannot read"):
        from_nnc(tmp_path / "x.nnc")


@pytest.mark.skipif(installed, reason="nncodec is installed")
def test_without_the_package_one_sentence_says_so(tmp_path):
    with pytest.raises(MissingExtraError, match=r"needs nncodec: pip install 'fewbits\[nnc\]'"):
        to_nnc(sample(), tmp_path / "x.nnc")
    assert not list(tmp_path.iterdir())
