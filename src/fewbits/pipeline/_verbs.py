"""What the command line does with a file, in Python: inspect, verify, explain, export, cost."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewbits import codec, deploy
from fewbits import recipe as recipes
from fewbits.attach.plain import filled_in, plain_copy, unwrapped
from fewbits.codec import Base, Summary
from fewbits.deploy.onnx import to_onnx
from fewbits.deploy.tflite import to_tflite
from fewbits.errors import RecipeError, did_you_mean
from fewbits.hardware import Layer, Machine, Operation, Price, layers, machine_of, operations, price
from fewbits.measure.relevance import Rules
from fewbits.ops.swap import swap
from fewbits.pipeline._candidates import Evaluate
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._run import scoring
from fewbits.pipeline._sources import Opened, opened
from fewbits.pipeline.restore import decoded, integer, network_of, restore
from fewbits.plan import Plan
from fewbits.report import Explanation
from fewbits.report.explain import Vocabulary
from fewbits.report.explain import explain as explain_networks
from fewbits.task import Task, fed, task_of
from fewbits.task.batches import Inputs
from fewbits.task.feed import Feed

Source = Compressed | bytes | str | os.PathLike[str]
"""A compression, the bytes of a ``.few`` file, or its path."""

FORMATS = (".onnx", ".safetensors", ".nnc", ".tflite")


BaseGiven = Source | Base | None
"""What a file's differences are to."""


def _opened(source: Source, base: BaseGiven, member: str | None, like: nn.Module | None = None) -> Opened:
    if isinstance(base, Compressed):
        base = base.data
    if isinstance(source, Compressed):
        return opened(source.data, source.base if base is None else base, member, like)
    return opened(source, base, member, like)


def _task(task: Task | str | dict[str, Any] | None) -> Task:
    if isinstance(task, Task):
        return task
    chosen = recipes.make({} if task is None else {"task": task}).task
    return task_of(chosen.name, chosen.options)


def inspect(source: Source, *, base: BaseGiven = None, member: str | None = None) -> Summary:
    """What a file holds: tensors, bits, bytes. Checks every checksum; needs no network.

    Args:
        base: of a file of differences, what these are to; without it only the file as a whole is told of, and which
            base it needs. member: of a file of several networks, which one.

    Raises:
        FileError: missing, damaged or hostile file, or another base.
    """
    data, found = _opened(source, base, member)
    return codec.inspect(data, found)


@dataclass(frozen=True)
class Verified:
    """A file that decodes into a network.

    Attributes:
        bytes: of the file. tensors: how many it holds. score: what ``evaluate`` says of the network, or ``None``.
    """

    bytes: int
    tensors: int
    score: float | None


def verify(
    source: Source,
    like: nn.Module,
    *,
    evaluate: Evaluate | Iterable[Any] | None = None,
    metric: str | None = None,
    task: Task | str | dict[str, Any] | None = None,
    base: BaseGiven = None,
    member: str | None = None,
) -> Verified:
    """Decode a file into its network, and say how good that is. ``like`` is not changed.

    Args:
        like: an untrained network of the same class. evaluate, metric, task: as of :func:`fewbits.compress`.
        base, member: as of :func:`inspect`.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or a file of another network (MismatchError).
    """
    skeleton = filled_in(_copied(like))
    data, found = _opened(source, base, member, skeleton)
    network, plan = restore(data, skeleton, found)
    score, scale = scoring(evaluate, metric, _task(task), network, Feed(network))
    return Verified(len(data), len(plan), None if score is None else scale.shown(score(network)))


def cost(
    source: Source | Plan,
    model: nn.Module,
    inputs: Any,
    *,
    machine: str | os.PathLike[str] | Machine,
    input_density: float | None = None,
    batch: int = 1,
    base: BaseGiven = None,
    member: str | None = None,
) -> Price:
    """Time, energy and memory traffic of a compressed network on a machine, from its own zeros and levels.

    Args:
        source: what was compressed, or its plan. model: a network of the class, as it was before. It is not changed.
        inputs: the shape of one sample, without the batch; or inputs of a batch, whose zeros are then counted in the
            compressed network, layer by layer.
        machine: its name (``fewbits machines``), a YAML file, or a :class:`~fewbits.hardware.Machine`.
        input_density: with a shape, the share of every layer's inputs that are not zero; default: all.
        batch: samples that go through a layer together; the figures are of one.
        base, member: as of :func:`inspect`. A network of differences has float weights, and is priced as that.

    Raises:
        RecipeError: no such machine, a description that is none, or inputs that cannot be counted.
        UnsupportedError: a layer that does not fit the machine, or a network that cannot be read.
        FileError: as of :func:`verify`.
    """
    found = machine_of(machine if isinstance(machine, Machine) else os.fspath(machine))
    like = filled_in(_copied(model))
    if isinstance(source, Plan):
        plan = source
    else:
        data, origin = _opened(source, base, member, like)
        plan = decoded(data, like, origin)
    whole = plan.whole()
    records = layers_of(whole, like, inputs, input_density)
    return price(records, found, batch, operations_of(whole, like, inputs))


