"""INT8 with and without training: accuracy, bytes, and latency in ONNX Runtime against float32, the models taking
turns.

    python benchmarks/int8.py accuracy --weights FOLDER [--data FOLDER] [--only resnet-20] [--seeds 0 1 2]
    python benchmarks/int8.py accuracy --weights FOLDER --macs 0.48 [--multiple 16] [--epochs 8]
    python benchmarks/int8.py latency [--also NAME=FILE.onnx ...]

`accuracy` writes every network as .few and as ONNX into --work, and scores the ONNX file in ONNX Runtime on the test
data. With `--macs`, channels are removed first, down to this share of multiplications, and training follows. `latency`
times what is there (or untrained networks), and ResNets of 0.7 of the width, untrained, for the time that half the
multiplications take.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits import recipe as recipes
from fewbits import zoo
from fewbits.deploy.latency import measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.deploy.onnx.runtime import session
from fewbits.hardware import count
from fewbits.int8.form import affine_plan, calibrate, hold_affine, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.job import job as jobs
from fewbits.pipeline.restore import network_of, restore
from fewbits.report import provenance
from fewbits.zoo import resnet
from rows import published_vgg, row_of

NETWORKS = {"resnet-20": "cifar10_resnet20.safetensors", "vgg16-bn": "cifar10_vgg16bn_fp16.safetensors"}
DATA: dict[str, dict[str, Any]] = {
    "resnet-20": {"batch_size": 64, "augment": True},
    "vgg16-bn": published_vgg(),
}
TRAINED = {"resnet-20"}  # VGG16 takes too long to train here
RESULT = Path(__file__).parent.parent / "results" / "int8.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "latency"))
    parser.add_argument("--weights", type=Path, help="folder with the trained weights")
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--only", choices=sorted(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--macs", type=float, help="share of multiplications that removing channels leaves")
    parser.add_argument("--multiple", type=int, default=16, help="of which widths stay multiples")
    parser.add_argument("--epochs", type=float, default=8.0, help="of training without the removed channels")
    parser.add_argument("--lr", type=float, default=0.02, help="of that training")
    parser.add_argument("--distill", type=float, default=1.0, help="weight of the float network's answers in it")
    parser.add_argument("--calibrated", action="store_true", help="only without training")
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME=FILE", help="further ONNX models to time")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--work", type=Path, default=Path("out/int8"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    (accuracy if options.what == "accuracy" else latency)(options)


def note(key: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Put rows into the result file, in the place of those with the same values of ``key``."""
    known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    new = [[row.get(k) for k in key] for row in rows]
    kept = [row for row in known if [row.get(k) for k in key] not in new]
    head = provenance("int8", "python benchmarks/int8.py accuracy --weights FOLDER; python benchmarks/int8.py latency")
    head["versions"]["onnxruntime"] = version("onnxruntime")
    RESULT.write_text(json.dumps(head | {"rows": kept + rows}, indent=1) + "\n")


def accuracy(options: argparse.Namespace) -> None:
    for name, file in NETWORKS.items():
        if options.only not in (None, name):
            continue
        for epochs in (0, 1) if name in TRAINED and not options.calibrated else (0,):
            for seed in options.seeds if name in TRAINED else options.seeds[:1]:
                one(name, options.weights / file, epochs, seed, options)


def one(name: str, weights: Path, epochs: int, seed: int, options: argparse.Namespace) -> None:
    values = {
        "schema": 2,
        "network": {"name": name, "weights": str(weights)},
        "data": {"name": "cifar10", **DATA[name]} | ({"folder": options.data} if options.data else {}),
        "assign": {"method": "int8"},
        "train": {"epochs": epochs, "lr": 1e-4},
        "seed": seed,
    }
    title = f"{name}-{epochs}-{seed}"
    if options.macs is not None:
        recovery = {"epochs": options.epochs, "lr": options.lr, "distill": options.distill, "precision": "bfloat16"}
        values["channels"] = {
            "macs": options.macs, "criterion": "magnitude", "measured": True, "multiple": options.multiple,
            "train": recovery,
        }  # fmt: skip
        title += f"-{options.macs:g}-{options.multiple}"
    recipe = recipes.make(values)
    job = jobs.prepare(recipe, say=print)
    out = options.work / title
    result = jobs.run(job, out, say=print, progress=print, resume=False)
    inputs, _ = next(iter(job.dataset.loader("validation", 64)))
    network, plan = restore(result.data, job.network)
    integer = to_onnx(network, inputs, out / "int8.onnx", plan=plan)
    dense = to_onnx(job.network, inputs, out / "dense.onnx")
    head = provenance("int8", "")
    row = row_of(result.report, recipe, head["commit"]) | {
        "task": "accuracy",
        "multiple": options.multiple if options.macs is not None else None,
        "recovery_epochs": options.epochs if options.macs is not None else None,
        "recovery_lr": options.lr if options.macs is not None else None,
        "recovery_distill": options.distill if options.macs is not None else None,
        "augment": DATA[name].get("augment", False),
        "macs_left": result.report.macs_left,
        "macs": result.report.macs,
        "onnx_accuracy": scored(out / "int8.onnx", job),
        "onnx_difference": integer.agreement.difference,
        "onnx_bytes": integer.bytes,
        "dense_onnx_bytes": dense.bytes,
        "zstd_int8": result.report.others["zstd -19, int8"],
    }
    print(row)
    keys = ("task", "model", "method", "seed", "multiple", "augment")
    note((*keys, "recovery_epochs", "recovery_lr", "recovery_distill"), [row])


