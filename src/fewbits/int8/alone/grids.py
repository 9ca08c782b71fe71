"""What a network in integers alone keeps: its quantizers, and the grids of its weights."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.int8.affine_grid import range_parameters, to_levels, weight_scales
from fewbits.int8.alone.tape import Tape
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.plan import Affine, Plan

_running = threading.local()
NEAR = 2.0**-12  # of a level: how far float32 may put what is on a grid beside it


def inside() -> list[str]:
    """Paths of the modules that are computing, in this thread."""
    found: list[str] = _running.__dict__.setdefault("paths", [])
    return found


class Grids(nn.Module):
    """The quantizers of a network, by the place of their call; a call for a name in the order of computation.

    Attributes:
        growing: whether places are being found.
        tape: where operations are noted. scales: of each weight that a file has as integers.
    """

    def __init__(self, quantizer: type[nn.Module]) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.growing = False
        self.tape: Tape | None = None
        self.scales: dict[str, Tensor] = {}

    @property
    def path(self) -> str:
        """Of the module that is computing; empty for the network itself."""
        found = inside()
        return found[-1] if found else ""

    def at(self, name: str, device: torch.device) -> nn.Module:
        """The quantizer of a name."""
        if name not in self._modules:
            if not self.growing:
                raise UnsupportedError(
                    f"{self.path or 'the network'}: this pass computes what the calibration did not ({name}); a form "
                    "in integers alone takes the same way for all inputs"
                )
            self.add_module(name, self.quantizer().to(device))
        return self._modules[name]  # type: ignore[return-value]

    def learnt(self, plan: Plan) -> None:
        """Take over the scales of a plan's integer weights, under all their names."""
        known = {name: entry.scales for name, entry in plan.items() if isinstance(entry, Affine)}
        self.scales = known | {other: known[name] for other, name in plan.aliases.items() if name in known}

    def weight(self, net: nn.Module, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (int64) and scales (float32 [channels]) of what a layer computes with.

        Those of the plan, or of what is held in training; of others, and of parts of these, its nearest.
        """
        flat = weight.detach()
        for scales in self._known(net):
            if len(scales) == len(flat):
                shape = [-1] + [1] * (flat.dim() - 1)
                levels = flat / scales.to(flat.device).view(shape)
                nearest = levels.round()
                if bool(((levels - nearest).abs() <= NEAR).all()) and bool((nearest.abs() <= 127).all()):
                    return nearest.to(torch.int64), scales
        scales = weight_scales(flat)
        return to_levels(flat, scales).to(torch.int64), scales.cpu()

    def _known(self, net: nn.Module) -> list[Tensor]:
        module = net.get_submodule(self.path)
        found = []
        for attribute in ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            chain = getattr(module, "parametrizations", {})
            if attribute in chain:
                found += [held.scales.cpu() for held in chain[attribute] if hasattr(held, "scales")]
            name = f"{self.path}.{attribute}".lstrip(".")
            if name in self.scales:
                found.append(self.scales[name])
        if isinstance(module, nn.MultiheadAttention):  # which computes with the weight of its last layer itself
            chain = getattr(module.out_proj, "parametrizations", {})
            if "weight" in chain:
                found += [held.scales.cpu() for held in chain["weight"] if hasattr(held, "scales")]
            if f"{self.path}.out_proj.weight".lstrip(".") in self.scales:
                found.append(self.scales[f"{self.path}.out_proj.weight".lstrip(".")])
        return found


def grid(quantizer: nn.Module) -> tuple[float, int]:
    """Scale and zero point as they stand."""
    if isinstance(quantizer, RangedQuantizer):
        scale, zero = range_parameters(quantizer.low.detach(), quantizer.high.detach())
        return float(scale), int(zero)
    return float(quantizer.scale), int(quantizer.zero_point)  # type: ignore[arg-type]
