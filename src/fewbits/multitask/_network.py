"""One network of segments, through which each task has a path of its own (PaRT, arXiv 2201.09534)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import DataError, MismatchError, RecipeError, did_you_mean
from fewbits.multitask._heads import SharedHead
from fewbits.multitask._mixed import joined
from fewbits.multitask._names import checked
from fewbits.multitask._norms import norms_in, per_task
from fewbits.multitask._paths import Paths

MERGES = ("sum", "mean", "gated")


class SegmentNet(nn.Module):
    """Layers of parallel segments; a task goes through those of its path, and what they give is merged.

    ``net(x, task)`` takes a batch and its task: a name, a number, or a tensor ``[n]`` of numbers, one a sample. So it
    is an ordinary network, with the task among its inputs: batches are ``(x, task, y)``. Where a batch mixes tasks, the
    scores of classes that a sample's task has not are minus infinity. Paths are buffers: they are in checkpoints and in
    files. Segments that no task goes through are not made.

    Args:
        block: ``block(layer)`` makes a segment; all of a layer give outputs of one shape.
        paths: of each task. heads: a module for each task, or a :class:`SharedHead`.
        merge: ``sum`` (PaRT), ``mean``, or ``gated``: a mean with weights that each task learns (softmax).
        norm: ``shared`` by all tasks that go through a segment (PaRT on CIFAR), or per ``task``.
        residual: whether a layer's inputs are added to what is merged, where shapes allow it.
        after: ``after(layer)`` makes what all tasks share behind a layer: activations, pooling. stem: before the first.

    Attributes:
        last: the tasks of the last batch.

    Raises:
        RecipeError: an unknown merge or norm, or heads of other tasks than the paths'.
    """

    def __init__(
        self,
        block: Callable[[int], nn.Module],
        paths: Paths,
        heads: Mapping[str, nn.Module] | SharedHead,
        *,
        merge: str = "sum",
        norm: str = "shared",
        residual: bool = False,
        after: Callable[[int], nn.Module] | None = None,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for word, value, valid in (("merge", merge, MERGES), ("norm", norm, ("shared", "task"))):
            if value not in valid:
                raise RecipeError(f"{word} is one of {', '.join(valid)}, got {value!r}{did_you_mean(value, valid)}")
        own = list(heads.rows._buffers) if isinstance(heads, SharedHead) else list(heads)
        if set(own) != set(paths):
            raise RecipeError(f"the paths are of the tasks {list(paths)}, and the heads of {own}")
        self._block = (block,)  # in a tuple, or a module that makes modules would be a part of the network
        self.merge, self.norm, self.residual = merge, norm, residual
        self._still: set[str] = set()
        self.last: list[str] = []
        self.paths = nn.Module()
        for name, path in paths.items():
            self.paths.register_buffer(name, path.clone())
        self.stem = nn.Identity() if stem is None else stem
        self.layers = nn.ModuleList(nn.ModuleDict() for _ in range(paths.layers))
        for (layer, module), names in paths.users().items():
            self._grow(layer, module, names)
        self.after = nn.ModuleList(nn.Identity() if after is None else after(layer) for layer in range(paths.layers))
        self.shared_head = heads if isinstance(heads, SharedHead) else None
        self.heads = nn.ModuleDict({} if isinstance(heads, SharedHead) else {name: heads[name] for name in paths})
        self.gates = nn.ParameterDict()
        if merge == "gated":
            for name, path in paths.items():
                self.gates[name] = nn.Parameter(torch.zeros(path.shape))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of their numbers."""
        return list(self.paths._buffers)

    def path(self, task: str) -> Tensor:
        """Where a task goes: bool ``[layers, modules]``.

        Raises:
            RecipeError: no such task.
        """
        if task not in self.paths._buffers:
            raise RecipeError(f"no task {task!r}{did_you_mean(task, self.tasks)} ({', '.join(self.tasks)})")
        found: Tensor = getattr(self.paths, task)
        return found

    def all_paths(self) -> Paths:
        """The paths of all tasks."""
        return Paths({name: self.path(name).cpu() for name in self.tasks})

    def segment(self, layer: int, module: int) -> nn.Module:
        """A segment that some task goes through."""
        found: nn.Module = self.layers[layer][str(module)]  # type: ignore[index]
        return found

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """What a task goes through: its segments with its own normalisation, its head and gates, and what all share."""
        path = self.path(task).tolist()
        yield from self.stem.parameters()
        for layer, segments in enumerate(self.layers):
            for key, segment in segments.items():  # type: ignore[operator]
                if path[layer][int(key)]:
                    others = {id(p) for norm in norms_in(segment) for p in norm.parameters()}
                    own = {id(p) for norm in norms_in(segment) for p in norm.each[task].parameters()}
                    yield from (p for p in segment.parameters() if id(p) not in others or id(p) in own)
        yield from self.after.parameters()
        yield from (self.heads[task] if task in self.heads else self._shared()).parameters()
        if task in self.gates:
            yield self.gates[task]

    def forward(self, x: Tensor, task: Any = None) -> Tensor:
        names = self.last = self._asked(task)
        if len(names) == 1:
            return self._through(x, names[0])
        rows = [(task == self.tasks.index(name)).nonzero().flatten() for name in names]
        return joined({name: self._through(x[own], name) for name, own in zip(names, rows, strict=True)}, rows)

    def _asked(self, task: Any) -> list[str]:
        """The tasks of a batch."""
        known = self.tasks
        if isinstance(task, str):
            self.path(task)
            return [task]
        if task is None:
            if len(known) > 1:
                raise DataError(f"which task? Give batches (inputs, task, targets), task from 0 to {len(known) - 1}")
            return known
        numbers = task.unique().tolist() if isinstance(task, Tensor) else [task]
        if not numbers or any(number != int(number) or not 0 <= number < len(known) for number in numbers):
            raise DataError(f"tasks have the numbers 0 to {len(known) - 1} ({', '.join(known)}), got {numbers[:8]}")
        return [known[int(number)] for number in numbers]

    def layer_outputs(self, x: Tensor, task: str) -> list[Tensor]:
        """What each layer gives for a task, first to last."""
        path = self.path(task).tolist()
        x = self.stem(x)
        found = []
        for layer, row in enumerate(path):
            parts = [self._segment(layer, module, x, task) for module, on in enumerate(row) if on]
            merged = self._merged(parts, task, layer)
            if self.residual and merged.shape == x.shape:
                merged = merged + x
            x = self.after[layer](merged)
            found.append(x)
        return found

    def _through(self, x: Tensor, name: str) -> Tensor:
        *_, x = self.layer_outputs(x, name)
        found: Tensor = self.heads[name](x) if name in self.heads else self._shared()(x, name)
        return found

    def _segment(self, layer: int, module: int, x: Tensor, name: str) -> Tensor:
        segment = self.segment(layer, module)
        for norm in norms_in(segment):
            norm.task = name
        found: Tensor = segment(x)
        return found

    def _merged(self, parts: list[Tensor], name: str, layer: int) -> Tensor:
        if self.merge == "gated":
            on = self.path(name)[layer]
            weights = self.gates[name][layer][on].softmax(0)
            parts = [part * weight for part, weight in zip(parts, weights, strict=True)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged + part
        return merged / len(parts) if self.merge == "mean" else merged

    def _shared(self) -> SharedHead:
        assert self.shared_head is not None
        return self.shared_head

    # -- tasks that come later, and tasks alone ----------------------------------------------------------

    def add(self, task: str, path: Any, head: nn.Module, *, freeze: bool = True) -> None:
        """A further task, in place. Its segments that are not there yet are made; normalisation per task is copied.

        Args:
            path: bool ``[layers, modules]``. head: of its own, also where the others share one.
            freeze: everything that was there before stays as it is, whatever is trained: see :meth:`freeze`.

        Raises:
            RecipeError: a name that is taken, or a path of another shape.
        """
        checked([*self.tasks, task])
        paths = Paths({**self.all_paths(), task: path})
        if freeze:
            self.freeze()
        like = next(self.parameters())
        for layer, row in enumerate(paths[task].tolist()):
            for module in (module for module, on in enumerate(row) if on):
                if str(module) not in self.layers[layer]:  # type: ignore[operator]
                    self._grow(layer, module, [task])
                    self.segment(layer, module).to(like.device, like.dtype)
                    continue
                for norm in norms_in(self.segment(layer, module)):
                    norm.each[task] = copy.deepcopy(next(iter(norm.each.values()))).requires_grad_()
        self.paths.register_buffer(task, paths[task].to(like.device))
        self.heads[task] = head.to(like.device, like.dtype)
        if self.merge == "gated":
            self.gates[task] = nn.Parameter(torch.zeros(paths[task].shape, device=like.device, dtype=like.dtype))
        self.train(self.training)

    def freeze(self) -> None:
        """Keep what is there now: no gradients, and statistics of normalisation stay also in training mode."""
        self._still |= {name for name, _ in self.named_modules() if name}
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SegmentNet:
        """Training mode, but for what is frozen."""
        super().train(mode)
        for name, module in self.named_modules():
            if name in self._still:
                module.training = False
        return self

    def alone(self, task: str, path: Tensor | None = None) -> SegmentNet:
        """A network with one task: what its path goes through, under the same names. Outputs are bit-equal.

        Args:
            path: another one than the task has, through segments that are there.

        Raises:
            MismatchError: a segment of the path is not there.
        """
        path = self.path(task) if path is None else path.to(self.path(task).device)
        for layer, module in path.nonzero().tolist():
            if str(module) not in self.layers[layer]:
                raise MismatchError(f"task {task!r} goes through segment {module} of layer {layer}, which is not there")
        memo: dict[int, Any] = {}
        for layer, segments in enumerate(self.layers):
            kept = {key: part for key, part in segments.items() if path[layer, int(key)]}  # type: ignore[operator]
            memo[id(segments)] = nn.ModuleDict({key: _alone(part, task) for key, part in kept.items()})
        for group in (self.heads, self.gates):
            memo[id(group)] = type(group)({task: copy.deepcopy(group[task])} if task in group else {})
        memo[id(self.paths)] = nn.Module()
        memo[id(self.paths)].register_buffer(task, path.clone())
        net = copy.deepcopy(self, memo)
        if task in net.heads:
            net.shared_head = None
        if net.shared_head is not None:
            net.shared_head.rows._buffers = {task: net.shared_head.rows._buffers[task]}
        return net.train(self.training)

    def _grow(self, layer: int, module: int, names: list[str]) -> None:
        segment = self._block[0](layer)
        self.layers[layer][str(module)] = per_task(segment, names) if self.norm == "task" else segment  # type: ignore[operator]


def _alone(segment: nn.Module, task: str) -> nn.Module:
    """A copy of a segment with the normalisation of one task."""
    memo: dict[int, Any] = {}
    for norm in norms_in(segment):
        own = norm.each[task if task in norm.each else next(iter(norm.each))]  # of another path, to be filled
        memo[id(norm.each)] = nn.ModuleDict({task: copy.deepcopy(own)})
    found = copy.deepcopy(segment, memo)
    for norm in norms_in(found):
        norm.task = task
    return found
