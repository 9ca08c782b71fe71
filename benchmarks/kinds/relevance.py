"""Relevance of the networks of the list: whether it is conserved, and whether any weight is left without."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.networks import Network, networks
from benchmarks.unit import Place, Row, Unit
from fewbits.errors import UnsupportedError
from fewbits.measure.relevance import COMPOSITES, Epsilon, Rules, Tape, propagate

SHARP = 1e-12  # stabilisers, so that they take nothing noticeable
EXACT = dataclasses.replace(COMPOSITES["epsilon"], dense=Epsilon(SHARP), conv=Epsilon(SHARP), eps=SHARP)


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each network of a library, in float64 and evaluation mode.

    ``total`` is the relevance of inputs, additive parameters and constants over that of the output, with softmax and
    gates as constants; ``without`` counts weights whose relevance is zero everywhere, under each default.
    """
    torch.set_num_threads(1)
    return [row_of(chosen, unit.labels) for chosen in networks() if chosen.library == unit.labels["library"]]


def row_of(chosen: Network, labels: Row) -> Row:
    """What is found of one network, or the message that refuses it."""
    row: Row = labels | {"method": "lrp", "model": chosen.label}
    model = unsettled(chosen.build().double())
    inputs = chosen.inputs(dtype=torch.float64)
    try:
        row |= {"total": total(model, lambda: chosen.run(model, inputs))}
        for name in ("epsilon", "plus"):
            row |= {f"without_{name}": without(model, lambda: chosen.run(model, inputs), COMPOSITES[name])}
    except UnsupportedError as error:
        row |= {"error": str(error).partition(" (made at")[0]}
    return row


def unsettled(model: nn.Module) -> nn.Module:
    """The model with normalisations and biases that do something, as after training."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() < 2 or not bool(p.any()):
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def start_of(outputs: Tensor) -> Tensor:
    """The largest output of each sample, and zeros."""
    flat = outputs.detach().flatten(1)
    most = flat.argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, most, flat.gather(1, most)).view_as(outputs)


def total(model: nn.Module, run: Callable[[], Tensor], attention: str = "detach") -> float:
    """What arrives, over what started; 1 where nothing is lost."""
    tape = Tape(model, account=True)
    with tape.watch():
        outputs = run()
    start = start_of(outputs)
    rules = dataclasses.replace(EXACT, attention=attention)
    found = propagate(outputs, start, rules, tape, inputs=True, account=True)
    arrived = sum(found.biases.values()) + sum(found.lost.values())
    arrived += sum(float(r.sum()) for r in found.sources)
    return arrived / float(start.sum())


def without(model: nn.Module, run: Callable[[], Tensor], rules: Rules) -> int:
    """How many weights of layers have no relevance at all."""
    tape = Tape(model)
    with tape.watch():
        outputs = run()
    found = propagate(outputs, start_of(outputs), rules, tape).weights
    return sum(not bool(r.any()) for r in found.values())
