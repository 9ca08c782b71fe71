"""Every small recipe beside this file, run by the command line, and the sha256 of the files it writes.

``python tests/golden/golden_runs.py`` compares with hashes.json, and ``--write`` makes that anew: only in a commit that
names why bytes changed. Some processors still compute in another order than others, whatever is held below, so there
are sets of hashes of several: ``--add`` puts this processor's beside those of the others, for an unchanged program.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from _thread import interrupt_main
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from unittest import mock

Hashes = dict[str, dict[str, str]]
"""By run, then by file."""

FOLDER = Path(__file__).parent
STORED = FOLDER / "hashes.json"
SEARCH = ["--evaluations", "12", "--sparsity", "0.8", "--proxy", "128", "--min-kept", "9"]
RESUMED = {"resumed": "ecqx"}  # run: the recipe that it runs, interrupts, and goes on with

# The last bit of a float depends on which instructions a processor has, and one bit can move a weight to another
# cluster. So each library is held to what every x86-64 processor computes alike: torch's kernels, MKL, NumPy's loops
# (log2 and exp of their own) and BLAS, the C library's log and exp. Threads would change the order of sums. Without the
# first two settings every run has other bytes; without the other three none yet, though log2 and exp then differ.
ALIKE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Nehalem",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_USE_CPU": "true",
}


def names() -> list[str]:
    """All runs, in their order: some read what an earlier one left."""
    return sorted([*(path.stem for path in (FOLDER / "recipes").glob("*.yaml")), *RESUMED])


def stored() -> list[Hashes]:
    """What the files were when hashes.json was written, on each of some processors."""
    found: list[Hashes] = json.loads(STORED.read_text())["sets"]
    return found


def stored_versions() -> dict[str, str]:
    """What hashes.json was written with."""
    found: dict[str, str] = json.loads(STORED.read_text())["versions"]
    return found


def versions() -> dict[str, str]:
    """What the bytes depend on beside this project."""
    return {name: version(name) for name in ("torch", "numpy", "scikit-learn", "optuna", "stable-baselines3")}


def fresh() -> Hashes:
    """All runs now, in one process of their own.

    Raises:
        RuntimeError: a run failed; with what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "hashes.json"
        ran = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--into", str(result)],
            cwd=folder,
            env=os.environ | ALIKE,
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        found: Hashes = json.loads(result.read_text())
        return found


def _everything() -> Hashes:
    """All runs, in this process and folder."""
    import torch

    torch.backends.mkldnn.set_flags(False)  # both choose kernels by the processor
    torch.backends.nnpack.set_flags(False)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells have it ignored in the background
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # a page would take longer than its run
    found = {}
    for name in names():
        begin = time.process_time()
        _run(name)
        found[name] = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in _written(name)}
        print(f"{name}: {time.process_time() - begin:.1f} s", file=sys.stderr)
    return found


def _written(name: str) -> list[Path]:
    """The files of a run whose bytes count: networks, and no reports, which tell times and versions."""
    files = sorted(Path(name).rglob("*.few"))
    # A search keeps the words of its recipe in the float network's file.
    return files if name.startswith("search-") else [Path(name, "float.safetensors"), *files]


def _run(name: str) -> None:
    recipe, out = str(FOLDER / "recipes" / f"{RESUMED.get(name, name)}.yaml"), ["--out", name]
    if name in RESUMED:
        watch = threading.Thread(target=_interrupt_at, args=(Path(name), "*.state"), daemon=True)
        watch.start()
        _fewbits("compress", recipe, *out, code=130)
        _fewbits("compress", recipe, *out)
    elif name == "sweep":
        _fewbits("sweep", recipe, *out, "--threads", "1")
    elif name.startswith("search-"):  # for targets that are out of reach
        _fewbits("prune-search", recipe, *out, "--method", name.removeprefix("search-"), *SEARCH, code=3)
        _fewbits("compress", f"{name}/pruned.yaml", *out)
    else:
        _fewbits("compress", recipe, *out)


def _interrupt_at(folder: Path, pattern: str) -> None:
    """Ctrl-C as soon as a run has left something to go on from."""
    while not any(folder.glob(pattern)):
        time.sleep(0.001)
    interrupt_main()


def _fewbits(*words: str, code: int = 0) -> None:
    """A command line in this process, to spare the start of another.

    Raises:
        RuntimeError: it ended with another code.
    """
    told = io.StringIO()
    ended: object = None
    with mock.patch.object(sys, "argv", ["fewbits", *words]), redirect_stdout(told), redirect_stderr(told):
        try:
            runpy.run_module("fewbits", run_name="__main__")
        except SystemExit as leave:
            ended = leave.code
    if (ended or 0) != code:
        raise RuntimeError(f"fewbits {' '.join(words)} ended with {ended} instead of {code}:\n{told.getvalue()}")


def differences(found: Hashes, before: Hashes) -> list[str]:
    """The runs, and the files of each, that are not what they were."""
    lines = []
    for name in sorted({*found, *before}):
        now, then = found.get(name, {}), before.get(name, {})
        files = [file for file in sorted({*now, *then}) if now.get(file) != then.get(file)]
        if files:
            lines.append(f"{name}: {', '.join(files)}")
    return lines


def fewest(found: Hashes, sets: Sequence[Hashes]) -> list[str]:
    """The differences from the set that is nearest; none if all runs are as in one and the same set."""
    return min((differences(found, one) for one in sets), key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make hashes.json anew, for this processor alone")
    parser.add_argument("--add", action="store_true", help="add this processor's set to the others")
    parser.add_argument("--into", type=Path, help="run here and now, with whatever the environment says")
    options = parser.parse_args()
    if options.into is not None:
        options.into.write_text(json.dumps(_everything()))
        return
    found = fresh()
    before = stored() if STORED.exists() else []
    print("\n".join(fewest(found, before or [{}])) or "all as before")
    if options.write or options.add:
        sets = [*(before if options.add else []), found]
        STORED.write_text(json.dumps({"versions": versions(), "sets": sets}, indent=1) + "\n")


if __name__ == "__main__":
    main()
