"""Steps and centroids, trained beside the optimizer of a loop of one's own."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from fewbits.errors import RecipeError
from fewbits.train.optimizers import SGD, Adam

KEPT: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("momentum", "dampening", "nesterov"),
    torch.optim.Adam: ("betas", "eps", "amsgrad"),  # AdamW is one, too
}
"""Options of the loop's optimizer that grids are stepped with; beside all others they are stepped by Adam."""


class GridOptimizer:
    """Steps what grids are made of each time that another optimizer steps, at rates that are relative to their sizes.

    Grids are in the first group of that optimizer, so that their gradients are unscaled, clipped and set to zero with
    all others. They leave it while it steps or is saved. So a schedule or a closure that was made before finds the
    groups it knew. Rates fall as the first group's do, and never go beyond those that were given.

    Args:
        outer: of the loop. groups: of parameters, each with its rate, as of :func:`finetuning_groups`.

    Raises:
        RecipeError: as :func:`with_hooks`.
    """

    def __init__(self, outer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
        self.outer = with_hooks(outer)
        self.grids: list[nn.Parameter] = [grid for group in groups for grid in group["params"]]
        self.first = float(self.shared["lr"])
        kind = next((base for base in KEPT if isinstance(self.outer, base)), torch.optim.Optimizer)
        kept = {key: self.shared[key] for key in (*KEPT.get(kind, ()), "maximize") if key in self.shared}
        self.own: torch.optim.Optimizer = (SGD if kind is torch.optim.SGD else Adam)(groups, **kept)
        for group in self.own.param_groups:
            group["initial_lr"] = group["lr"]
        self._join()
        outer = self.outer
        self._hooks = [
            outer.register_step_pre_hook(lambda *_: self._leave()),
            outer.register_step_post_hook(lambda *_: self._step()),
            # What is saved of the loop's optimizer fits it without grids, too.
            outer.register_state_dict_pre_hook(lambda *_: self._leave()),
            outer.register_state_dict_post_hook(lambda *_: self._join()),
            outer.register_load_state_dict_pre_hook(lambda *_: self._leave()),
            outer.register_load_state_dict_post_hook(lambda *_: self._join()),
        ]

    @property
    def shared(self) -> dict[str, Any]:
        """The group that they are in between steps."""
        return self.outer.param_groups[0]

    @property
    def share(self) -> float:
        """The rate of the first group, relative to its peak."""
        peak = self.shared.get("max_lr", self.shared.get("initial_lr", self.first))
        return min(1.0, float(self.shared["lr"]) / float(peak)) if float(peak) else 1.0

    def close(self) -> None:
        """Leave the loop's optimizer as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._leave()

    def _join(self) -> None:
        self._leave()
        self.shared["params"].extend(self.grids)  # in place: LBFGS keeps the list itself

    def _leave(self) -> None:
        mine = {id(grid) for grid in self.grids}
        self.shared["params"][:] = [parameter for parameter in self.shared["params"] if id(parameter) not in mine]

    def _step(self) -> None:
        for group in self.own.param_groups:
            group["lr"] = group["initial_lr"] * self.share
        self.own.step()
        self._join()


def with_hooks(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, or the one inside of accelerate's that steps.

    Raises:
        RecipeError: an optimizer without the hooks that those of torch have.
    """
    inner = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    if not hasattr(inner, "_optimizer_state_dict_pre_hooks"):  # torch's constructor never ran
        raise RecipeError(
            f"{type(inner).__name__} has no hooks of torch.optim.Optimizer, so step sizes cannot be trained with it: "
            "leave optimizer= out, and they stay as they are"
        )
    return inner
