"""The C coder under the address and undefined-behaviour sanitizers, with the tests that feed it (``make sanitize``).

Takes some ten minutes, a C compiler with both sanitizers, and the development extras. The instrumented extension lies
in a temporary copy of the package; the installed one stays as it is. What a sanitizer reports is printed at the end.

    python tests/attacks/sanitize.py [--fuzz TIMES] [TEST ...]
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = "-std=c11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -fPIC -shared"
TESTS = (
    "tests/golden/test_codec_golden.py",
    "tests/attacks/test_coder_mutations.py",
    "tests/attacks/test_codec_hostile.py",
    "tests/attacks/test_codec_fuzz.py",
    "tests/property/test_codec.py",
    "tests/unit/codec",
)
RUNTIMES = ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so", "libclang_rt.asan.so")


def compiler() -> list[str]:
    """``CC``, else the compiler that Python was built with."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def is_clang() -> bool:
    return "clang" in subprocess.check_output([*compiler(), "--version"], text=True)


def library(name: str) -> str | None:
    """The whole path of one of the compiler's libraries."""
    path = subprocess.check_output([*compiler(), f"-print-file-name={name}"], text=True).strip()
    return str(Path(path).resolve()) if os.sep in path else None


def build(extension: Path) -> None:
    """Compile the coder into this file."""
    source = ROOT / "src/fewbits/codec/csrc/_coder.c"
    more = ["-shared-libasan"] if is_clang() else []
    include = f"-I{sysconfig.get_paths()['include']}"
    subprocess.run([*compiler(), *FLAGS.split(), *more, include, str(source), "-o", str(extension)], check=True)
    code = extension.read_bytes()
    if b"__asan_report" not in code or b"__ubsan_handle" not in code:
        sys.exit(f"{compiler()[0]} built the coder without the sanitizers")


def environment(package: Path, fuzz: int) -> dict[str, str]:
    """How Python finds the package, and runs under a sanitizer that the interpreter itself was not built with."""
    runtime = next((path for path in map(library, RUNTIMES) if path), None)
    if runtime is None:
        sys.exit(f"{compiler()[0]} has no shared library of the address sanitizer")
    first = [runtime, library("libstdc++.so.6")]  # the sanitizer looks for C++ exceptions when it starts
    return os.environ | {
        "PYTHONPATH": str(package),
        "PYTHONMALLOC": "malloc",  # else Python's own pools hide where a buffer ends
        "LD_PRELOAD": " ".join(path for path in first if path),
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={package}/report",  # Python does not free all of its own memory
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={package}/report",  # pytest would lose what a dying worker says
        "FEWBITS_REQUIRE_C": "1",
        "FEWBITS_FUZZ": str(fuzz),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=int, default=5, help="times as many damaged streams and files as usual")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what to run instead of all that feeds the coder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(ROOT / "src/fewbits", package / "fewbits", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
        extension = package / "fewbits/codec/_coder.abi3.so"
        build(extension)
        variables = environment(package, options.fuzz)
        script = "from fewbits.codec import coder; print(coder.bits.__file__)"
        taken = subprocess.check_output([sys.executable, "-c", script], text=True, env=variables, cwd=folder).strip()
        if Path(taken) != extension:
            sys.exit(f"the tests would run {taken}, not the coder under the sanitizers")
        run = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *options.tests]
        status = subprocess.run(run, cwd=ROOT, env=variables).returncode
        reports = sorted(package.glob("report.*"))
        print(*(report.read_text() for report in reports), sep="\n", file=sys.stderr)
        return 1 if reports else status


if __name__ == "__main__":
    sys.exit(main())
