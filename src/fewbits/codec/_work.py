"""Independent jobs on several threads; the coder's C functions let go of the interpreter while they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

MOST = 16  # threads, unless asked for more


def run(jobs: Sequence[Callable[[], Result]], threads: int | None = None) -> list[Result]:
    """Results of all jobs, in order; the first error, once those under way are done.

    Args:
        threads: how many at once; ``None``: as many as there are processors, up to 16.
    """
    count = min(threads or min(_processors(), MOST), len(jobs))
    if count <= 1:
        return [job() for job in jobs]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _processors() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
