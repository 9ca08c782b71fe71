"""Where a measurement comes from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch


def provenance(benchmark: str, command: str) -> dict[str, Any]:
    """The head of a result file; ``rows`` are added by the benchmark.

    Args:
        benchmark: its name. command: how to run it again, relative to the repository.

    Returns:
        ``benchmark``, ``command``, ``commit`` (of fewbits's own repository, or ``None`` outside of one),
        ``machine`` (processor, logical cores, accelerator) and ``versions``. Neither host name nor paths.
    """
    machine: dict[str, Any] = {"cpu": cpu(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "fewbits": importlib.metadata.version("fewbits"),
    }
    return {
        "benchmark": benchmark,
        "commit": commit(),
        "command": command,
        "machine": machine,
        "versions": versions,
    }


def commit(file: Path = Path(__file__)) -> str | None:
    """The checked-out commit of the repository that tracks ``file``; ``None`` if none does.

    An environment inside somebody else's repository is not tracked by it.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD") or None
    except (OSError, subprocess.SubprocessError):
        return None


def cpu() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except (OSError, ValueError):
        pass
    return platform.processor() or platform.machine()
