"""PackNet: each task keeps some weights of a shared network for good, and the next one gets what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError
from fewbits.multitask._keeping import Keeping
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._norms import NORMALISING, norms_in
from fewbits.train import Callback


class PackNet(Keeping):
    """Weights of earlier tasks are used and never changed; a later task learns with those that are free.

    A task learns with all free weights of its path. Then the smallest of each tensor become zero and free again, and
    the others go on learning until the end (Mallya and Lazebnik, arXiv 1711.05769, section 3). What has no weights to
    share out (biases, normalisation that tasks share with its statistics) stays as the first task leaves it. What is
    frozen is never touched. A task is used without the weights of later ones, so it is never forgotten.

    Args:
        keep: share of a tensor's free weights that a task keeps; default: what gives each task to come as many.
        prune_at: when in the training of a task the smallest are given up.

    Raises:
        RecipeError: a share that is not between 0 and 1.
    """

    def __init__(self, keep: float | None = None, *, prune_at: float = 0.5) -> None:
        super().__init__()
        if not 0 < prune_at < 1 or (keep is not None and not 0 < keep <= 1):
            raise RecipeError(f"PackNet's shares are between 0 and 1, got keep={keep} and prune_at={prune_at}")
        self.keep, self.prune_at = keep, prune_at

    def begin(self, net: SegmentNet, task: str, order: Sequence[str]) -> Callback:
        owners: dict[str, Tensor] = self.state.setdefault("owners", {})
        for name, p in packed(net).items():
            if p.requires_grad:
                owners.setdefault(name, torch.zeros(p.shape, dtype=torch.int16))
        return _Packing(self, net, task, list(order))

    def end(self, net: SegmentNet, task: str, aim: Any, batches: Iterable[Any]) -> None:
        self.state.setdefault("learnt", []).append(task)

    @contextmanager
    def seen_as(self, net: SegmentNet, task: str) -> Iterator[None]:
        """Without the weights that later tasks took; a task that was not learnt yet is seen with all."""
        learnt = self.state.get("learnt", [])
        if task not in learnt:
            yield
            return
        last, kept = learnt.index(task) + 1, {}
        parts = packed(net)
        with torch.no_grad():
            for name, owner in self.state["owners"].items():
                kept[name] = parts[name].clone()
                parts[name].masked_fill_((owner > last).to(parts[name].device), 0.0)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, values in kept.items():
                    parts[name].copy_(values)

    def share(self, net: SegmentNet, name: str, order: Sequence[str], number: int) -> float:
        """The share of a tensor's free weights that the task of this number keeps."""
        if self.keep is not None:
            return self.keep
        parameter = net.get_parameter(name)
        return 1 / sum(any(p is parameter for p in net.parameters_of(task)) for task in order[number:])


def _through(net: SegmentNet, task: str) -> Iterator[nn.Module]:
    """All modules that a task shares with others, or could."""
    yield from net.stem.modules()
    yield from net.after.modules()
    for layer, module in net.path(task).nonzero().tolist():
        yield from net.segment(layer, module).modules()


def packed(net: SegmentNet) -> dict[str, Tensor]:
    """The weights that tasks share out: of two and more dimensions, in segments and in what is around them.

    A normalisation of whole images has a weight of several dimensions; it is none of them.
    """
    rooms = ("stem", "layers", "after")
    norms = {id(p) for part in net.modules() if isinstance(part, NORMALISING) for p in part.parameters()}
    found = {name: p for name, p in net.named_parameters() if p.dim() >= 2 and id(p) not in norms}
    return {name: p for name, p in found.items() if name.split(".")[0] in rooms}


class _Packing(Callback):
    """What is not the task's to change stays as it is, and in time the task gives up what it can do without."""

    def __init__(self, keeping: PackNet, net: SegmentNet, task: str, order: list[str]) -> None:
        self.keeping, self.net, self.task, self.order = keeping, net, task, order
        self.number = order.index(task)
        earlier = order[: self.number]
        own = {id(p) for p in net.parameters_of(task)}
        self.names = {name for name, p in packed(net).items() if id(p) in own and p.requires_grad}
        self.held: dict[str, tuple[Tensor, Tensor]] = {}
        known = {id(p) for name in earlier for p in net.parameters_of(name)}
        others = {name: p for name, p in net.named_parameters() if name not in packed(net) and id(p) in known & own}
        for name, p in others.items():
            self._hold(name, p, self._of_others(name, p))
        self._hold_packed()
        separate = {id(part) for norm in norms_in(net) for part in norm.modules()}
        norms = [part for part in net.modules() if isinstance(part, NORMALISING) and id(part) not in separate]
        seen = {id(part) for name in earlier for part in _through(net, name)}
        self.still = [norm for norm in norms if id(norm) in seen]

    def _of_others(self, name: str, p: Tensor) -> Tensor:
        """Which of a parameter's numbers earlier tasks have: all, but for the rows of a shared head."""
        mine = torch.ones(p.shape, dtype=torch.bool, device=p.device)
        if name.startswith("shared_head.") and self.net.shared_head is not None:
            begin, end = getattr(self.net.shared_head.rows, self.task).tolist()
            mine[begin:end] = False
        return mine

    def _hold(self, name: str, p: Tensor, mask: Tensor) -> None:
        self.held[name] = (mask, p.detach().clone())

    def _hold_packed(self) -> None:
        owners, mine = self.keeping.state["owners"], self.number + 1
        pruned = any(bool((owner == mine).any()) for owner in owners.values())  # then what is free stays zero
        for name, owner in owners.items():
            p, owner = self.net.get_parameter(name), owner.to(self.net.get_parameter(name).device)
            self._hold(name, p, owner != mine if pruned else owner != 0)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Statistics that tasks share stay those of the first."""
        before = [norm.training for norm in self.still]
        for norm in self.still:
            norm.training = False
        try:
            yield
        finally:
            for norm, was in zip(self.still, before, strict=True):
                norm.training = was

    def before_update(self, outputs: Any, batch: Any) -> None:
        for name, (mask, _) in self.held.items():
            gradient = self.net.get_parameter(name).grad
            if gradient is not None:
                gradient.masked_fill_(mask, 0.0)

    @torch.no_grad()
    def after_update(self, done: int, total: int, loss: float) -> None:
        for name, (mask, values) in self.held.items():  # momentum and weight decay move also what has no gradient
            p = self.net.get_parameter(name)
            p.copy_(torch.where(mask, values, p))
        if done == min(max(1, round(self.keeping.prune_at * total)), total):
            self._prune()

    def _prune(self) -> None:
        for name in sorted(self.names):
            p, owner = self.net.get_parameter(name), self.keeping.state["owners"][name]
            free = (owner == 0).flatten().nonzero().flatten()
            count = max(1, round(self.keeping.share(self.net, name, self.order, self.number) * len(free)))
            sizes = p.detach().abs().flatten().cpu()[free]
            kept = free[sizes.argsort(descending=True, stable=True)[:count]]
            owner.view(-1)[kept] = self.number + 1
            p.masked_fill_((owner == 0).to(p.device), 0.0)
        self._hold_packed()
