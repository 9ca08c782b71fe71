"""Paths that are learnt: each task chooses its segments while the network trains, within a budget of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import BudgetError, RecipeError
from fewbits.multitask._heads import SharedHead
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._paths import Paths
from fewbits.multitask._training import train_tasks
from fewbits.recipe.training import Training
from fewbits.task import Task

SHARP = 3.0
"""Log-odds per unit of a choice's parameter: faster than weights, and slow enough not to settle before they learn."""


class PathChoice(SegmentNet):
    """A network whose tasks choose: all segments compute, and a task takes ``per_layer`` of each layer.

    While training, those with the largest log-odds plus Gumbel noise are taken, else those with the largest. The
    gradient is that of the softmax (straight-through). Needs ``modules / per_layer`` times the work of a path.

    Args:
        block, heads, options: as of :class:`SegmentNet`, without ``merge``: what is taken is averaged.
        temperature: of the softmax.
    """

    def __init__(
        self,
        block: Callable[[int], nn.Module],
        names: Sequence[str],
        layers: int,
        modules: int,
        per_layer: int,
        heads: Mapping[str, nn.Module] | SharedHead,
        *,
        temperature: float = 1.0,
        **options: Any,
    ) -> None:
        if not 1 <= per_layer <= modules:
            raise RecipeError(f"a path has 1 to {modules} segments in a layer of {modules}, got {per_layer}")
        everywhere = torch.ones(layers, modules, dtype=torch.bool)
        super().__init__(block, Paths(dict.fromkeys(names, everywhere)), heads, **options)
        self.per_layer, self.temperature = per_layer, temperature
        self.choices = nn.ParameterDict({name: nn.Parameter(torch.zeros(layers, modules)) for name in self.tasks})

    def _merged(self, parts: list[Tensor], name: str, layer: int) -> Tensor:
        odds = SHARP * self.choices[name][layer]
        noise = -torch.empty_like(odds).exponential_().log() if self.training else torch.zeros_like(odds)
        soft = self.per_layer * ((odds + noise) / self.temperature).softmax(0)
        taken = torch.zeros_like(soft).scatter(0, (odds + noise).topk(self.per_layer).indices, 1.0)
        weights = taken + soft - soft.detach()
        merged = parts[0] * weights[0]
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            merged = merged + part * weight
        return merged / self.per_layer

    def sizes(self) -> Tensor:
        """Parameters of every segment: ``[layers, modules]``."""
        rows = [[sum(p.numel() for p in part.parameters()) for part in layer.values()] for layer in self.layers]  # type: ignore[operator]
        return torch.tensor(rows, dtype=torch.float64)

    def shares(self) -> Tensor:
        """How likely each segment is taken by each task without noise: ``[tasks, layers, modules]``."""
        odds = SHARP * torch.stack([self.choices[name] for name in self.tasks])
        return (self.per_layer * (odds / self.temperature).softmax(-1)).clamp(max=1.0)

    def expected(self) -> Tensor:
        """Parameters of segments that some task takes, were tasks to choose at random by :meth:`shares`."""
        used = 1 - (1 - self.shares()).clamp_min(1e-6).log().sum(0).exp()
        return (used * self.sizes().to(used)).sum()

    def chosen(self, budget: int | None = None) -> Paths:
        """The paths as chosen, of at most ``budget`` parameters of segments.

        What is over budget is given up segment by segment: each time the one that takes least from the tasks' choices
        per parameter, of those without which every task still has enough in its layer.

        Raises:
            BudgetError: ``per_layer`` segments of each layer are more than the budget.
        """
        odds = torch.stack([self.choices[name].detach().cpu().double() for name in self.tasks])
        shares, sizes = self.shares().detach().cpu().double(), self.sizes()
        there = torch.ones(sizes.shape, dtype=torch.bool)
        while True:
            paths = _taken(odds.masked_fill(~there, -torch.inf), self.per_layer)
            used = paths.any(0)
            if budget is None or float(sizes[used].sum()) <= budget:
                return Paths(dict(zip(self.tasks, paths, strict=True)))
            loss = (shares * paths).sum(0) / sizes.clamp_min(1.0)
            free = used & (there.sum(1, keepdim=True) > self.per_layer)
            if not bool(free.any()):
                raise BudgetError(
                    f"{self.per_layer} segments of each layer have {int(sizes[used].sum()):,} parameters; the budget "
                    f"is {budget:,}: give more, or a smaller per_layer"
                )
            first = int(loss.masked_fill(~free, torch.inf).argmin())
            there.view(-1)[first] = False


def _taken(odds: Tensor, count: int) -> Tensor:
    best = odds.topk(count, dim=-1).indices
    return torch.zeros(odds.shape, dtype=torch.bool).scatter(-1, best, True)


def learn_paths(
    net: PathChoice,
    loaders: Mapping[str, Any],
    training: Training,
    *,
    seed: int,
    budget: int | None = None,
    strength: float = 1.0,
    tasks: Mapping[str, Task] | None = None,
) -> Paths:
    """Train a network whose tasks choose, and say what they chose: paths of at most ``budget`` parameters of segments.

    Args:
        net: trained in place. loaders, training, seed, tasks: as of :func:`train_tasks`.
        budget: of parameters of segments, of all tasks together. strength: of the penalty on what is expected beyond.

    Raises:
        BudgetError: ``per_layer`` segments of each layer are more than the budget.
    """
    net.chosen(budget)  # refused before the work

    def beyond() -> Tensor:
        assert budget is not None
        return strength * (net.expected() / budget - 1).clamp_min(0.0)

    train_tasks(net, loaders, training, seed=seed, tasks=tasks, penalty=None if budget is None else beyond)
    return net.chosen(budget)
