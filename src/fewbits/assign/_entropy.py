"""Entropy-constrained assignment to a uniform grid: ECQ, and ECQx with relevance.

Source: Becking et al., "ECQx: Explainability-Driven Quantization for Low-Bit and Sparse DNNs",
arXiv 2109.04236, equations 1, 10 and 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fewbits.assign import _grid as grid
from fewbits.assign._batched import Query, run_batched
from fewbits.assign._code import chances, surcharge, surcharged_levels
from fewbits.assign._diagram import Table, boundaries, locate
from fewbits.assign._entropy_state import CodebookState, GridState
from fewbits.assign._min_kept import spare
from fewbits.assign._rate import Rate
from fewbits.assign._relevance import RelevanceTerm
from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.state import State
from fewbits.plan import Plan
from fewbits.recipe.notation import share_of

Record = GridState | CodebookState


def ecq(
    bits: int = 4,
    lam: float = 0.05,
    *,
    scale: str = "min",
    sustain: float = 0.05,
    zero_floor: float | None = None,
    rate: str = "entropy",
    refresh: int = 8,
    step_rule: str = "range",
    min_kept: float | str = 0.0,
    percentile: float | None = None,
) -> Assigner:
    """ECQ (paper, eq. 1): each weight goes to ``argmin_c (w - w_c)**2 - lambda(l) * log2 P_c``.

    lambda(l) is ``lam * delta(l) * lambda_max(l)``. The step sizes begin with those of ``init`` (learnt ones come
    back through :func:`~fewbits.assign.with_steps`). Scores are ignored.

    Args:
        bits: bit width of the symmetric grid, 2..16.
        lam: strength of the entropy term. 0 is exact nearest neighbour; with ``scale="min"`` and in
            the largest layer, 1 makes zero as cheap for one of the outermost weights as its own cluster.
        scale: lambda_max of a layer: ``"min"`` (EC2T thesis, on which the paper builds) or ``"max"`` (released
            code), see :meth:`fewbits.assign._rate.Rate.multiplier`.
        sustain: s of ``delta = (n_l / n_max + s) / (1 + s)``, over the layers this assigner is given.
        zero_floor: least probability of the zero cluster: ``None`` is the paper, 0.5 the released code.
        rate: ``"entropy"`` is the paper; ``"coder"`` (ours) asks the entropy coder's model every ``refresh``
            updates what each weight costs at its place, see :mod:`fewbits.assign._code`.
        step_rule: ``"range"`` keeps the step sizes; ``"rate"`` (ours) widens them as lambda rises, see
            :meth:`fewbits.assign._rate.Rate.wide`: the same bytes at less distortion.
        min_kept: share of each layer's weights that stay non-zero at least, 0 to 1 or percent like ``"0.5%"``; where
            fewer would, the largest stay, too (ours, after the minimum threshold of arXiv 2209.14624): entropy alone
            may empty a layer. Pruned weights count, but stay zero. 0 is the paper.
        percentile: of ``|w|``, put on the outermost level; ``None``: 99.9 below 8 bits, else all weights count, see
            :func:`fewbits.assign._grid.step_size`.

    Raises:
        RecipeError: an impossible option.
        NonFiniteError: from ``init`` and ``update``, naming the layer.
    """
    grid.highest(bits)
    terms = Rate(lam, scale, sustain, zero_floor, rate, refresh, step_rule, share_of(min_kept))
    return entropy_assigner(bits, terms, _grid_init(bits, percentile))


def ecqx(
    bits: int = 4,
    lam: float = 0.05,
    p: float = 0.4,
    rho: float = 2.0,
    momentum: float = 0.1,
    *,
    p_rule: str = "paper",
    scale: str = "min",
    sustain: float = 0.05,
    zero_floor: float | None = None,
    rate: str = "entropy",
    refresh: int = 8,
    step_rule: str = "range",
    min_kept: float | str = 0.0,
    percentile: float | None = None,
) -> Assigner:
    """ECQx (paper, eqs. 10 and 11): ECQ whose zero cost is multiplied by ``rho * R'**beta`` per weight.

    R' is ``|R|`` over its layer maximum. beta starts where the mean relevance changes nothing,
    ``-ln(rho) / ln(mean R')``, clipped to 0..1, and is lowered as far as ``p`` demands: exactly, as an order
    statistic, where the released code searches in up to 50 steps. Relevance that is zero or the same all
    over a layer leaves plain ECQ, as does an update without scores before any were given. Later updates with
    ``scores=None`` use the mixed scores of the state.

    Args:
        p: target sparsity: the share of a layer's weights, 0..1, that may become zero on top of ECQ's zeros.
        rho: factor on the zero cost, at least 1; 2 is the released code, the paper gives no value.
        momentum: alpha of ``R = (1 - alpha) * R_new + alpha * R_previous`` on signed scores, in [0, 1);
            0.1 is the released code, the paper gives no value.
        p_rule: ``"paper"`` allows up to p more zeros than ECQ. ``"released"`` keeps the share of zeros within
            ``[ECQ's - p, ECQ's]`` (it only takes zeros away) and may raise beta beyond 1 for it.
        bits, lam, scale, sustain, zero_floor, rate, refresh, step_rule, min_kept, percentile: as for :func:`ecq`; P and
            lambda(l) are those of plain ECQ.

    Raises:
        RecipeError: an impossible option.
        SelectionError: from ``update``: a weight without scores, or scores of another shape.
        NonFiniteError: from ``init`` and ``update``, naming the layer.
    """
    grid.highest(bits)
    terms = Rate(lam, scale, sustain, zero_floor, rate, refresh, step_rule, share_of(min_kept))
    relevance = RelevanceTerm(p, rho, momentum, p_rule)
    return entropy_assigner(bits, terms, _grid_init(bits, percentile), relevance)


def entropy_assigner(
    bits: int, rate: Rate, init_layer: Callable[[str, Tensor], Record], relevance: RelevanceTerm | None = None
) -> Assigner:
    """The assigner behind all of this family; ``init_layer(name, weight)`` makes a layer's first state.

    A codebook in it has an odd number of values and zero in the middle.
    """

    @torch.no_grad()
    def init(weights: Weights) -> State:
        return State({name: init_layer(name, weight) for name, weight in weights.items()})

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        entries, layers = {}, dict[str, Record]()
        largest = max((weight.numel() for weight in weights.values()), default=0)
        assigning = {}
        for name, weight in weights.items():
            measured = scores if relevance is not None else None
            layer = state[name]
            assert isinstance(layer, Record)  # the state is of this assigner's own init
            assigning[name] = _assign(name, weight, measured, layer, bits, rate, relevance, largest)
        devices = [weight.device for weight in weights.values()]
        for name, found in zip(assigning, run_batched(list(assigning.values()), devices), strict=True):
            levels, table, layers[name] = found
            entries[name] = layers[name].entry(levels, table, bits)
        return Plan(entries), state.updated(layers)

    return Assigner(init, update)


def _assign(
    name: str,
    weight: Tensor,
    measured: Scores | None,
    layer: Record,
    bits: int,
    rate: Rate,
    relevance: RelevanceTerm | None,
    largest: int,
) -> Query[tuple[Tensor, Table, Record]]:
    """Levels of one layer, their centroids, and its record with what was decided."""
    if relevance is not None and measured is not None:
        layer = replace(layer, scores=(yield from relevance.mixed(name, measured, weight, layer.scores)))
    x, low, high = yield from grid.flattening(name, weight)
    share = x.numel() / max(1, largest)
    lam, table, costs = yield from rate.costs(x, low, high, layer.centroids(bits), share, layer.gain)
    bounds = boundaries(table, costs)
    zero = len(table) // 2
    plain = float(bounds[zero - 1]), float(bounds[zero])
    extra = None
    if rate.source == "coder" and lam > 0:
        if layer.chances is None:
            layer = replace(layer, chances=chances(locate(x, bounds).view(weight.shape)), age=0)
        assert layer.chances is not None
        extra = surcharge(layer.chances.to(x.device), lam)
        levels = surcharged_levels(x, table, costs, extra)
        zeros = x.numel() - int(levels.count_nonzero())
    else:
        levels = None
        zeros = int((yield ((x > plain[0]) & (x <= plain[1])).sum())[0])
    chosen = None
    if relevance is not None and layer.scores is not None:
        seen = layer.scores.reshape(-1).to(x.device)
        chosen = yield from relevance.levels(x, seen, table, costs, zeros, extra, (low, high))
    if chosen is not None:
        levels, beta = chosen
    else:
        beta = None
        levels = locate(x, bounds, (low, high)) if levels is None else levels
    kept, needed = x.numel() - zeros, math.ceil(rate.min_kept * x.numel() - 1e-9)
    if beta is not None:
        kept = int((yield levels.count_nonzero())[0])
    if kept < needed:
        finest = layer.step if isinstance(layer, GridState) and rate.step_rule == "rate" else None
        levels, table = yield from spare(x, levels, table, needed, (low, high), finest, layer.gain)
        kept = int((yield levels.count_nonzero())[0])
    if extra is not None:
        layer = replace(layer, age=layer.age + 1)
        if layer.age >= rate.refresh:
            layer = replace(layer, chances=chances(levels.view(weight.shape)), age=0)
    size = max(1, x.numel())
    if isinstance(layer, GridState) and rate.step_rule == "rate":
        layer = replace(layer, held=float(table[zero + 1]))
    layer = replace(layer, lam=lam, beta=beta, sparsity_plain=zeros / size, sparsity=(x.numel() - kept) / size)
    return levels.view(weight.shape), table, layer


def _grid_init(bits: int, percentile: float | None) -> Callable[[str, Tensor], GridState]:
    def init_layer(name: str, weight: Tensor) -> GridState:
        return GridState(step=grid.step_size(weight, bits, percentile, name))

    return init_layer
