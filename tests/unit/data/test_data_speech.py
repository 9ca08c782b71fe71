"""Speech Commands, on a small file of the same layout."""

import numpy as np
import pytest
import torch
from published_files import labels, write

from fewbits import data
from fewbits.errors import DataError, RecipeError

RNG = np.random.default_rng(0)


def speech_arrays(layout):
    count, (coefficients, frames) = 60, map(int, layout.split("x"))
    codes = RNG.integers(-127, 128, (count, coefficients, frames), dtype=np.int8)
    return {
        "features" if layout == "15x17" else "mfcc": codes if layout == "15x17" else codes.transpose(1, 2, 0),
        "scale": RNG.uniform(0.1, 1, coefficients).astype(np.float32),
        "mean": RNG.normal(size=coefficients).astype(np.float32),
        "label": labels(count, 12),
        "split": np.repeat(np.array([0, 1, 2], np.uint8), [36, 12, 12]),
        "classes": np.array([f"word{k}" for k in range(12)]),
    }, codes


@pytest.mark.parametrize("layout", ["15x17", "10x49"])
def test_speech_commands(tmp_path, layout):
    arrays, codes = speech_arrays(layout)
    write(tmp_path / data._speech.LAYOUTS[layout], arrays)
    dataset = data.load("speech-commands", tmp_path, layout=layout)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (36, 12, 12)
    expected = codes * arrays["scale"][:, None] + arrays["mean"][:, None]
    shape = (-1, 255) if layout == "15x17" else codes.shape
    torch.testing.assert_close(dataset.test.inputs, torch.from_numpy(expected.reshape(shape)[48:]))
    x, _ = next(iter(dataset.loader("train", 36)))
    rows = x.reshape(36, *codes.shape[1:])
    torch.testing.assert_close(rows.mean(dim=(0, 2)), torch.zeros(codes.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(dim=(0, 2), correction=0), torch.ones(codes.shape[1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": np.ones(3, np.float32)}, "scale and mean must have 15"),
        ({"label": np.zeros(5, np.uint8)}, "label and split must have 60"),
        ({"label": np.full(60, 12, np.uint8)}, "class outside"),
        ({"mean": np.full(15, np.nan, np.float32)}, "NaN"),
        ({"features": np.zeros((60, 15, 17))}, "'features' is float64"),
        ({"split": np.full(60, 2, np.uint8)}, "no training clips"),
    ],
)
def test_damaged_speech_commands(tmp_path, change, says):
    arrays, _ = speech_arrays("15x17")
    write(tmp_path / data._speech.LAYOUTS["15x17"], arrays | change)
    with pytest.raises(DataError, match=says):
        data.speech_commands(tmp_path)


def test_unknown_layout(tmp_path):
    with pytest.raises(RecipeError, match="did you mean '15x17'"):
        data.speech_commands(tmp_path, layout="15x18")
