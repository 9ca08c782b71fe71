"""Small changes that tests must notice: ``make mutants``, on demand.

Each is made in a copy of the source, and the tests that should fail are run on it. They must pass on the source as it
is, or nothing is said. What survives is printed, and the exit status says whether anything did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PASSED, FAILED = 0, 1  # pytest's exit status; any other one means that the tests said nothing


class Mutant(NamedTuple):
    """In ``file`` of the package ``old`` becomes ``new``; one of the files ``tests`` must fail then."""

    file: str
    old: str
    new: str
    tests: str


BUDGET = "unit/search/test_budget.py property/test_budget_search.py"
PRUNERS = "unit/assign/test_pruning.py property/test_selection.py"
ENVELOPE, KEYS, CLIENT, SERVER = (f"unit/private/test_{name}.py" for name in ("envelope", "keys", "client", "server"))
HOSTILE = "attacks/test_codec_hostile.py"
MUTANTS = [
    Mutant(*row)
    for row in (
        ("train/loop.py", "0.5 * (1 + math.cos(math.pi * min(done, total) / total))", "1 - min(done, total) / total",
         "unit/train/test_loop.py"),
        ("train/loop.py", "            torch.set_rng_state(state)", "            pass", "unit/train/test_loop.py"),
        ("train/hold.py", "        self._forbid()\n        if self.settings.learn:", "        if self.settings.learn:",
         "unit/train/test_pruned.py"),
        ("train/hold.py", "begin * (end / begin) ** way", "begin + (end - begin) * way", "unit/train/test_ramp.py"),
        ("train/hold.py", "lerp_(holder(weights[name]), self.settings.damping)", "lerp_(holder(weights[name]), 0.0)",
         "unit/train/test_damping.py"),
        ("train/hold.py", 'group["initial_lr"] = group.get("initial_lr", group["lr"]) * ratio', "pass",
         "unit/train/test_step_rates.py"),
        ("train/objectives.py", "(1 - weight) * task.loss", "task.loss", "unit/train/test_loop.py"),
        ("train/recalibrate.py", "(new.mean - old.mean)", "new.mean", "unit/train/test_recalibrate.py"),
        ("train/recalibrate.py", "new.varies & old.varies", "old.varies", "unit/train/test_recalibrate.py"),
        ("attach/precision.py", "(size >= limits.tiny) & ", "", "unit/attach/test_precision.py"),
        ("assign/_grid.py", "99.9 if bits < LOSSLESS else 100.0", "99.9", "property/test_lossless_grids.py"),
        ("pipeline/rate_control/controllers.py", "self.lost < 2 and share < self.late", "self.lost < 2", BUDGET),
        ("pipeline/rate_control/controllers.py", "if size >= goal * (1 - tolerance) or", "if", BUDGET),
        ("pipeline/rate_control/controllers.py", "self.target * HEADROOM, self.lam", "self.target, self.lam", BUDGET),
        ("pipeline/rate_control/controllers.py", "min(self.best, self.target * HEADROOM)", "self.best", BUDGET),
        ("pipeline/rate_control/controllers.py", "self.shrink = min(0.97, self.shrink**0.6)", "pass", BUDGET),
        ("pipeline/rate_control/_fill.py", "int((order > 0).sum())", "len(order)", BUDGET),
        ("pipeline/rate_control/_size_search.py", "if self.lost is not None and self.lost >= self.kept:", "if False:",
         BUDGET),
        ("pipeline/_rounds.py", "better = size >= NEAR * target and (", "better = (", "unit/test_rounds.py"),
        ("pipeline/_rounds.py", "accuracy >= self.before - drop and", "True and", "unit/test_rounds.py"),
        ("assign/_chain.py", "levels = entry.levels.masked_fill(~mask, 0)", "levels = entry.levels",
         "unit/assign/test_pruning.py contract/test_assigners.py unit/train/test_pruned.py"),
        ("assign/_relevance.py", "most=zeros if released else zeros + allowed", "most=zeros + allowed",
         "unit/assign/test_ecqx.py property/test_assign.py"),
        ("assign/_relevance.py", "fresh.mul_(1 - self.momentum)", "fresh", "unit/assign/test_ecqx.py"),
        ("assign/_diagram.py", "(to_the_right & (exact == edges))", "False", "unit/assign/test_diagram.py"),
        ("assign/_diagram.py", "if start >= starts[-1]:", "if start > starts[-1]:",
         "unit/assign/test_diagram.py property/test_assign.py"),
        ("assign/_rate.py", "held[zero] = max(held[zero], 1.0)", "pass",
         "unit/assign/test_ecq.py contract/test_assigners.py"),
        ("assign/_rate.py", 'min(falls) if self.scale == "min" else max(falls)', "min(falls)",
         "unit/assign/test_ecq.py property/test_assign.py"),
        ("assign/_entropy.py", "if kept < needed:", "if kept < needed - 1:", "unit/assign/test_min_kept.py"),
        ("assign/_grid.py", "masked_fill_(entry.levels == 0, 1.0)", "masked_fill_(entry.levels == 0, 0.0)",
         "unit/assign/test_grid.py"),
        ("assign/_grid.py", "math.ceil(percentile * x.numel() / 100)", "math.floor(percentile * x.numel() / 100)",
         "unit/assign/test_grid.py"),
        ("assign/magnitude.py", "size - min(size, sigma)", "size", PRUNERS),
        ("assign/selection.py", "                equal &= ~bar", "                pass", PRUNERS),
        ("assign/selection.py", "            ties -= len(places)", "            pass", PRUNERS),
        ("assign/_schedule.py", "1 - (1 - x) ** power", "x**power", PRUNERS),
        ("int8/affine_grid.py", "clamp_(-z, LEVELS - z)", "clamp_(-z, LEVELS)", "property/test_affine.py"),
        ("attach/precision.py", "torch.round(", "torch.floor(", "unit/attach/test_precision.py"),
        ("codec/_cursor.py", "or (byte == 0 and shift > 7)", "", HOSTILE),
        ("codec/_narrowing.py", "or mask.all() or not mask.any()", "", HOSTILE),
        ("codec/_dense.py", "if dtype.is_floating_point and not bool(", "if False and not bool(", HOSTILE),
        ("codec/_record.py", "1) - 1) > FLOAT", "1)) > FLOAT", f"{HOSTILE} unit/codec/test_encode_decode.py"),
        ("codec/_container.py", "    if not sound:\n", "    if False:\n", f"{HOSTILE} golden/test_codec_golden.py"),
        ("codec/_container.py", " and int(levels.sum(dtype=np.int64)) != record.survivors", " and False", HOSTILE),
        ("files.py", "or hashlib.sha256(payload).digest() != digest", "", "unit/files/test_files.py"),
        ("files.py", "            if mode is None and kept is not None:\n                os.chmod(beside, kept)\n", "",
         "unit/files/test_files.py"),
        ("files.py", "0o666 if mode is None else mode", "0o666", "unit/files/test_files.py"),
        ("private/envelope.py", "if len(view) != head.size:", "if len(view) < head.size:", ENVELOPE),
        ("private/envelope.py", "if hashlib.sha256(view[:end]).digest() !=", "if False and", ENVELOPE),
        ("private/envelope.py", "if flags > _MAC_FLAG or zero or kind", "if kind", ENVELOPE),
        ("private/envelope.py", "    if not head.with_mac:\n", "    if False:\n", ENVELOPE),
        ("private/envelope.py", "if mac_key is None and head.with_mac:", "if False:", ENVELOPE),
        ("private/envelope.py", "if not hmac.compare_digest(", "if False and (", ENVELOPE),
        ("private/envelope.py", "bytes(view[:-HASH])", "bytes(view[: HEAD.size])", ENVELOPE),
        ("private/parts.py", "    if at != len(view):\n", "    if False:\n", "unit/private/test_parts.py"),
        ("private/binding.py", "    if profile_hash(profile) != bound:\n", "    if False:\n", KEYS),
        ("private/keys.py", "    if _id(found.profile, hashes) != found.key:\n", "    if False:\n", KEYS),
        ("private/keys.py", "        if missing or rotate.size()", "        if rotate.size()", KEYS),
        ("private/serial.py", ".read(limit + 1)", ".read()", KEYS),
        ("private/client.py", "if not self._key.profile.sound(sentinel):", "if False:", CLIENT),
        ("private/client.py", "            number=number,\n", "", CLIENT),
        ("private/handler.py", '            refuse_secret_key(message, "the message")\n', "", CLIENT),
        ("private/server.py", '        refuse_secret_key(first, "the message")\n', "", SERVER),
        ("private/server.py", "        if head.size > self._largest[head.kind]:\n", "        if False:\n",
         SERVER),
        ("private/key_store.py", "        if key in self._kept:\n", "        if False:\n",
         "unit/private/test_key_store.py"),
        ("private/worker.py", ".prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)", "", SERVER),
    )
]  # fmt: skip


def passes(source: Path, tests: str) -> bool:
    """Whether these files of tests pass on a source."""
    paths = [str(ROOT / "tests" / name) for name in tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *paths]
    surroundings = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    if done.returncode not in (PASSED, FAILED):
        raise SystemExit(f"pytest {tests} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == PASSED


def survives(mutant: Mutant) -> bool:
    """Whether its tests pass on the changed source."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        place = source / "fewbits" / mutant.file
        text = place.read_text(encoding="utf-8")
        place.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        return passes(source, mutant.tests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants with one of these words in the name of their file")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once; tests with time limits want one")
    options = parser.parse_args()
    mutants = [m for m in MUTANTS if not options.words or any(word in m.file for word in options.words)]
    for mutant in mutants:
        count = (ROOT / "src/fewbits" / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            raise SystemExit(f"{mutant.file} has {mutant.old!r} {count} times: mend tests/mutants.py")
    left = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        suites = sorted({mutant.tests for mutant in mutants})
        for tests, fine in zip(suites, pool.map(partial(passes, ROOT / "src"), suites), strict=True):
            if not fine:
                raise SystemExit(f"{tests} fail on the source as it is")
        for number, (mutant, alive) in enumerate(zip(mutants, pool.map(survives, mutants), strict=True), start=1):
            left += alive
            verdict = "SURVIVES" if alive else "caught"
            print(f"{number:2}/{len(mutants)} {verdict}: {mutant.file}: {mutant.old.strip()!r}", flush=True)
    if left:
        raise SystemExit(f"{left} of {len(mutants)} survive")


if __name__ == "__main__":
    main()
