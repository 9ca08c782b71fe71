"""Tasks in one file: which there are, and one of them alone, of which no more is read than it needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fewbits import codec, files
from fewbits.channels.load import load_plan
from fewbits.codec import PartReader
from fewbits.errors import FewbitsError, FileError, MismatchError, RecipeError, did_you_mean
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._paths import Paths
from fewbits.plan import Plan

FREE = 1 << 18
"""Numbers that may be decoded however small the network is that they are for."""
Source = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class TaskInFile:
    """A task of a file.

    Attributes:
        segments: that its path goes through. private: those of them that no other task's does.
        numbers: of all its tensors. bytes: that are read of the file for it.
    """

    name: str
    segments: int
    private: int
    numbers: int
    bytes: int


@dataclass(frozen=True)
class Extracted:
    """A task that was written alone.

    Attributes:
        bytes: of the new file. read: bytes of the file it is from. size: of that file.
        numbers: of its tensors. decoded: numbers that were decoded for them.
    """

    bytes: int
    read: int
    size: int
    numbers: int
    decoded: int


def tasks_in(source: Source) -> list[TaskInFile]:
    """The tasks of the network in a file, in order.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or a file without tasks (MismatchError).
    """
    with PartReader(source) as reader:
        paths = _paths(reader)
        begin, users, found = reader.bytes_read, paths.users(), []
        for name, path in paths.items():
            own = _tensors_of(name, reader.names, paths)
            private = sum(names == [name] for names in users.values())
            read = begin + reader.cost(own)
            found.append(TaskInFile(name, int(path.sum()), private, reader.count(own), read))
    return found


def paths_in(source: Source) -> Paths:
    """The paths of all tasks in a file.

    Raises:
        As :func:`tasks_in`.
    """
    with PartReader(source) as reader:
        return _paths(reader)


def read_task(source: Source, task: str, *, limit: int | None = None) -> tuple[Plan, Tensor, PartReader]:
    """The tensors of one task in a file, its path, and what was read for it. For the network, see :func:`load_task`.

    Args:
        source: as of :func:`tasks_in`. limit: numbers that may be decoded; see :class:`fewbits.codec.PartReader`.

    Raises:
        As :func:`tasks_in`; RecipeError: no such task.
    """
    with PartReader(source, limit=limit) as reader:
        paths = _paths(reader)
        if task not in paths:
            raise RecipeError(f"the file has no task {task!r}{did_you_mean(task, paths)} ({', '.join(paths)})")
        own = _tensors_of(task, reader.names, paths)
        return reader.plan(own), paths[task], reader


def extract(source: Source, task: str, path: str | os.PathLike[str], *, limit: int | None = None) -> Extracted:
    """Write one task of a file as a file that stands alone: :func:`load_task` and :func:`fewbits.load` read it.

    It is decoded again, and compared, before it takes its place. Levels have the bytes that they had.

    Raises:
        As :func:`read_task`.
    """
    plan, _, reader = read_task(source, task, limit=limit)
    data = codec.encode(plan)
    numbers = sum(entry.values().numel() for entry in plan.values())
    if not codec.decode(data, codec.shapes(data, limit=numbers)).equals(plan):
        raise FileError(f"task {task!r} is not the same when it is read again; nothing was written")
    files.write(path, data)
    return Extracted(len(data), reader.bytes_read, reader.size, numbers, reader.numbers_decoded)


def load_task(source: Source, task: str, like: SegmentNet) -> SegmentNet:
    """The network of one task in a file, of all tasks or of this one; returns it in evaluation mode.

    Args:
        like: an untrained network as the one in the file, with all tasks, or this one; it is not changed.

    Raises:
        As :func:`read_task`; MismatchError: a file of another network.
    """
    held = sum(tensor.numel() for tensor in like.state_dict().values())
    plan, path, _ = read_task(source, task, limit=2 * held + FREE)  # small numbers of other tasks come along
    if path.shape != like.path(task).shape:
        raise MismatchError(
            f"paths.{task} has shape {list(path.shape)} in the file, {list(like.path(task).shape)} here"
        )
    net = like.alone(task, path)
    load_plan(net, plan)
    return net.eval()


def _paths(reader: PartReader) -> Paths:
    """The paths of all tasks in a file; MismatchError if there are none."""
    names = [name for name in reader.names if name.startswith("paths.")]
    if not names:
        raise MismatchError("the file holds no tasks: it is not of a network of fewbits.multitask (no tensor paths.*)")
    plan = reader.plan(names)
    try:
        return Paths({name.partition(".")[2]: plan.tensors()[name].to(torch.bool) for name in names})
    except FewbitsError as error:
        raise MismatchError(f"the file holds no tasks: {error}") from error


def _tensors_of(task: str, names: Iterable[str], paths: Paths) -> list[str]:
    """The names of a task's tensors: those that :meth:`SegmentNet.alone` has."""
    known = list(names)
    own_head = any(name.startswith(f"heads.{task}.") for name in known)
    return [name for name in known if _belongs(name.split("."), task, paths, own_head)]


def _belongs(parts: list[str], task: str, paths: Paths, own_head: bool) -> bool:
    room, rest = parts[0], parts[1:]
    if room in ("paths", "heads", "gates"):
        return rest[:1] == [task]
    if room == "shared_head":
        return not own_head and (rest[:1] != ["rows"] or rest[1:] == [task])
    if room != "layers":
        return True
    numbers = [int(part) for part in rest[:2] if part.isdecimal()]
    if len(numbers) < 2 or numbers[0] >= paths.layers or numbers[1] >= paths.modules:
        raise MismatchError(f"the file holds tensor {'.'.join(parts)[:100]!r}, which is of no segment of its paths")
    others = {other for here, other in pairwise(rest) if here == "each" and other in paths}
    return bool(paths[task][numbers[0], numbers[1]]) and not others - {task}
