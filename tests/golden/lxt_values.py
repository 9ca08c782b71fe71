"""Relevance of three small language models as LXT computes it (AttnLRP), which ``lxt.json`` holds.

Made with lxt 2.1 beside transformers 5.24: ``python lxt_values.py FOLDER`` takes the folder of LXT's source.
Its stabiliser
of 1e-10 is taken out: with it LXT's own values move by up to 2e-4 of a tensor's largest, where an activation's input is
next to zero (2e-7 absolutely). Two numbers per weight, and those of the embedded tokens.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from relevance_values import numbers
from torch import nn

from benchmarks.networks import network, torchvision

STORED = Path(__file__).with_name("lxt.json")
MODELS = ("gpt2", "llama", "qwen3")


def small(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The model in float64, and its embedded tokens ``[2, 10, 32]``."""
    chosen = network(f"transformers/{name}")
    model = chosen.build().double()
    tokens = chosen.inputs()["input_ids"]
    return model, model.get_input_embeddings()(tokens).detach()


def chosen_of(logits: torch.Tensor) -> torch.Tensor:
    """Ones at the largest logit of the last token of each sample, zeros elsewhere."""
    last = logits.detach()[:, -1]
    start = torch.zeros_like(logits)
    start[:, -1] = torch.zeros_like(last).scatter(1, last.argmax(1, keepdim=True), 1.0)
    return start


def _values(name: str) -> dict[str, list[float]]:
    from lxt.efficient import monkey_patch, rules

    rules.identity_rule_implicit_fn.forward.__defaults__ = (1e-20,)  # what it adds to inputs before it divides by them
    place = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    monkey_patch(place, importlib.import_module(f"lxt.efficient.models.{name}").attnLRP)
    place.ALL_ATTENTION_FUNCTIONS = _Interface(place.ALL_ATTENTION_FUNCTIONS)
    model, embedded = small(name)
    embedded.requires_grad_(True)
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    logits.backward(chosen_of(logits))
    found = {"inputs": numbers(embedded * embedded.grad)}
    for path, p in model.named_parameters():
        if (
            p.dim() == 2
            and p.grad is not None
            and "embed" not in path
            and not path.endswith(("wte.weight", "wpe.weight"))
        ):
            found[path] = numbers(p * p.grad)
    return found


class _Interface(dict[str, Any]):
    """What transformers asks for attention by its name: LXT puts a plain dictionary there."""

    def get_interface(self, name: str, default: Any) -> Any:
        return self.get(name, default)


def _without_bert_and_vision() -> None:
    """LXT imports all of its models, two of which need what this version of transformers no longer has."""
    torchvision()  # transformers looks for it, and does not get over one of another build
    for name, values in {
        "bert": {"modeling_bert": ModuleType("bert"), "attnLRP": {}},
        "vit_torch": {"vision_transformer": ModuleType("vision"), "cp_LRP": {}},
    }.items():
        stub: Any = ModuleType(f"lxt.efficient.models.{name}")
        stub.__dict__.update(values)
        sys.modules[stub.__name__] = stub


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    _without_bert_and_vision()
    STORED.write_text(json.dumps({name: _values(name) for name in MODELS}, separators=(",", ":")) + "\n")
