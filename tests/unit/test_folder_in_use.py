"""A folder in which somebody works, as the command line and the library meet it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import fewbits

from fewbits import files
from fewbits.data import digits
from fewbits.errors import FileError
from fewbits.job import Job
from fewbits.job import _job as jobs
from fewbits.recipe import make
from fewbits.zoo import build

pytestmark = pytest.mark.skipif(files.fcntl is None, reason="folders are not locked here")

VALUES = {"network": {"name": "digits-net"}, "data": {"name": "digits", "batch_size": 64}, "pretrain": {"epochs": 1}}


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A folder that another thread has locked."""
    out, begun, over = tmp_path / "busy", threading.Event(), threading.Event()
    out.mkdir()

    def work() -> None:
        with files.locked(out, "digits-net, seed 7"):
            begun.set()
            over.wait()

    other = threading.Thread(target=work)
    other.start()
    assert begun.wait(10)
    yield out
    over.set()
    other.join()


def test_a_command_is_told_who_works_there_before_anything_is_trained(busy: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("schema: 2\n" + "\n".join(f"{key}: {part}" for key, part in VALUES.items()))
    ran = fewbits("compress", tmp_path / "recipe.yaml", "--out", busy)
    assert ran.code == 2
    assert f"in use by process {os.getpid()}, since " in ran.err
    assert "(digits-net, seed 7)" in ran.err
    assert "training on" not in ran.err
    assert os.listdir(busy) == [files.LOCK]


def test_a_call_is_told_as_well(busy: Path) -> None:
    job = Job(make(VALUES), digits(), build("digits-net"))
    with pytest.raises(FileError, match=r"busy is in use by process .* \(digits-net, seed 7\)"):
        jobs.run(job, busy)
    assert os.listdir(busy) == [files.LOCK]
