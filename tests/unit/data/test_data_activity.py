"""HAPT, on a small file of the same layout, and the damage that .npz.xz files can have."""

import lzma

import numpy as np
import pytest
import torch
from published_files import write

from fewbits import data
from fewbits.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def motion():
    signals = RNG.integers(-30_000, 30_000, (6, 2000), dtype=np.int16)
    deltas = np.diff(signals, axis=1, prepend=np.zeros((6, 1), np.int16))  # wraps around, like the file's
    starts = np.arange(0, 1800, 60, dtype=np.int32)
    subjects = (np.arange(30) % 10 + 1).astype(np.uint8)
    arrays = {
        "signals_delta": deltas,
        "scale": np.linspace(0.001, 0.002, 6),
        "win_start": starts,
        "win_label": (np.arange(30) // 10 + 1 + 3 * (np.arange(30) % 2)).astype(np.uint8),
        "win_subject": subjects,
        "win_is_test": subjects > 6,
    }
    return arrays, signals


def test_activity(tmp_path, motion):
    arrays, signals = motion
    write(tmp_path / "hapt.npz.xz", arrays)
    dataset = data.load("activity", tmp_path)
    assert dataset.input_shape == (6, 128)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (15, 3, 12)
    at = int(arrays["win_start"][arrays["win_is_test"]][2])
    expected = signals[:, at : at + 128] * arrays["scale"][:, None]
    torch.testing.assert_close(dataset.test.inputs[2], torch.from_numpy(expected.astype(np.float32)))
    assert torch.equal(dataset.test.targets, torch.from_numpy(arrays["win_label"][arrays["win_is_test"]]).long() - 1)
    # The validation windows are all those of one subject, none of whom trains.
    windows = torch.from_numpy(np.stack([signals[:, s : s + 128] for s in arrays["win_start"]]))
    windows = (windows.double() * torch.from_numpy(arrays["scale"])[:, None]).float()
    owner = {bytes(w.numpy()): int(s) for w, s in zip(windows, arrays["win_subject"], strict=True)}
    people = [{owner[bytes(x.numpy())] for x in dataset.split(s).inputs} for s in ("train", "validation", "test")]
    assert len(people[1]) == 1
    assert not people[0] & people[1]
    assert people[2] == {7, 8, 9, 10}
    halves = data.activity(tmp_path, binary=True)
    assert len(halves.classes) == 2
    merged = {0: 1, 1: 0, 2: 1, 3: 0, 4: 1, 5: 0}
    assert halves.test.targets.tolist() == [merged[t] for t in dataset.test.targets.tolist()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"win_start": np.arange(30) * 70}, "outside the 2000 samples"),
        ({"win_label": np.zeros(30, np.uint8)}, "label lies outside"),
        ({"scale": np.ones(5)}, "contradict"),
        ({"win_subject": np.ones(29, np.uint8)}, "contradict"),
    ],
)
def test_damaged_activity(tmp_path, motion, change, says):
    write(tmp_path / "hapt.npz.xz", motion[0] | change)
    with pytest.raises(DataError, match=says):
        data.activity(tmp_path)


def test_damaged_xz(tmp_path, motion):
    path = tmp_path / "hapt.npz.xz"
    write(path, motion[0])
    sound = path.read_bytes()
    for content in (b"", sound[:-30], b"not xz at all", lzma.compress(b"not a zip")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"hapt\.npz\.xz is not a sound"):
            data.activity(tmp_path)
    write(path, {"scale": np.ones(6)})
    with pytest.raises(DataError, match="lacks the array 'signals_delta'"):
        data.activity(tmp_path)
    with (tmp_path / "plain.npy").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"not a \.npz file"):
        data.activity(tmp_path / "plain.npy")
