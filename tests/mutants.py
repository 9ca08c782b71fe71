"""Small changes that tests must notice: ``make mutants``, on demand.

Each is made in a copy of the source, and the tests that should fail are run on it. What survives is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# file, what is there, what is put in its place, the tests that must fail
MUTANTS = (
    ("train/loop.py", "0.5 * (1 + math.cos(math.pi * min(done, total) / total))", "1 - min(done, total) / total",
     "unit/train/test_loop.py"),
    ("train/hold.py", "        self._forbid()\n        if self.settings.learn:", "        if self.settings.learn:",
     "unit/train/test_pruned.py"),
    ("train/hold.py", "begin * (end / begin) ** way", "begin + (end - begin) * way", "unit/train/test_ramp.py"),
    ("train/hold.py", "lerp_(holder(weights[name]), self.settings.damping)", "lerp_(holder(weights[name]), 0.0)",
     "unit/train/test_damping.py"),
    ("pipeline/rate_control/controllers.py", "self.lost < 2 and share < self.late", "self.lost < 2",
     "unit/search/test_budget.py"),
    ("pipeline/rate_control/controllers.py", "if size >= goal * (1 - tolerance) or", "if",
     "unit/search/test_budget.py property/test_budget_search.py"),
    ("pipeline/rounds.py", "better = size >= NEAR * target and (", "better = (", "unit/test_rounds.py"),
    ("pipeline/rounds.py", "accuracy >= self.before - drop and", "True and", "unit/test_rounds.py"),
    ("assign/chain.py", "levels = entry.levels.masked_fill(~mask, 0)", "levels = entry.levels",
     "unit/assign/test_pruning.py unit/test_pipeline_methods.py contract/test_assigners.py unit/train/test_pruned.py"),
    ("assign/relevance.py", "most=zeros if released else zeros + allowed", "most=zeros + allowed",
     "unit/assign/test_ecqx.py property/test_assign.py"),
    ("assign/diagram.py", "(to_the_right & (exact == edges))", "False", "property/test_assign.py"),
    ("assign/diagram.py", "if start >= starts[-1]:", "if start > starts[-1]:",
     "property/test_assign.py unit/assign/test_diagram.py"),
    ("assign/grid.py", "masked_fill_(entry.levels == 0, 1.0)", "masked_fill_(entry.levels == 0, 0.0)",
     "unit/assign/test_grid.py"),
    ("assign/magnitude.py", "size - min(size, sigma)", "size",
     "unit/assign/test_pruning.py property/test_selection.py"),
    ("int8/affine_grid.py", "clamp_(-z, LEVELS - z)", "clamp_(-z, LEVELS)", "property/test_affine.py"),
    ("files.py", "or hashlib.sha256(payload).digest() != digest", "", "unit/files/test_files.py"),
    ("files.py", "            if mode is not None:\n                os.chmod(beside, mode)\n", "",
     "unit/files/test_files.py"),
)  # fmt: skip


def survives(file: str, old: str, new: str, tests: str) -> bool:
    """Whether all of the tests pass on the changed source."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        place = source / "fewbits" / file
        text = place.read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(f"{file} has no {old!r} any more: mend tests/mutants.py")
        place.write_text(text.replace(old, new, 1), encoding="utf-8")
        paths = [str(ROOT / "tests" / name) for name in tests.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *paths]
        surroundings = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True).returncode == 0


def main() -> None:
    left = []
    for number, mutant in enumerate(MUTANTS, start=1):
        alive = survives(*mutant)
        left += [mutant] if alive else []
        what = f"{mutant[0]}: {mutant[1].strip()!r}"
        print(f"{number:2}/{len(MUTANTS)} {'SURVIVES' if alive else 'caught'}: {what}", flush=True)
    if left:
        raise SystemExit(f"{len(left)} of {len(MUTANTS)} survive")


if __name__ == "__main__":
    main()
