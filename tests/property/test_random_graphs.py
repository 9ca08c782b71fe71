"""Networks drawn at random, by every method: each works with outputs as promised, or is refused in a sentence.

What these find becomes a case of its own beside the room that it is about; ``python -m benchmarks.random_graphs SEED
METHOD`` shrinks one. Two thousand by five are ``python -m benchmarks.run graphs``.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from benchmarks.kinds import graphs
from benchmarks.random_graphs import Graph, draw, shrunk, trains
from fewbits.errors import UnsupportedError
from fewbits.int8 import folded

METHODS = tuple(graphs.CHECKS)


@cache
def small(seed: int) -> Graph:
    return draw(10_000 + seed, size=8)


@pytest.mark.parametrize("seed", range(40))
def test_a_graph_works_or_is_refused(seed: int) -> None:
    graph, method = small(seed), METHODS[seed % len(METHODS)]
    word, told = graphs.outcome(graph, method)
    assert word in ("works", "refused"), f"{method}: {told}\n{graph.source}"


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", range(20_000, 20_200, 20))
def test_many_graphs_work_or_are_refused(start: int, method: str) -> None:
    for seed in range(start, start + 20):
        graph = draw(seed)
        word, told = graphs.outcome(graph, method)
        assert word in ("works", "refused"), f"{seed} {method}: {told}\n{graph.source}"


def test_a_seed_is_a_network() -> None:
    assert draw(7).source == draw(7).source != draw(8).source
    assert trains(draw(7))


def test_operations_of_every_kind_are_drawn() -> None:
    text = "\n".join(small(seed).source for seed in range(40))
    for word in (
        "groups=", "dilation=", "ConvTranspose", "Conv1d", "BatchNorm2d", "LayerNorm", "GroupNorm", "torch.cat",
        "chunk(", "split(", "[:, ", ".mean((2, 3)", "F.pad", "interpolate", "Embedding", "self.p", "_(",
        "transpose(1, 2)", "sigmoid", ".weight = self.", "Linear", "forward(self, x, ",
    ):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize("method", ["int8", "channels", "ecq"])
def test_what_is_wrong_is_noticed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = next(g for g in map(small, range(100)) if graphs.outcome(g, method)[0] == "works")

    def off(model: torch.nn.Module) -> object:
        net, factors = folded(model)
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.mul_(1.001)
        return net, factors

    monkeypatch.setattr(graphs, "folded", off)
    monkeypatch.setattr(graphs, "prune_channels", lambda *_: None)
    monkeypatch.setattr(graphs, "zero_channels", lambda model, _: [p.data.mul_(1.001) for p in model.parameters()])
    monkeypatch.setattr(graphs, "merge_statistics", lambda model, _: [p.data.mul_(1.001) for p in model.parameters()])
    assert graphs.outcome(graph, method)[0] == "broken"


def test_errors_without_a_type_hang_and_floods_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> str:
        monkeypatch.setitem(graphs.CHECKS, "ecq", lambda graph: (_ for _ in ()).throw(error))
        return graphs.outcome(draw(0), "ecq")[0]

    assert raising(IndexError("tuple index out of range")) == "broken"
    assert raising(UnsupportedError("one\ntwo")) == "broken"
    assert raising(UnsupportedError("x has no rule; leave it out")) == "refused"
    monkeypatch.setattr(graphs, "SECONDS", 0.05)
    monkeypatch.setitem(graphs.CHECKS, "ecq", lambda graph: [None for _ in iter(int, 1)] and None)
    assert graphs.outcome(draw(0), "ecq") == ("broken", "TimeoutError: takes more than 0.05 seconds")


def test_a_graph_is_shrunk_to_what_fails() -> None:
    graph = next(g for g in map(small, range(100)) if "torch.cat" in g.source and len(g.lines) > 8)
    left = shrunk(graph, lambda g: "torch.cat" in g.source and trains(g))
    assert "torch.cat" in left.source
    assert len(left.lines) < 6
