"""The same job on real networks that nobody here trained: ResNet-20 and VGG16-BN on CIFAR-10, on two CPU cores.

One seed and a short schedule: the first points of the curve that the scale benchmarks continue. The settings are
those of the bundled recipes; the test data is looked at once, at the end.

    python benchmarks/first_cifar.py --weights FOLDER [--data FOLDER] [--only resnet-20]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fewbits import recipe as recipes
from fewbits.job import job as jobs
from fewbits.report import provenance
from rows import row_of

JOBS = {"resnet-20": "cifar10_resnet20.safetensors", "vgg16-bn": "cifar10_vgg16bn_fp16.safetensors"}
RESULT = Path(__file__).parent.parent / "results" / "first_cifar.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the trained weights")
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--only", choices=sorted(JOBS))
    parser.add_argument("--target", help="another byte target than the recipe's")
    parser.add_argument("--work", type=Path, default=Path("out/first_cifar"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = json.loads(options.result.read_text())["rows"] if options.result.exists() else []
    for name, file in JOBS.items():
        if options.only not in (None, name):
            continue
        values = recipes.load(f"cifar10-{name}").model_dump(by_alias=True, exclude_unset=True)
        values["network"]["weights"] = str(options.weights / file)
        if options.data:
            values["data"]["folder"] = options.data
        if options.target:
            values["target"] = options.target
        recipe = recipes.make(values)
        job = jobs.prepare(recipe, say=print)
        result = jobs.run(job, options.work / f"{name}-{recipe.target_bytes}", say=print, progress=print)
        print(result.report)
        head = provenance("first_cifar", "python benchmarks/first_cifar.py --weights FOLDER")
        others = {
            "gzip_float": result.report.others["gzip -9, float32"],
            "zstd_int8": result.report.others["zstd -19, int8"],
        }
        rows.append(row_of(result.report, recipe, head["commit"]) | others)
        options.result.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
