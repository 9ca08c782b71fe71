"""The entropy coder against NNCodec (ISO/IEC 15938-17) on the same integers: bytes, speed, memory.

Networks: weights of really trained networks, quantized by ECQ to 2-5 bits at stated shares of zeros (which needs no
training), and levels that ECQx training left in `.few` files, if given. On half of them the coder was designed
(`seen`), the others were looked at only for the result. Whole files are compared: ours hold step sizes and a SHA-256
besides. Speed is processor time on one thread, NNCodec's in a process of its own between ours; its parameter
optimisation is on, its quantization off.

    python benchmarks/codec.py --weights DIR --nnc ENV/bin/python [--onnx DIR] [--few digits-net=out/demo/net.few]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from fewbits import assign, codec, zoo
from fewbits.codec.coder import PROFILES
from fewbits.plan import Plan
from fewbits.report import provenance

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "codec.json"
# name, file, bits, share of zeros, seen in the design
SAFETENSORS = (
    ("resnet-56, 4 bit", "cifar10_resnet56.safetensors", 4, 0.8, True),
    ("resnet-20, 5 bit", "cifar10_resnet20.safetensors", 5, 0.6, True),
    ("ds-cnn-l, 3 bit", "kws_ds_cnn_l.safetensors", 3, 0.7, True),
    ("vgg16-bn, 4 bit", "cifar10_vgg16bn_fp16.safetensors", 4, 0.9, True),
    ("resnet-32, 2 bit", "cifar10_resnet32.safetensors", 2, 0.8, False),
    ("resnet-44, 4 bit", "cifar10_resnet44.safetensors", 4, 0.9, False),
    ("ds-cnn-m, 5 bit", "kws_ds_cnn_m.safetensors", 5, 0.5, False),
    ("vgg16-bn, 3 bit", "cifar10_vgg16bn_fp16.safetensors", 3, 0.97, False),
    ("resnet-8, 4 bit", "cifar10_resnet8_mlperftiny.safetensors", 4, 0.6, False),
)
ONNX = (
    ("text detector, 4 bit", "PP-OCRv6_det_small.onnx", 4, 0.9, True),
    ("text recognizer, 4 bit", "PP-OCRv6_rec_small.onnx", 4, 0.85, False),
    ("text detector, 3 bit", "PP-OCRv6_det_small.onnx", 3, 0.95, False),
    ("text recognizer, 5 bit", "PP-OCRv6_rec_small.onnx", 5, 0.6, False),
)


def quantized(weights: dict[str, torch.Tensor], bits: int, zeros: float) -> Plan:
    """ECQ with one lambda for the whole network, found by bisection to give about this share of zeros."""
    low, high = 0.0, 4.0
    plan = Plan({})
    for _ in range(9):
        lam = (low + high) / 2
        assigner = assign.ecq(bits=bits, lam=lam, zero_floor=0.5)
        plan, _ = assigner.update(weights, None, assigner.init(weights))
        low, high = (lam, high) if share_of_zeros(plan) < zeros else (low, lam)
    return plan


def share_of_zeros(plan: Plan) -> float:
    entries = plan.clustered.values()
    return sum(int((e.levels == 0).sum()) for e in entries) / sum(e.levels.numel() for e in entries)


def onnx_weights(path: Path) -> dict[str, torch.Tensor]:
    """Float matrices and kernels; a matrix of ONNX is [in, out], here [out, in] as everywhere else."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    found |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    return {
        name: torch.from_numpy(np.array(a.T if a.ndim == 2 else a, order="C"))
        for name, a in found.items()
        if a.dtype == np.float32 and a.ndim >= 2 and a.size >= 256
    }


def networks(options: argparse.Namespace) -> Iterator[tuple[str, Plan, bool]]:
    for given in options.few:
        model, _, path = given.partition("=")
        plan = codec.decode(files.read(path), zoo.build(model))
        yield f"{model}, trained", Plan(plan.clustered), model != "vgg16-bn"
    for name, file, bits, zeros, seen in SAFETENSORS:
        weights = {k: v.float() for k, v in load_file(options.weights / file).items() if v.dim() >= 2}
        yield name, quantized(weights, bits, zeros), seen
    for name, file, bits, zeros, seen in ONNX if options.onnx else ():
        yield name, quantized(onnx_weights(options.onnx / file), bits, zeros), seen


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = job()
    return time.process_time() - begin, result


