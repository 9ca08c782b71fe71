"""Digits, and what ``load`` says about names, options and missing files."""

import numpy as np
import pytest
import torch

from fewbits import data
from fewbits.errors import DataError, RecipeError


def test_digits():
    dataset = data.load("digits")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1077, 180, 540)
    assert dataset.input_shape == (1, 8, 8)
    everything = torch.cat([dataset.split(s).inputs for s in ("train", "validation", "test")]).flatten(1)
    assert everything.min() == 0
    assert everything.max() == 1
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    assert torch.equal(everything.unique(dim=0), torch.from_numpy(images / 16).float().unique(dim=0))
    whole = np.bincount(targets) / len(targets)
    for split in ("train", "validation", "test"):
        part = dataset.split(split).targets
        np.testing.assert_allclose(np.bincount(part.numpy()) / len(part), whole, atol=0.006)
    again = data.digits()
    assert all(torch.equal(getattr(again, s).inputs, dataset.split(s).inputs) for s in ("train", "test"))
    x, _ = next(iter(dataset.loader("train", 1077)))
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-5


@pytest.mark.parametrize("name", [n for n in data.NAMES if n != "digits"])
def test_missing_data_says_how_to_get_it(tmp_path, name, monkeypatch):
    monkeypatch.setenv("FEWBITS_DATA", str(tmp_path / "nowhere"))
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=rf"no {name} in .*looked for .*(fewbits data fetch {name}|docs/data\.md)"):
            data.load(name, folder)


def test_unknown_names_and_options(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'cifar10'"):
        data.load("cifar-10")
    with pytest.raises(RecipeError, match="did you mean 'binary'"):
        data.load("activity", tmp_path, binray=True)
    with pytest.raises(RecipeError, match="it has: none"):
        data.load("digits", size=3)
