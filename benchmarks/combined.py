"""Channels first, then clusters: how the two stages of one recipe go together on VGG16-BN, to several byte targets.

    python benchmarks/combined.py --weights FOLDER [--data FOLDER] [--targets "584 KB" "129 KB"]

The channel stage is trained once and kept, and every target starts from it. What a row says is what one recipe with the
sections `channels` and `assign` does. Ratios and losses are against the whole float network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ecqx import CHEAP_RELEVANCE, ECQX
from fewbits import codec, files
from fewbits import recipe as recipes
from fewbits.attach import plan_of
from fewbits.channels.load import load_plan
from fewbits.hardware import count
from fewbits.job import batches as job_data
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.pipeline import compress
from fewbits.pipeline.stages.channels import remove_channels
from fewbits.report import provenance
from fewbits.report.sizes import float_bytes
from fewbits.train.kept import KeptTraining
from rows import row_of, with_method

RESULT = Path(__file__).parent.parent / "results" / "combined.json"
KEY = (
    "model",
    "method",
    "target",
    "seed",
    "epochs",
    "lr",
    "step",
    "dropout",
    "gradual",
    "floor",
    "significand",
    "channel_epochs",
    "channel_macs",
)
USUAL = {"dropout": True, "gradual": False, "min_kept": 0.0, "significand": None}  # of rows that do not say


def recipe_of(options: argparse.Namespace) -> recipes.Recipe:
    """The recipe of the clusters alone, with a channel stage that trains in the same way."""
    values = recipes.load("cifar10-vgg16-bn").model_dump(by_alias=True, exclude_unset=True)
    values |= {"assign": {**ECQX, "options": {**ECQX["options"], "step_rule": "rate"}}, "measure": CHEAP_RELEVANCE}
    values["network"]["weights"] = str(options.weights / "cifar10_vgg16bn_fp16.safetensors")
    if options.data:
        values["data"]["folder"] = options.data
    del values["train"]["gradual"]  # no part of a training without clusters
    values["channels"] = {"macs": options.macs, "train": values["train"] | {"epochs": options.channel_epochs}}
    values["train"] |= {"epochs": options.epochs} | ({} if options.lr is None else {"lr": options.lr})
    values["train"]["gradual"] = options.gradual
    values["assign"]["options"] |= {"min_kept": options.min_kept} if options.min_kept else {}
    values["significand"] = options.significand
    return recipes.make(values | {"seed": options.seed, "target": None})


def narrowed(job: jobs.Job, loader: Any, options: argparse.Namespace) -> nn.Module:
    """The network after the channel stage: trained now, or what an earlier call has kept."""
    recipe = job.recipe
    assert recipe.channels is not None
    place = options.work / f"narrow-{options.macs:g}-{options.channel_epochs:g}-{options.seed}.few"
    if not place.exists():
        accelerator = Accelerator()
        kept = KeptTraining(place.with_suffix(".training"), recipe.channels.model_dump_json(), accelerator)
        found = remove_channels(job.network, loader, recipe.channels, seed=recipe.seed, kept=kept)
        files.write(place, codec.encode(plan_of(found.model, floats=torch.float32)))
        kept.forget()
    small = job.skeleton()
    load_plan(small, codec.decode(files.read(place), like=small))
    return small.eval()


def note(row: dict[str, Any], result: Path) -> None:
    known = json.loads(result.read_text())["rows"] if result.exists() else []
    rows = [r for r in known if [(USUAL | r)[k] for k in KEY] != [row[k] for k in KEY]]
    head = provenance("combined", "python benchmarks/combined.py --weights FOLDER")
    result.write_text(json.dumps(head | {"rows": [*rows, row]}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the trained weights")
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--targets", nargs="+", default=["584 KB", "250 KB", "129 KB"])
    parser.add_argument("--methods", nargs="+", default=["ecqx"], help="ecqx, ecq, or a control")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--channel-epochs", type=float, default=8.0)
    parser.add_argument("--epochs", type=float, default=2.0, help="of training with clusters")
    parser.add_argument("--lr", type=float, help="of training with clusters; default: the recipe's")
    parser.add_argument("--gradual", action="store_true", help="lambda moves at every step (train.gradual)")
    parser.add_argument(
        "--floor", type=float, default=0.0, help="share of a layer's weights that stay (assign.min_kept)"
    )
    parser.add_argument("--significand", type=int, help="significant bits of what stays floats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out/combined"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    outputs.folder(options.work)
    recipe = recipe_of(options)
    job = jobs.prepare(recipe, say=print)
    assert recipe.data is not None
    loader = job_data.training_batches(job.dataset, recipe.data, seed=recipe.seed + 1)
    test, validation = job.evaluate("test"), job.evaluate("validation")
    small = narrowed(job, loader, options)
    shape, before = job.dataset.input_shape, test(job.network)
    macs, left = count(job.network, shape).macs, count(small, shape)
    reached = test(small)
    print(
        f"without channels: {reached:.2f} % of {before:.2f}, {left.macs / macs:.3f} of the multiplications", flush=True
    )
    values = recipe.model_dump(by_alias=True, exclude_unset=True) | {"channels": None}
    for target in options.targets:
        for method in options.methods:
            chosen = recipes.make(with_method(values, method) | {"target": target})
            stage = f"{options.macs:g}-{options.channel_epochs:g}"
            name = f"{method}-{target.replace(' ', '')}-{stage}-{options.epochs:g}-{chosen.train.lr:g}-{options.seed}"
            name += "-gradual" * options.gradual + f"-{options.min_kept:g}-{options.significand}"
            result = compress(
                small, loader, evaluate=validation, recipe=chosen, teacher=job.network,
                state_file=options.work / f"{name}.state",
                progress=lambda done, total, line: print(done, total, line, flush=True),
            )  # fmt: skip
            result.save(options.work / f"{name}.few")
            whole = float_bytes({n: t for n, t in job.network.state_dict().items() if not n.endswith("_tracked")})
            row = row_of(result.report, chosen, provenance("combined", "")["commit"]) | {
                "method": f"channels + {method}", "target": target, "channel_epochs": options.channel_epochs,
                "channel_macs": options.macs, "lr": chosen.train.lr, "gradual": options.gradual,
                "min_kept": options.min_kept, "significand": options.significand,
                "step": chosen.assign.options["step"], "dropout": values["network"]["options"].get("dropout", True),
                "accuracy": test(result.into(job.skeleton())), "baseline_accuracy": before, "split": "test",
                "validation_accuracy": result.report.accuracy_after, "narrowed_accuracy": reached,
                "float_bytes": whole, "ratio": whole / result.report.file_bytes,
                "macs": macs, "macs_left": left.macs, "parameters_left": left.parameters,
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            note(row, options.result)


if __name__ == "__main__":
    main()
