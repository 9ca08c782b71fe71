"""Which channels go: the cheapest units of a global ranking, until a budget of multiplications or parameters is met.

Plain data in, plain data out: no network here. The units, channels that can only go together, are read from the graph
by :func:`fewbits.channels.dependencies`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil, prod

import torch
from torch import Tensor

from fewbits.channel_masks import ChannelMasks
from fewbits.channels.dependencies import FIXED, Dependencies
from fewbits.errors import BudgetError, MismatchError, NonFiniteError, RecipeError, SelectionError, did_you_mean

OVER = ("macs", "parameters", "channels")
REDUCE = ("sum", "mean")


@dataclass(frozen=True)
class Sizes:
    """How large a network is.

    Attributes:
        shapes: of every trainable tensor, by name; shared ones once.
        uses: ``{weight name: outputs that each number of it takes part in}``, see :mod:`fewbits.hardware.count`.
        others: multiplications without a weight of ``uses``, such as those of two values in attention.
    """

    shapes: Mapping[str, tuple[int, ...]]
    uses: Mapping[str, int]
    others: int = 0

    @property
    def macs(self) -> int:
        """All multiplications of one sample."""
        return self.others + sum(uses * prod(self.shapes[name]) for name, uses in self.uses.items())


@dataclass(frozen=True)
class ChannelChoice:
    """What was chosen, and what it leaves.

    Attributes:
        channels: what stays of each tensor.
        removed: units that go, in the order of the ranking.
        macs, parameters, outputs: shares that are left, 0 to 1, of multiplications, parameters and output channels.
    """

    channels: ChannelMasks
    removed: tuple[int, ...]
    macs: float
    parameters: float
    outputs: float


def unit_scores(found: Dependencies, scores: Mapping[str, Tensor], *, reduce: str = "sum") -> Tensor:
    """One score per unit from one per output channel of each layer.

    Args:
        scores: ``{weight name: [O]}`` for every layer of ``found.outputs``; larger matters more.
        reduce: ``"sum"`` over all output channels of the unit (for estimates of a loss, which add up), or ``"mean"``.

    Returns:
        ``[units]``, float64.

    Raises:
        MismatchError: a layer without scores, or of another size. NonFiniteError: a score is NaN or infinite.
        RecipeError: an unknown ``reduce``.
    """
    if reduce not in REDUCE:
        raise RecipeError(f"reduce is 'sum' or 'mean', got {reduce!r}")
    total, count = torch.zeros(found.count, dtype=torch.float64), torch.zeros(found.count, dtype=torch.float64)
    for name in found.outputs:
        units = found.units(name)
        if units is None or bool((units == FIXED).all()):
            continue
        if name not in scores or len(scores[name]) != len(units):
            given = "no scores" if name not in scores else f"{len(scores[name])} scores"
            raise MismatchError(
                f"{name} has {len(units)} output channels, and {given}; the criteria magnitude, l1, taylor and random "
                "score every layer"
            )
        values = scores[name].detach().cpu().double()
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError(f"{name}: a channel's score is NaN or infinite")
        chosen = units != FIXED
        total.index_add_(0, units[chosen], values[chosen])
        count.index_add_(0, units[chosen], torch.ones(int(chosen.sum()), dtype=torch.float64))
    return total if reduce == "sum" else total / count.clamp_min(1)


class _Left:
    """Sizes of all dimensions while units go, and what they multiply to."""

    def __init__(self, found: Dependencies, sizes: Sizes) -> None:
        self.sizes = sizes
        self.dims = {name: list(shape) for name, shape in sizes.shapes.items()}
        self.touched: list[Counter[tuple[str, int]]] = [Counter() for _ in range(found.count)]
        for name in sizes.shapes:
            for dim, units in enumerate(found.axes.get(name, ())):
                if units is not None:
                    for unit in units[units != FIXED].tolist():
                        self.touched[unit][name, dim] += 1
        self.products: Counter[int] = Counter()  # multiplications of two values that go with a unit
        for units, each in found.products if sizes.uses else ():
            for unit in units[units != FIXED].tolist():
                self.products[unit] += each
        self.outputs = {name: found.axis(name) for name in found.outputs if name in self.dims}
        self.macs = sizes.macs
        self.parameters = sum(prod(shape) for shape in self.dims.values())
        self.channels = sum(self.dims[name][axis] for name, axis in self.outputs.items())

    def touching(self, units: Iterable[int]) -> Counter[tuple[str, int]]:
        """``{(tensor, dimension): channels}`` that go with these units."""
        return sum((self.touched[unit] for unit in units), Counter())

    def fits(self, units: Iterable[int], least: Mapping[str, int]) -> bool:
        """Whether every layer has enough output channels without the units."""
        return all(
            self.dims[name][dim] - count >= least[name]
            for (name, dim), count in self.touching(units).items()
            if dim == self.outputs.get(name)
        )

    def remove(self, units: Iterable[int]) -> None:
        units = list(units)
        touched = self.touching(units)
        names = {name for name, _ in touched}
        before = self._of(names)
        for (name, dim), count in touched.items():
            self.dims[name][dim] -= count
            if dim == self.outputs.get(name):
                self.channels -= count
        after = self._of(names)
        self.macs += after[0] - before[0] - sum(self.products[unit] for unit in units)
        self.parameters += after[1] - before[1]

    def _of(self, names: set[str]) -> tuple[int, int]:
        numbers = {name: prod(self.dims[name]) for name in names}
        return sum(self.sizes.uses.get(name, 0) * n for name, n in numbers.items()), sum(numbers.values())

    def saved(self, units: Iterable[int]) -> tuple[int, int]:
        """Multiplications and parameters that go if these units alone go."""
        units = list(units)
        touched = self.touching(units)
        names = {name for name, _ in touched}
        macs, parameters = self._of(names)
        macs += sum(self.products[unit] for unit in units)
        for name in names:
            cut = [size - touched[name, dim] for dim, size in enumerate(self.dims[name])]
            macs -= self.sizes.uses.get(name, 0) * prod(cut)
            parameters -= prod(cut)
        return macs, parameters


def choose(
    found: Dependencies,
    scores: Tensor,
    sizes: Sizes,
    *,
    left: float,
    over: str = "macs",
    cap: float = 0.95,
    full: Mapping[str, int] | None = None,
    per_saving: bool = False,
    exclude: Iterable[str] = (),
    multiple: int = 1,
) -> ChannelChoice:
    """Remove the units with the lowest scores until at most a share ``left`` remains.

    One ranking over the whole network, as HAP (arXiv 2101.08940) and EHAP (arXiv 2306.07030) rank; a unit is passed
    over where a layer would lose more than ``cap`` of its output channels, or the last one (the best channel then
    stays). Of all beginnings of the ranking the shortest that meets the target is taken, counted exactly.

    Args:
        scores: ``[units]``, from :func:`unit_scores`. Equal ones go in the order of the units.
        left: share that may be left, 0 to 1, of what ``over`` names: ``macs``, ``parameters`` or (output) ``channels``.
        cap: ``prune_ratio_limit``: largest share of its output channels that a layer may lose.
        full: output channels that a layer had before earlier removals, by weight name; what ``cap`` is of.
        per_saving: rank by score over multiplications (parameters) that a unit takes with it, at the sizes before.
        exclude: shell patterns of weight names whose layers keep all output channels.
        multiple: units that belong to the same dimensions go in blocks, by rising score, so that a multiple of it
            stays. A block counts with the sum of its scores. (Ours: runtimes compute so many channels at once.)

    Raises:
        SelectionError: a pattern that matches no layer.
        RecipeError: an option out of range. MismatchError: not one score per unit.
        BudgetError: the caps do not allow it; the message says what they allow.
    """
    if over not in OVER:
        raise RecipeError(f"over must be one of {', '.join(OVER)}, got {over!r}")
    if not 0 < left <= 1 or not 0 <= cap <= 1:
        raise RecipeError(f"left must lie in 0..1 (not 0) and cap in 0..1, got {left:g} and {cap:g}")
    if len(scores) != found.count:
        raise MismatchError(f"the network has {found.count} removable units, and there are {len(scores)} scores")
    if multiple < 1:
        raise RecipeError(f"multiple must be at least 1, got {multiple}")
    state = _Left(found, sizes)
    whole = {"macs": state.macs, "parameters": state.parameters, "channels": state.channels}
    if over == "macs" and not sizes.uses:
        raise RecipeError("over='macs' needs the layers' uses; count them, or use 'parameters'")
    before = {name: state.dims[name][axis] for name, axis in state.outputs.items()} | dict(full or {})
    least = {name: max(1, ceil((1 - cap) * before[name] - 1e-9)) for name in state.outputs}
    parts = blocks(found, scores, multiple)
    costs = torch.stack([scores[part].sum() for part in parts]) if parts else scores
    if per_saving:
        saved = [state.saved(part)[over == "parameters"] for part in parts]
        costs = costs / torch.tensor(saved, dtype=torch.float64).clamp_min(1)
    stay = _excluded(found, tuple(exclude))
    removed: list[int] = []
    for index in torch.argsort(costs, stable=True).tolist():
        if getattr(state, over) <= left * whole[over]:
            break
        part = parts[index]
        if stay.isdisjoint(part) and state.fits(part, least):
            state.remove(part)
            removed += part
    if getattr(state, over) > left * whole[over]:
        share = getattr(state, over) / whole[over]
        raise BudgetError(
            f"{left:.3g} of all {over} cannot be reached with a cap of {cap:g}: at least {share:.3g} are left"
        )
    shares = (getattr(state, name) / whole[name] if whole[name] else 1.0 for name in OVER)
    return ChannelChoice(found.without(removed), tuple(removed), *shares)


def blocks(found: Dependencies, scores: Tensor, multiple: int) -> list[list[int]]:
    """Units that go together: in each group, by rising score, so many that a multiple is left, then a multiple each."""
    if multiple == 1:
        return [[unit] for unit in range(found.count)]
    parts = []
    for group in found.groups:
        ordered = sorted(group, key=lambda unit: (float(scores[unit]), unit))
        first = len(ordered) % multiple or multiple
        parts += [ordered[:first], *(ordered[i : i + multiple] for i in range(first, len(ordered), multiple))]
    return parts


def _excluded(found: Dependencies, patterns: tuple[str, ...]) -> set[int]:
    """Units with an output channel of a layer that is to keep all."""
    stay: set[int] = set()
    for pattern in patterns:
        names = [name for name in found.outputs if fnmatchcase(name, pattern)]
        if not names:
            raise SelectionError(f"pattern {pattern!r} matches no layer{did_you_mean(pattern, found.outputs)}")
        for name in names:
            units = found.units(name)
            stay.update(() if units is None else units.tolist())
    return stay
