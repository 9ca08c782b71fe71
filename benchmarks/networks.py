"""The list of foreign networks: each by its name, made with random weights, and fed."""

import importlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

LIST = Path(__file__).with_name("networks.yaml")
# What torchvision's own library registers; a build for another torch lacks it, and then does not even import.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@dataclass(frozen=True)
class Network:
    """One of the list.

    Attributes:
        library, name: where it comes from, and what it is called there. row: what the list says besides.
    """

    library: str
    name: str
    row: dict[str, Any]

    @property
    def label(self) -> str:
        """``library/name``, by which it is asked for."""
        return f"{self.library}/{self.name}"

    def build(self, seed: int = 0) -> nn.Module:
        """The network with random weights, in evaluation mode; ImportError if its library is missing."""
        torch.manual_seed(seed)
        options = self.row.get("options", {})
        match self.library:
            case "torchvision":
                return torchvision().models.get_model(self.name, weights=None, **options).eval()
            case "timm":
                torchvision()
                return importlib.import_module("timm").create_model(self.name, **options).eval()
            case "transformers":
                with suppress(ImportError):  # transformers looks for it, and does not get over a broken one
                    torchvision()
                found = importlib.import_module("transformers")
                config = getattr(found, self.row["config"])(**self.row["says"])
                if "attention" in self.row:
                    config._attn_implementation = self.row["attention"]
                place = importlib.import_module(self.row["module"]) if "module" in self.row else found
                return getattr(place, self.row["make"])(config).eval()
        own = importlib.import_module("benchmarks.own_networks")
        return getattr(own, self.row["make"])(**options).eval()

    def inputs(self, samples: int = 2, dtype: torch.dtype = torch.float32, seed: int = 1) -> dict[str, Tensor]:
        """What its forward takes, by name; a single unnamed input is called ``""``."""
        generator = torch.Generator().manual_seed(seed)
        given = self.row["input"]
        shapes = given if isinstance(given, dict) else {"": given}
        return {name: _drawn(shape, samples, dtype, generator) for name, shape in shapes.items()}

    @staticmethod
    def run(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Its first output: scores, or the last hidden state."""
        outputs = model(inputs[""]) if "" in inputs else model(**inputs)
        if isinstance(outputs, Tensor):
            return outputs
        first = outputs[0]
        assert isinstance(first, Tensor)
        return first


def networks() -> list[Network]:
    """The whole list, in its order."""
    rows = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return [Network(library, row["name"], row) for library, own in rows.items() for row in own]


def network(label: str) -> Network:
    """One of them, by ``library/name``; KeyError if there is none."""
    return {found.label: found for found in networks()}[label]


@cache
def torchvision() -> Any:
    """torchvision, also where its compiled part is of another build: no classifier needs that."""
    with suppress(ImportError, RuntimeError):
        return importlib.import_module("torchvision")
    for operator in _operators():
        torch.library.define(f"torchvision::{operator.partition('(')[0]}", operator[operator.index("(") :])
    return importlib.import_module("torchvision")


def _operators() -> Iterator[str]:
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator.partition("(")[0]):
            yield operator


def _drawn(shape: Any, samples: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if isinstance(shape, dict):
        return torch.randint(1, shape["of"], (samples, shape["tokens"]), generator=generator)
    return torch.randn(samples, *shape, generator=generator).to(dtype)
