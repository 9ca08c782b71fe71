"""Cycles that Vela and ``price`` give for differently compressed versions of one network (extra ``ethos``)."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewbits as fb
from benchmarks.unit import Row
from fewbits.deploy.vela import to_vela
from fewbits.hardware import machine_of, price
from fewbits.job import _sources as sources
from fewbits.pipeline import layers_of
from fewbits.recipe import Recipe, make
from fewbits.recipe.sections import Network


def versions(network: str, shape: list[int], machine: str, shares: list[float], lams: list[float]) -> list[Row]:
    """A row for each version: channels cut to a share of the parameters, then ECQ at a lambda or, last, INT8.

    Nothing is trained: cycles depend on shapes, levels and zeros alone.

    Args:
        network: as a recipe names it. shape: of a sample.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, *shape, generator=generator)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(16)]
    found = []
    for share in shares:
        for lam in (*lams, None):
            small = fb.compress(spread(made(network), generator), batches, recipe=recipe_of(share, lam))
            theirs = compiled(small.into(made(network)), x[:4], small, machine)
            ours = price(layers_of(small.plan, made(network), tuple(shape)), machine_of(machine))
            found.append({"vela": theirs, "price": ours.cycles, "macs": ours.macs})
    return found


def made(network: str) -> nn.Module:
    """An untrained network, the same each time."""
    return sources.network(Network(name=network), seed=0).network


def recipe_of(share: float, lam: float | None) -> Recipe:
    """Channels by magnitude, and no training."""
    values: dict[str, Any] = {"assign": {"method": "int8"}, "train": None}
    if lam is not None:
        values |= {"assign": {"method": "ecq", "lam": lam}, "activations": {"calibrate": 4}}
    if share < 1:
        values["channels"] = {"parameters": share, "criterion": "magnitude", "measured": False, "train": None}
    return make(values)


def compiled(net: nn.Module, inputs: Tensor, small: fb.Compressed, machine: str) -> int:
    """Vela's cycles."""
    with tempfile.TemporaryDirectory() as folder:
        return to_vela(net, inputs, Path(folder) / "net.tflite", plan=small.plan, accelerator=machine).cycles


@torch.no_grad()
def spread(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Channels of different sizes, as trained networks have them."""
    for weight in model.parameters():
        if weight.dim() > 1:
            size = torch.randn(weight.shape[0], *[1] * (weight.dim() - 1), generator=generator)
            weight.mul_(torch.exp(0.5 * size))
    return model.eval()
