"""The entropy coder against NNCodec (ISO/IEC 15938-17) on the same integers: bytes, and speed."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.unit import Place, Row, Unit
from fewbits import assign, codec, files, zoo
from fewbits.codec.coder import PROFILES
from fewbits.plan import Plan


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row."""
    chosen, repeats = unit.options, unit.options["repeats"]
    plan = levels_of(chosen, place)
    levels = {f"{i:03d}": e.levels.numpy() for i, e in enumerate(plan.clustered.values())}
    plan = Plan(dict(zip(levels, plan.clustered.values(), strict=True)))
    nnc = peer(levels, repeats, place.more.get("nnc", sys.executable))
    row: Row = unit.labels | {
        "seen": chosen["seen"], "weights": sum(a.size for a in levels.values()),
        "sparsity": 100 * share_of_zeros(plan), "nncodec": {"bytes": nnc["bytes"]},
    }  # fmt: skip
    like = {name: torch.empty(a.shape, device="meta") for name, a in levels.items()}
    for profile in PROFILES:
        encoding, decoding, data = [], [], b""
        for _ in range(repeats):
            seconds, data = timed(time.process_time, partial(codec.encode, plan, profile=profile, threads=1))
            encoding.append(seconds)
            seconds, back = timed(time.process_time, partial(codec.decode, data, like, threads=1))
            decoding.append(seconds)
            assert back.equals(plan)
        jobs = [partial(codec.decode, data, like, threads=n) for n in (1, 2)]
        pairs = [[timed(time.perf_counter, job)[0] for job in jobs] for _ in range(repeats)]
        row["entropy_bytes"] = sum((s.entropy_bits or 0) * s.count for s in codec.measure(data)) / 8
        row[profile] = {
            "bytes": len(data), "bytes_ratio": len(data) / nnc["bytes"],
            "encode_speed_ratio": statistics.median(nnc["encoding"]) / statistics.median(encoding),
            "decode_speed_ratio": statistics.median(nnc["decoding"]) / statistics.median(decoding),
            "decode_two_threads_ratio": statistics.median(one / two for one, two in pairs),
        }  # fmt: skip
    return [row]


def levels_of(chosen: Row, place: Place) -> Plan:
    """The levels of a `.few` file (``--more few=FILE``), of a safetensors file, or of an ONNX model."""
    if "few" in chosen:
        plan = codec.decode(files.read(place.more["few"]), zoo.build(chosen["few"]))
        return Plan(plan.clustered)
    file = place.weights / chosen["file"]
    tensors = onnx_weights(file) if file.suffix == ".onnx" else load_file(file)
    weights = {k: v.float() for k, v in tensors.items() if v.dim() >= 2}
    return quantized(weights, chosen["bits"], chosen["zeros"])


def quantized(weights: dict[str, torch.Tensor], bits: int, zeros: float) -> Plan:
    """ECQ with one lambda for the whole network, found by bisection to give about this share of zeros."""
    low, high, plan = 0.0, 4.0, Plan({})
    for _ in range(9):
        lam = (low + high) / 2
        assigner = assign.ecq(bits=bits, lam=lam, zero_floor=0.5)
        plan, _ = assigner.update(weights, None, assigner.init(weights))
        low, high = (lam, high) if share_of_zeros(plan) < zeros else (low, lam)
    return plan


def share_of_zeros(plan: Plan) -> float:
    return float((torch.cat([e.levels.flatten() for e in plan.clustered.values()]) == 0).double().mean())


def onnx_weights(path: Path) -> dict[str, torch.Tensor]:
    """Float matrices and kernels; a matrix of ONNX is [in, out], here [out, in] as everywhere else."""
    import onnx  # only these rows need it
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")]
    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    found |= {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in constants}
    return {
        name: torch.from_numpy(np.array(a.T if a.ndim == 2 else a, order="C"))
        for name, a in found.items()
        if a.dtype == np.float32 and a.ndim >= 2 and a.size >= 256
    }


def peer(levels: dict[str, Any], repeats: int, python: str) -> dict[str, Any]:
    """NNCodec's bytes and seconds on the same integers, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "levels.npz", **levels)
        command = [python, Path(__file__).with_name("nncodec_peer.py"), Path(folder) / "levels.npz", str(repeats)]
        env = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    found: dict[str, Any] = json.loads(told.rsplit("RESULT ", 1)[1])
    assert found["exact"]
    return found


def timed(clock: Callable[[], float], job: Callable[[], Any]) -> tuple[float, Any]:
    begin, result = clock(), job()
    return clock() - begin, result
