"""The coder's time per weight and extra memory over the number of weights, in fresh processes (Linux)."""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.process import forget_peak, resident
from benchmarks.unit import Place, Row, Unit
from fewbits import codec
from fewbits.plan import Clustered, Plan


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row per number of weights; times are ratios to the same coder at the number of the option ``base``."""
    profile, found = unit.options["profile"], {}
    for count in unit.options["counts"]:
        row: Row = {"profile": profile}
        with tempfile.TemporaryDirectory() as folder:
            for part in ("encode", "decode"):
                command = [sys.executable, "-m", __name__, str(count), profile, part, f"{folder}/x.few"]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                row |= {"weights": int(told[0]), f"{part}_time": float(told[1]) / int(told[0])}
                row[f"{part}_extra_memory"] = float(told[2])
        found[count] = row
    base = found[unit.options["base"]]
    for part in ("encode", "decode"):
        whole = base[f"{part}_time"]
        for row in found.values():
            row[f"{part}_time_per_weight_ratio"] = row.pop(f"{part}_time") / whole
    return list(found.values())


def main(count: int, profile: str, part: str, path: Path) -> None:
    """One measurement, in this process: weights, seconds, and memory in sizes of the tensor."""
    columns = 576 if count < 10**7 else 4608
    rows = count // columns
    levels = torch.empty(rows, columns // 9, 3, 3, dtype=torch.int16)
    generator = torch.Generator().manual_seed(0)
    for row in levels:  # row by row: making the data must not need more memory than coding it
        noise = torch.randn(row.shape, generator=generator)
        row.copy_((noise * noise.abs()).mul_(1.2).round_().clamp_(-7, 7))
    codec.encode(Plan({"w": Clustered(levels[:1], 4, step=0.1)}), profile=profile)
    if part == "encode":
        job = partial(codec.encode, Plan({"w": Clustered(levels, 4, step=0.1)}), profile=profile, threads=1)
    else:
        job = partial(codec.decode, path.read_bytes(), {"w": torch.empty(levels.shape, device="meta")}, threads=1)
        del levels, row
    before, begin = forget_peak(), time.process_time()
    found = job()
    seconds, held = time.process_time() - begin, resident() - before
    if isinstance(found, bytes):
        path.write_bytes(found)
    print(rows * columns, seconds, held / (2 * rows * columns))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