def wall(job: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def measured(name: str, plan: Plan, seen: bool, options: argparse.Namespace) -> dict[str, Any]:
    levels = {f"{i:03d}": e.levels.numpy() for i, e in enumerate(plan.clustered.values())}
    plan = Plan(dict(zip(levels, plan.clustered.values(), strict=True)))
    count = sum(a.size for a in levels.values())
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "levels.npz", **levels)
        told = subprocess.run(
            [options.nnc, HERE / "codec_nnc.py", Path(folder) / "levels.npz", str(options.repeats)],
            capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
    nnc = json.loads(told.rsplit("RESULT ", 1)[1])
    assert nnc["exact"]
    like = {name: torch.empty(a.shape, device="meta") for name, a in levels.items()}
    row: dict[str, Any] = {
        "model": name,
        "seen": seen,
        "weights": count,
        "sparsity": 100 * share_of_zeros(plan),
        "nncodec": {"bytes": nnc["bytes"]},
    }
    for profile in PROFILES:
        encoding, decoding, data = [], [], b""
        for _ in range(options.repeats):
            seconds, data = timed(partial(codec.encode, plan, profile=profile, threads=1))
            encoding.append(seconds)
            seconds, back = timed(partial(codec.decode, data, like, threads=1))
            decoding.append(seconds)
            assert back.equals(plan)
        pairs = [[wall(partial(codec.decode, data, like, threads=n)) for n in (1, 2)] for _ in range(options.repeats)]
        sections = codec.measure(data)
        row["entropy_bytes"] = sum((s.entropy_bits or 0) * s.count for s in sections) / 8
        row[profile] = {
            "bytes": len(data),
            "bytes_ratio": len(data) / nnc["bytes"],
            "encode_speed_ratio": statistics.median(nnc["encoding"]) / statistics.median(encoding),
            "decode_speed_ratio": statistics.median(nnc["decoding"]) / statistics.median(decoding),
            "decode_two_threads_ratio": statistics.median(one / two for one, two in pairs),
        }
    return row


SCALE = """
import sys, time, torch
from fewbits import codec, files
from fewbits.plan import Clustered, Plan
count, profile, part = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def memory(what):  # in bytes, of this process since its peak was set back
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(what))
def start():
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    return memory("VmRSS"), time.process_time()
columns = 576 if count < 10**7 else 4608
rows = count // columns
levels = torch.empty(rows, columns // 9, 3, 3, dtype=torch.int16)
generator = torch.Generator().manual_seed(0)
for row in levels:  # row by row: making the data must not need more memory than coding it
    noise = torch.randn(row.shape, generator=generator)
    row.copy_((noise * noise.abs()).mul_(1.2).round_().clamp_(-7, 7))
plan = Plan({"w": Clustered(levels, 4, step=0.1)})
codec.encode(Plan({"w": Clustered(levels[:1], 4, step=0.1)}), profile=profile)
if part == "encode":
    before, begin = start()
    data = codec.encode(plan, profile=profile, threads=1)
    seconds = time.process_time() - begin
    open(sys.argv[4], "wb").write(data)
else:
    like = {"w": torch.empty(levels.shape, device="meta")}
    del plan, levels, row
    data = open(sys.argv[4], "rb").read()
    before, begin = start()
    back = codec.decode(data, like, threads=1)
    seconds = time.process_time() - begin
print(rows * columns, seconds, (memory("VmHWM") - before) / (2 * rows * columns))
"""


def scaling(counts: list[int]) -> list[dict[str, Any]]:
    """Time per weight and extra memory (in sizes of the int16 tensor) over the number of weights, in fresh processes.

    The encoder's is what it needs beside the tensor (its output included), the decoder's includes the tensor. Linux.
    """
    rows = []
    for profile in PROFILES:
        for count in counts:
            row: dict[str, Any] = {"profile": profile}
            with tempfile.TemporaryDirectory() as folder:
                for part in ("encode", "decode"):
                    told = subprocess.run(
                        [sys.executable, "-c", SCALE, str(count), profile, part, f"{folder}/x.few"],
                        capture_output=True, text=True, check=True,
                    ).stdout.split()  # fmt: skip
                    row |= {
                        "weights": int(told[0]),
                        f"{part}_nanoseconds_per_weight": 1e9 * float(told[1]) / int(told[0]),
                    }
                    row[f"{part}_extra_memory"] = float(told[2])
            rows.append(row)
            print(json.dumps(row), flush=True)
    base = {row["profile"]: row for row in reversed(rows) if row["weights"] < 2 * 10**6}
    for row in rows:  # times are ratios: to the same coder at 10**6 weights
        for part in ("encode", "decode"):
            key = f"{part}_nanoseconds_per_weight"
            row[f"{part}_time_per_weight_ratio"] = row[key] / base[row["profile"]][key]
    for row in rows:
        for part in ("encode", "decode"):
            del row[f"{part}_nanoseconds_per_weight"]
    return rows


def command(options: argparse.Namespace) -> str:
    """What was run, without the machine's folders."""
    given = ["--weights DIR", *(["--onnx DIR"] if options.onnx else [])]
    given += [f"--few {few.partition('=')[0]}=FILE" for few in options.few]
    return " ".join(["python benchmarks/codec.py", *given, f"--repeats {options.repeats} --largest {options.largest}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the safetensors files")
    parser.add_argument("--onnx", type=Path, help="folder with the text models of the package rapidocr 3.9.2")
    parser.add_argument("--few", action="append", default=[], help="network=file of a trained .few file")
    parser.add_argument("--nnc", default=sys.executable, help="interpreter that has nncodec")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=int, default=10**8, help="weights of the largest tensor of the scaling part")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, plan, seen in networks(options):
        rows.append(measured(name, plan, seen, options))
        print(json.dumps(rows[-1]), flush=True)
    totals = {
        profile: sum(r[profile]["bytes"] for r in rows) / sum(r["nncodec"]["bytes"] for r in rows)
        for profile in PROFILES
    }
    print(json.dumps(totals), flush=True)
    grown = scaling([10**n for n in range(5, 9) if 10**n <= options.largest])
    head = provenance("codec", command(options))
    options.result.write_text(
        json.dumps(head | {"total_bytes_ratio": totals, "rows": rows, "scaling": grown}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
