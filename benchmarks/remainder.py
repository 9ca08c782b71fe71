"""What stays floats, in fewer significant bits: bytes and accuracy of finished files that are written again, untrained.

    python benchmarks/remainder.py resnet-20 out/ecqx/resnet-20/RUN/net.few --name "ResNet-20, 30 KB" --weights FOLDER

The network and its data are those of an experiment of `ecqx.py`. `--name` says in the table how the file was made; rows
of the same name are replaced, others kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import ecqx
from fewbits import codec, files
from fewbits.attach.precision import shortened
from fewbits.channels.load import load_plan
from fewbits.job import job as jobs
from fewbits.pipeline.restore import restore
from fewbits.plan import Dense, Entry, Masked, Plan
from fewbits.report import provenance

BITS = (11, 8, 6, 5, 4, 3)
RESULT = ecqx.ROOT / "results" / "remainder.json"


def fewer(entry: Entry, bits: int) -> Entry:
    """The entry with so many significant bits, if it is floats."""
    if isinstance(entry, Dense) and entry.data.is_floating_point():
        return Dense(shortened(entry.data.float(), torch.float16, bits))
    if isinstance(entry, Masked):
        return Masked(shortened(entry.data.float(), torch.float16, bits), entry.mask)
    return entry


def measured(job: jobs.Job, file: Path, name: str) -> list[dict[str, Any]]:
    data = files.read(file)
    network, plan = restore(data, job.network)
    numbers = sum(int(e.kept.sum()) if isinstance(e, Masked) else e.data.numel() if isinstance(e, Dense) else 0
                  for e in plan.values())  # fmt: skip
    rows = []
    for bits in BITS:
        changed = Plan({name: fewer(entry, bits) for name, entry in plan.items()}, plan.channels)
        load_plan(network, changed)
        rows.append({
            "file": name, "model": job.recipe.network.name if job.recipe.network else "", "data": job.dataset.name,
            "method": "pruned" if any(isinstance(e, Masked) for e in plan.values()) else "clustered",
            "significand": bits, "floats": numbers, "bytes_before": len(data),
            "bytes": len(codec.encode(changed, header=codec.inspect(data).header)),
            "validation_accuracy": job.evaluate("validation")(network), "accuracy": job.evaluate("test")(network),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(ecqx.EXPERIMENTS))
    parser.add_argument("file", type=Path, help="a .few file of that network, its floats in float16")
    parser.add_argument("--name", required=True, help="how the file was made, for example 'ResNet-20, 30 KB'")
    parser.add_argument("--data", help="folder with the data sets")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder with trained weights")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    run = ecqx.Run(options.experiment, "ecq", ecqx.EXPERIMENTS[options.experiment].targets[0], 0)
    new = measured(jobs.skeleton(ecqx.recipe_for(run, options)), options.file, options.name)
    done = json.loads(options.result.read_text())["rows"] if options.result.exists() else []
    rows = [r for r in done if r["file"] != options.name] + new
    head = provenance("remainder", "python benchmarks/remainder.py EXPERIMENT FILE --name NAME")
    options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
