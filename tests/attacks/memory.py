"""What another process has in its memory, and a folder in its files. Linux, and processes of one's own, only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r\S*) \S+ \S+ \S+ *(.*)")
_CHUNK = 1 << 24


def readable() -> bool:
    """Whether this process may read another's memory here."""
    try:
        with open("/proc/self/mem", "rb"):
            return True
    except OSError:
        return False


def tree(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def _chunks(process: int) -> Iterator[bytes]:
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in lines:
            found = _MAP.fullmatch(line)
            if found is None or not ("w" in found[3] or "memfd" in found[4]):  # a library's code is as it was
                continue
            start, end = int(found[1], 16), int(found[2], 16)
            before = b""
            while start < end:
                try:
                    part = os.pread(memory.fileno(), min(_CHUNK, end - start), start)
                except OSError:  # a file that is shorter than what is mapped of it
                    break
                if not part:
                    break
                yield before + part
                before, start = part[-256:], start + len(part)


def in_memory(process: int, needles: Mapping[str, bytes]) -> set[str]:
    """The names of the byte strings, of at most 256 bytes each, that the process and those below it have in memory."""
    found: set[str] = set()
    seen = 0
    for each in tree(process):
        for chunk in _chunks(each):
            seen += len(chunk)
            found |= {name for name, needle in needles.items() if name not in found and needle in chunk}
    assert seen > 1 << 22, "an interpreter has more memory than that"
    return found


def in_files(folder: Path, needles: Mapping[str, bytes]) -> set[str]:
    """The same of all files below a folder."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert files
    return {name for name, needle in needles.items() if any(needle in data for data in files)}
