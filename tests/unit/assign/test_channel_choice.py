"""The choice of channels against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channel_networks import Drawn
from fewbits.channels import Dependencies, by_magnitude, dependencies
from fewbits.channels.select import Sizes, blocks, choose, unit_scores
from fewbits.channels.surgery import prune_channels
from fewbits.errors import BudgetError, MismatchError, NonFiniteError, RecipeError, SelectionError
from fewbits.hardware import count

SHAPE = (2, 6, 6)


def network(blocks: list[str]) -> Drawn:
    torch.manual_seed(0)
    return Drawn(blocks, 4, flat=True)


def sizes_of(model: torch.nn.Module) -> Sizes:
    uses = {layer.name: layer.uses for layer in count(model, SHAPE).layers}
    return Sizes({name: tuple(p.shape) for name, p in model.named_parameters()}, uses)


def amount(model: torch.nn.Module, over: str) -> int:
    found = count(model, SHAPE)
    widths = sum(len(model.get_parameter(layer.name)) for layer in found.layers)
    return {"macs": found.macs, "parameters": found.parameters, "channels": widths}[over]


@settings(max_examples=10)
@example(["grouped"], "channels", 0.40625, 0)  # 8 of 19 channels stay at least.
@given(
    st.lists(st.sampled_from(["plain", "residual", "concat", "depthwise", "grouped"]), min_size=1, max_size=3),
    st.sampled_from(["macs", "parameters", "channels"]),
    st.floats(0.4, 0.95),
    st.integers(0, 99),
)
def test_the_shortest_beginning_of_the_ranking_that_meets_the_target(
    blocks: list[str], over: str, left: float, seed: int
) -> None:
    """Surgery after every single removal, and a count of what is really left."""
    model = network(blocks)
    found = dependencies(model, SHAPE)
    scores = torch.rand(found.count, generator=torch.Generator().manual_seed(seed))
    whole, removed = amount(model, over), []
    for unit in scores.argsort().tolist():
        if not _leaves_some(found, [*removed, unit]):
            continue
        removed.append(unit)
        small = network(blocks)
        prune_channels(small, found.without(removed))
        if amount(small, over) <= left * whole:
            break
    else:  # Every layer is down to its last unit, and that is not little enough.
        with pytest.raises(BudgetError, match="cannot be reached"):
            choose(found, scores, sizes_of(model), left=left, over=over)
        return
    choice = choose(found, scores, sizes_of(model), left=left, over=over)
    assert choice.removed == tuple(removed)
    assert choice.channels.equals(found.without(removed))
    told = {"macs": choice.macs, "parameters": choice.parameters, "channels": choice.outputs}
    assert told[over] == pytest.approx(amount(small, over) / whole)


def _leaves_some(found: Dependencies, removed: list[int]) -> bool:
    kept = found.without(removed).kept
    return all(bool(kept[n][0].any()) for n in found.outputs if n in kept and kept[n][0] is not None)  # type: ignore[union-attr]


def test_a_cap_keeps_the_best_channels_of_a_layer() -> None:
    model = network(["residual", "plain"])
    found = dependencies(model, SHAPE)
    scores = torch.arange(found.count).double()
    with pytest.raises(BudgetError, match=r"cap of 0\.5: at least 0"):
        choose(found, scores, sizes_of(model), left=0.01, cap=0.5)
    stem = found.axes["stem.0.weight"][0]
    assert stem is not None
    choice = choose(found, scores, sizes_of(model), left=0.45, cap=0.5)
    kept = choice.channels.kept["stem.0.weight"][0]
    assert kept is not None
    assert kept.tolist() == [False, False, True, True]
    # What was lost before counts: of 8 channels 4 were gone already, so none may go.
    with pytest.raises(BudgetError):
        choose(found, scores, sizes_of(model), left=0.45, cap=0.5, full=dict.fromkeys(found.outputs, 8))


def test_the_last_channel_stays_at_any_cap() -> None:
    model = network(["plain"])
    found = dependencies(model, SHAPE)
    with pytest.raises(BudgetError):
        choose(found, torch.rand(found.count), sizes_of(model), left=1e-9, cap=1.0)


def test_scores_of_channels_that_go_together() -> None:
    model = network(["residual"])
    found = dependencies(model, SHAPE)
    scores = by_magnitude(model)
    stream, mean = found.axes["stem.0.weight"][0], unit_scores(found, scores, reduce="mean")
    total = unit_scores(found, scores)
    assert stream is not None
    together = (scores["stem.0.weight"] + scores["parts.0.1.weight"]).double().detach()
    assert torch.allclose(total[stream], together)
    assert torch.allclose(mean[stream], together / 2)


def test_ranking_by_what_is_saved() -> None:
    """With equal scores the unit goes first that takes most multiplications with it."""
    model = network(["plain"])
    found = dependencies(model, SHAPE)
    saved = []
    for unit in range(found.count):
        small = network(["plain"])
        prune_channels(small, found.without([unit]))
        saved.append(amount(model, "macs") - amount(small, "macs"))
    choice = choose(found, torch.ones(found.count), sizes_of(model), left=0.99, per_saving=True)
    assert choice.removed[0] == saved.index(max(saved))
    assert len(set(saved)) > 1


@settings(max_examples=10)
@given(
    st.lists(st.sampled_from(["plain", "residual", "concat", "depthwise"]), min_size=1, max_size=3),
    st.sampled_from([2, 3]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_multiple_of_the_channels_stays(kinds: list[str], multiple: int, per_saving: bool, seed: int) -> None:
    """What each group has lost leaves a multiple, its best channels stay, and no smaller beginning would do."""
    model = network(kinds)
    found = dependencies(model, SHAPE)
    scores = torch.rand(found.count, generator=torch.Generator().manual_seed(seed))
    options = {"left": 0.7, "multiple": multiple, "per_saving": per_saving, "cap": 1.0}
    try:
        choice = choose(found, scores, sizes_of(model), **options)
    except BudgetError:  # blocks as large as a layer's width
        return
    gone = set(choice.removed)
    last = next(set(part) for part in blocks(found, scores, multiple) if choice.removed[-1] in part)
    for group in found.groups:
        lost = [unit for unit in group if unit in gone]
        assert not lost or (len(group) - len(lost)) % multiple == 0
        kept = [unit for unit in group if unit not in gone]
        assert not lost or not kept or scores[lost].max() <= scores[kept].min()
    small, nearly = network(kinds), network(kinds)
    prune_channels(small, choice.channels)
    prune_channels(nearly, found.without([unit for unit in choice.removed if unit not in last]))
    whole = amount(model, "macs")
    assert amount(small, "macs") <= 0.7 * whole < amount(nearly, "macs")


def test_layers_that_keep_all_their_channels() -> None:
    model = network(["residual", "plain"])
    found = dependencies(model, SHAPE)
    choice = choose(found, torch.rand(found.count), sizes_of(model), left=0.8, exclude=["parts.0.1.*"])
    assert "stem.0.weight" not in choice.channels.kept  # it feeds the same sum
    with pytest.raises(SelectionError, match=r"'part\..* matches no layer"):
        choose(found, torch.rand(found.count), sizes_of(model), left=0.8, exclude=["part.*.weight"])


def test_what_cannot_be_used_is_named() -> None:
    model = network(["plain"])
    found, sizes = dependencies(model, SHAPE), sizes_of(model)
    scores = torch.rand(found.count)
    for wrong in ({"left": 0.0}, {"left": 0.5, "cap": 2.0}, {"left": 0.5, "over": "flops"}):
        with pytest.raises(RecipeError):
            choose(found, scores, sizes, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="uses"):
        choose(found, scores, Sizes(sizes.shapes, {}), left=0.5)
    with pytest.raises(MismatchError, match="removable units"):
        choose(found, scores[1:], sizes, left=0.5)
    layers = by_magnitude(model)
    with pytest.raises(MismatchError, match=r"stem\.0\.weight has 4 output channels, and no scores"):
        unit_scores(found, {n: s for n, s in layers.items() if not n.startswith("stem")})
    with pytest.raises(NonFiniteError, match=r"stem\.0\.weight"):
        unit_scores(found, layers | {"stem.0.weight": torch.full((4,), float("nan"))})
    with pytest.raises(RecipeError, match="'max'"):
        unit_scores(found, layers, reduce="max")