def scored(file: Path, job: jobs.Job) -> float:
    """Accuracy of an ONNX file in ONNX Runtime on the test data, in percent."""
    made = session(file.read_bytes())
    right = samples = 0
    for inputs, targets in job.dataset.loader("test", 256):
        (logits,) = made.run(None, {"input": inputs.numpy()})
        right += int((np.argmax(logits, 1) == targets.numpy()).sum())
        samples += len(targets)
    return 100 * right / samples


Widths = tuple[int, int, int]
# Half of the multiplications: 0.71 of all widths; whole vectors of 16; half of the channels inside of blocks only.
SHAPES: tuple[tuple[Widths, Widths | None], ...] = (
    ((11, 23, 45), None),
    ((16, 16, 32), None),
    ((16, 32, 64), (8, 16, 32)),
)


class Narrow(nn.Module):
    """ResNet-20 with other widths: what is left after channel pruning, as far as time is concerned."""

    def __init__(self, widths: Widths, inner: Widths | None = None) -> None:
        super().__init__()
        first, second, third = widths
        self.head = nn.Sequential(nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        stages = ((first, first, 1), (first, second, 2), (second, third, 2))
        self.stages = nn.Sequential(*(resnet._stage(3, before, after, stride=s) for before, after, s in stages))
        for stage, width in zip(self.stages, inner or (), strict=bool(inner)):
            for block in stage:
                before, after, stride = block.conv1.in_channels, block.conv2.out_channels, block.conv1.stride
                block.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
                block.bn1 = nn.BatchNorm2d(width)
                block.conv2 = nn.Conv2d(width, after, 3, padding=1, bias=False)
        self.tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(third, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.stages(self.head(x)))


def emulated(work: Path, name: str, model: nn.Module) -> dict[str, bytes]:
    """An untrained network as float32 and INT8 models: only their time means something."""
    torch.manual_seed(0)
    inputs = torch.randn(16, 3, 32, 32)
    model.eval()
    place = work / "emulated.onnx"
    to_onnx(model, inputs, place)
    models = {f"{name}, float32": place.read_bytes()}
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [inputs])
    hold_affine(net)
    plan = affine_plan(net)
    to_onnx(network_of(plan, model), inputs, place, plan=plan)
    return models | {f"{name}, int8": place.read_bytes()}


def share_of(model: str, title: str) -> float:
    """How many times fewer multiplications the model of ``channels in 8s`` has, from its row of accuracy."""
    for row in reversed(json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []):  # the latest of that name
        if row["model"] == model and row.get("multiple") and f"channels in {row['multiple']}s" in title:
            return float(row["macs"] / row["macs_left"])
    return 1.0


def latency(options: argparse.Namespace) -> None:
    for name in NETWORKS:
        if options.only not in (None, name):
            continue
        found = sorted(options.work.glob(f"{name}-[01]-?/int8.onnx"))  # those with all channels
        if found:
            models = {"float32": (found[-1].parent / "dense.onnx").read_bytes(), "int8": found[-1].read_bytes()}
        else:  # time does not depend on the weights
            made = emulated(options.work, "untrained", zoo.build(name, seed=0)).values()
            models = dict(zip(("float32", "int8"), made, strict=True))
        macs: dict[str, float] = {}
        if name == "resnet-20":
            whole = count(resnet.ResNet20(), (3, 32, 32)).macs
            for widths, inner in SHAPES:
                model = Narrow(widths, inner)
                title = f"untrained, {'-'.join(map(str, widths))}"
                title += f", inside {'-'.join(map(str, inner))}" if inner else ""
                ratio = whole / count(model, (3, 32, 32)).macs
                macs |= {f"{title}, float32": ratio, f"{title}, int8": ratio}
                models |= emulated(options.work, title, model)
        models |= {given.partition("=")[0]: Path(given.partition("=")[2]).read_bytes() for given in options.also}
        rows = []
        for row in measure_latency(models, batches=(1, 64), rounds=options.rounds):
            print(row)
            fewer = macs.get(row.name, share_of(name, row.name))
            rows.append(
                {
                    "task": "latency", "model": name, "method": row.name, "batch": row.batch, "threads": row.threads,
                    "seconds": row.seconds, "fast": row.fast, "slow": row.slow, "calls": row.calls,
                    "samples_per_second": row.throughput, "onnx_bytes": row.bytes, "versus": "float32",
                    "speedup": row.speedup, "macs_ratio": fewer,
                }
            )  # fmt: skip
        note(("task", "model"), rows)


if __name__ == "__main__":
    main()
