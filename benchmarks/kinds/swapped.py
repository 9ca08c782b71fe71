"""Time of a network with cheaper operations against the original, in torch and in ONNX Runtime, taking turns."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.own_networks import Blocks
from benchmarks.unit import Place, Row, Unit
from fewbits.deploy.latency import BURST, WARM_UP, measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.ops.choose import chosen
from fewbits.ops.places import places
from fewbits.ops.swap import swap

OPERATIONS = ("gelu", "softmax", "layer_norm")
Key = tuple[str, str]
"""What is swapped, and by which kind."""


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for every operation, kind and runtime: time over the original's, both medians of one run.

    Options of the experiment: ``width``, ``tokens``, ``layers`` of the network; ``batch``; ``rounds``; ``fits``: what
    GELU, softmax and normalisation are fitted with.
    """
    asked = unit.options
    torch.manual_seed(unit.seed)
    original = Blocks(asked["width"], asked["layers"]).eval()
    inputs = torch.randn(asked["batch"], asked["tokens"], asked["width"])
    networks: dict[Key, nn.Module] = {("none", "original"): original}
    known = places(original, [inputs])
    fitted = chosen(dict(zip(OPERATIONS, asked["fits"], strict=True)), known)
    for name in (*OPERATIONS, "all three"):
        made = copy.deepcopy(original)
        swap(made, {one: form for one, form in fitted.items() if name in (one, "all three")})
        networks[name, unit.labels["kind"]] = made
    off = {key: distance(net, original, inputs) for key, net in networks.items()}
    timed: dict[str, dict[Key, float]] = {"torch": in_torch(networks, inputs, asked["rounds"]), "ONNX Runtime": {}}
    file, models = place.work / f"{unit.key}.onnx", dict[str, bytes]()
    for key, net in networks.items():
        to_onnx(net, inputs, file)
        models["/".join(key)] = file.read_bytes()
    for row in measure_latency(models, batches=[asked["batch"]], rounds=asked["rounds"]):
        operation, _, kind = row.name.partition("/")
        timed["ONNX Runtime"][operation, kind] = row.seconds
    return [
        unit.settings | {
            "task": "swapped", "runtime": runtime, "operation": key[0], "method": key[1], "seconds": seconds,
            "versus": "original", "times_time": seconds / times["none", "original"], "difference": off[key],
            "batch": asked["batch"], "threads": torch.get_num_threads(),
        }
        for runtime, times in timed.items()
        for key, seconds in times.items()
    ]  # fmt: skip


@torch.no_grad()
def distance(net: nn.Module, original: nn.Module, inputs: Tensor) -> float:
    """Largest difference of outputs, over the largest output."""
    wanted = original(inputs)
    return float((net(inputs) - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def in_torch(
    networks: Mapping[tuple[str, str], nn.Module], inputs: Tensor, rounds: int
) -> dict[tuple[str, str], float]:
    """Median seconds of a call, by bursts as those of :func:`fewbits.deploy.latency.measure_latency`."""
    times: dict[Key, list[float]] = {key: [] for key in networks}
    for turn in range(-WARM_UP, rounds):
        keys: Iterable[Key] = networks if turn % 2 else reversed(networks)
        for key in keys:
            taken = burst(networks[key], inputs)
            times[key] += taken if turn >= 0 else []
    return {key: float(np.median(taken)) for key, taken in times.items()}


def burst(call: Callable[[Tensor], Tensor], inputs: Tensor) -> list[float]:
    call(inputs)
    taken: list[float] = []
    while sum(taken) < BURST:
        begin = time.perf_counter()
        call(inputs)
        taken.append(time.perf_counter() - begin)
    return taken