def layers_of(plan: Plan, like: nn.Module, inputs: Any, input_density: float | None = None) -> tuple[Layer, ...]:
    """The layers of a compressed network; see :func:`cost`. Real inputs run through its own weights.

    Args:
        like: a plain network of the class, as it was before channels were removed.
    """
    if not isinstance(inputs, Tensor | Inputs):
        return layers(like, inputs, plan, input_density=input_density)
    if integer(plan, like):
        raise RecipeError(
            "inputs of a network with integer activations cannot be counted: give the shape of a sample, input_density"
        )
    return layers(network_of(plan, like), inputs, plan, input_density=input_density)


def operations_of(plan: Plan, like: nn.Module, inputs: Any) -> tuple[Operation, ...]:
    """The non-linear operations of a compressed network, and what is computed in their place; see :func:`cost`.

    Args:
        like: as of :func:`layers_of`. With integer activations, values of removed channels are counted, too.
    """
    narrower = plan.channels is not None and not integer(plan, like)
    net = network_of(plan, like) if narrower else _copied(like)
    swap(net, {})  # what is called counts, not what stands in for it
    return operations(net, inputs, plan.approximations)


def explain(
    model: nn.Module,
    source: Source,
    batches: Iterable[Any],
    *,
    task: Task | str | dict[str, Any] | None = None,
    rules: Rules | str = "plus",
    classes: tuple[str, ...] | None = None,
    vocabulary: Vocabulary | None = None,
    base: BaseGiven = None,
    member: str | None = None,
) -> Explanation:
    """Which weights of a network mattered, and what its compression kept of them.

    Args:
        model: the float network that was compressed. source: what became of it.
        batches: a few of them; images or texts of the first one get heat maps, one for each of at most eight classes.
        task: as of :func:`fewbits.compress`. rules: of relevance. classes: their names.
        vocabulary: of texts, the text of each token.
        base, member: as of :func:`inspect`.

    Raises:
        UnsupportedError: an operation without a rule of relevance. Else as :func:`verify`.
    """
    before = plain_copy(model).eval()
    data, found = _opened(source, base, member, before)
    after, plan = restore(data, before, found)
    known = list(islice(fed(before, batches, "the data"), 64))
    shown, targets = known[0] if known and isinstance(known[0].targets, Tensor) else (None, None)
    return explain_networks(
        before, after, plan, known, shown, targets,
        classes=classes, vocabulary=vocabulary, rules=rules, task=_task(task),
    )  # fmt: skip


def export(
    source: Source,
    path: str | os.PathLike[str],
    *,
    like: nn.Module | None = None,
    inputs: Any = None,
    base: BaseGiven = None,
    member: str | None = None,
) -> int:
    """Write the network in a file in another format, by the suffix of ``path``; returns the bytes written.

    ``.safetensors`` has float weights, ``.nnc`` is ISO/IEC 15938-17, ``.onnx`` runs in ONNX Runtime, and ``.tflite``,
    of networks in integer form, in LiteRT and on microcontrollers.

    Args:
        like, inputs: for ONNX and TFLite an untrained network of the same class, and inputs that both are compared on.
            For the others the network says how much the file may hold; without it 2^18 numbers, and 256 for each byte.
        base, member: as of :func:`inspect`. What is written holds the whole network, without differences.

    Raises:
        FileError: as :func:`verify`.
        RecipeError: another suffix, or one of these without a network. ExportError: the network cannot be exported.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise RecipeError(
            f"{target.name}: the suffix says the format{did_you_mean(target.suffix, FORMATS)} ({', '.join(FORMATS)})"
        )
    if target.suffix in (".onnx", ".tflite"):
        if like is None or inputs is None:
            name = "ONNX" if target.suffix == ".onnx" else "TFLite"
            raise RecipeError(f"{name} needs like=, an untrained network of the class, and inputs= to compare it on")
        skeleton = filled_in(_copied(like))
        data, found = _opened(source, base, member, skeleton)
        network, plan = restore(data, skeleton, found)
        if target.suffix == ".tflite":
            return to_tflite(network, inputs, target, plan=plan.whole()).bytes
        return to_onnx(network, inputs, target, plan=plan.whole()).bytes
    whole = None if like is None else filled_in(_copied(like))
    data, found = _opened(source, base, member, whole)
    if whole is None:
        plan = codec.decode(data, codec.shapes(data, base=found), base=found).whole()
    else:
        plan = decoded(data, whole, found).whole()
    if target.suffix == ".nnc":
        return deploy.to_nnc(plan, target).bytes
    return deploy.to_safetensors(plan, target)


def _copied(like: nn.Module) -> nn.Module:
    return copy.deepcopy(unwrapped(like))
