"""Networks drawn at random, as source text that anyone can run, and shrunk to what still fails.

python -m benchmarks.random_graphs 17             # the source of one
python -m benchmarks.random_graphs 17 channels    # what a method makes of it, and the smallest that does the same
"""

from __future__ import annotations

import copy
import itertools
import linecache
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graph_operations import OPERATIONS

SIZE = 25
CLASSES = 4
SAMPLES = 4
LIMIT = 1e3  # of activations: what grows beyond says nothing
INPUTS: tuple[dict[str, tuple[int, ...]], ...] = (
    {"x": (3, 8, 8)}, {"x": (3, 8, 8)}, {"x": (2, 7, 6)}, {"x": (4, 9)}, {"x": (10,)}, {"tokens": (7,)},
    {"x": (3, 8, 8), "rows": (6,)}, {"x": (3, 6, 6), "y": (3, 6, 6)},
)  # fmt: skip
TOKENS = 11
NAMES: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "Tensor": Tensor}


@dataclass(frozen=True)
class Graph:
    """A network as text.

    Attributes:
        inputs: shape of a sample of each argument of ``forward``. layers: ``{name: lines that make it}``.
        lines: ``(variable, expression)``. result: what is returned.
    """

    seed: int
    inputs: dict[str, tuple[int, ...]]
    layers: dict[str, str]
    lines: tuple[tuple[str, str], ...]
    result: str

    @property
    def source(self) -> str:
        """A class ``Net``."""
        used = _used_layers(self)
        return "\n".join([
            "class Net(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for name, line in self.layers.items() if name in used),
            "",
            f"    def forward(self, {', '.join(self.inputs)}):",
            *(f"        {name} = {expression}" for name, expression in self.lines),
            f"        return {self.result}",
        ])  # fmt: skip

    def build(self, seed: int | None = None) -> nn.Module:
        """The network, with random weights; nothing of its normalisations is trivial."""
        space = dict(NAMES)
        name = f"graph-{self.seed}.py"
        linecache.cache[name] = len(self.source), None, self.source.splitlines(keepends=True), name  # for messages
        exec(compile(self.source, name, "exec"), space)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed if seed is None else seed)
            return unsettled(space["Net"]())

    def call(self, model: nn.Module, inputs: Any) -> Any:
        """What a network of this class gives."""
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)

    def batch(self, seed: int = 0, samples: int = SAMPLES) -> tuple[Any, Tensor]:
        """Inputs, by their names where there are several, and classes."""
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        made = {name: _input(name, shape, samples, generator) for name, shape in self.inputs.items()}
        inputs = made if len(made) > 1 else next(iter(made.values()))
        return inputs, torch.randint(0, CLASSES, (samples,), generator=generator)


def unsettled(model: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as after a training."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
            for name, low in (("weight", 0.5), ("bias", -0.3), ("running_mean", -0.3), ("running_var", 0.5)):
                tensor = getattr(module, name, None)
                if tensor is not None:
                    with torch.no_grad():
                        tensor.copy_(low + torch.rand(tensor.shape))
    return model


def _input(name: str, shape: tuple[int, ...], samples: int, generator: torch.Generator) -> Tensor:
    if name == "tokens":
        return torch.randint(0, TOKENS, (samples, *shape), generator=generator)
    return torch.randn(samples, *shape, generator=generator)


def draw(seed: int, size: int = SIZE) -> Graph:
    """The network of a seed: some ``size`` operations and a head. It trains: others are drawn again."""
    for again in itertools.count():
        graph = _Draw(f"{seed}, {again}", seed).graph(size)
        if trains(graph):
            return graph
    raise AssertionError


def trains(graph: Graph) -> bool:
    """Whether the network by itself computes, and learns, what is finite."""
    model, (inputs, targets) = graph.build(), graph.batch()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        try:
            for mode in (True, False):
                outputs = graph.call(model.train(mode), inputs)
                loss = F.cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, targets)
                loss.backward()
                slopes = [p.grad for p in model.parameters() if p.grad is not None]
                if not all(bool(torch.isfinite(t).all()) for t in (loss, *slopes)) or not any(map(torch.any, slopes)):
                    return False
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return True


class _Draw:
    """Draws line after line, and runs each at once."""

    def __init__(self, chosen: str, seed: int) -> None:
        self.chosen = random.Random(chosen)
        self.seed = seed
        self.inputs = self.chosen.choice(INPUTS)
        self.layers: dict[str, str] = {}
        self.lines: list[tuple[str, str]] = []
        self.module = nn.Module()
        self.count = itertools.count()
        generator = torch.Generator().manual_seed(seed)
        self.values: dict[str, Any] = {n: _input(n, s, SAMPLES, generator) for n, s in self.inputs.items()}
        self.last: Any = None

    # -- what operations ask for --------------------------------------------------------------------------------------

    def pick(self, options: Iterable[Any]) -> Any:
        self.last = self.chosen.choice(list(options))
        return self.last

    def chance(self, share: float) -> bool:
        return self.chosen.random() < share

    def number(self, below: int) -> int:
        return self.chosen.randrange(below)

    def shape(self, v: str) -> tuple[int, ...]:
        return tuple(self.values[v].shape)

    def dims(self, v: str) -> int:
        return int(self.values[v].dim())

    def other(self, v: str, same: bool = False, dims: int | None = None) -> str:
        """Another variable, or the same."""
        found = [
            name
            for name, value in self._tensors()
            if name != v and (not same or value.shape == self.values[v].shape) and dims in (None, value.dim())
        ]
        return self.chosen.choice(found) if found else v

    def layer(self, kind: str, made: str) -> str:
        return self._held(kind, "self.{} = " + made)

    def parameter(self, kind: str, made: str) -> str:
        return self._held(kind, f"self.{{}} = nn.Parameter({made})")

    def buffer(self, kind: str, made: str) -> str:
        return self._held(kind, f'self.register_buffer("{{}}", {made})')

    def known_layer(self) -> str:
        found = [name for name, line in self.layers.items() if "nn." in line and "Parameter" not in line]
        return f"self.{self.chosen.choice(found)}"

    def tied(self) -> str:
        found = [n for n, line in self.layers.items() if re.search(r"= nn\.(Linear|Conv\dd)\(", line)]
        name = self.chosen.choice(found)
        made = self.layers[name].partition(" = ")[2]
        return self._held("tied", f"self.{{}} = {made}; self.{{}}.weight = self.{name}.weight")

    def line(self, expression: str) -> str:
        """A line more, and its variable."""
        name = f"v{next(self.count)}"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            self.values[name] = eval(expression, NAMES | {"self": self.module} | self.values)
        for value in self.values[name] if isinstance(self.values[name], tuple | list) else [self.values[name]]:
            if not isinstance(value, Tensor) or value.dim() > 5 or not value.is_floating_point():
                raise ValueError(f"{expression} is no activation")
            if not value.numel() or value.numel() > 4096 or not float(value.abs().max()) < LIMIT:
                raise ValueError(f"{expression} is empty, or too large")
            if value.shape[0] != SAMPLES:
                raise ValueError(f"{expression} has lost the batch")
        self.lines.append((name, expression))
        return name

    def operation(self, v: str) -> str:
        weights, operations = zip(*OPERATIONS[self.dims(v)], strict=True)
        found: str = self.chosen.choices(operations, weights)[0](self, v)
        return found

    # -- the whole ----------------------------------------------------------------------------------------------------

    def graph(self, size: int) -> Graph:
        if "tokens" in self.inputs:
            self._try(lambda v: f"{self.layer('embed', f'nn.Embedding({TOKENS}, 8)')}(tokens)", "tokens")
        while len(self.lines) < size:
            found = [name for name, value in self._tensors() if value.dim() in OPERATIONS]
            v = found[-1] if self.chance(0.75) else self.chosen.choice(found)
            self._try(self.operation, v)
        found = [name for name, value in self._tensors() if value.dim() > 1]
        result = self._head(found[-1])
        if self.chance(0.1):
            result = f"{result}, {found[-1]}"
        return Graph(self.seed, self.inputs, self.layers, tuple(self.lines), result)

    def _head(self, v: str) -> str:
        if self.dims(v) == 4 and self.chance(0.7):
            v = self.line(f"F.adaptive_avg_pool2d({v}, 1).flatten(1)" if self.chance(0.5) else f"{v}.mean((2, 3))")
        elif self.dims(v) > 2:
            v = self.line(f"{v}.mean(1)" if self.dims(v) == 3 and self.chance(0.5) else f"{v}.flatten(1)")
        return self.line(f"{self.layer('head', f'nn.Linear({self.shape(v)[1]}, {CLASSES})')}({v})")

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [
            (name, value)
            for name, value in self.values.items()
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1
        ]

    def _held(self, kind: str, line: str) -> str:
        name = f"{kind}{next(self.count)}"
        self.layers[name] = line.replace("{}", name)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            exec(self.layers[name], dict(NAMES), {"self": self.module})
        self.module.eval()
        return f"self.{name}"

    def _try(self, operation: Callable[[str], str], v: str) -> None:
        """Add an operation, or nothing where it does not fit."""
        lines, layers, values = list(self.lines), dict(self.layers), dict(self.values)
        # what a line writes over is another tensor than the one that others read
        self.values = {name: copy.deepcopy(value) for name, value in values.items()}
        try:
            self.line(operation(v))
        except Exception:
            self.lines, self.layers, self.values = lines, layers, values


def _used_layers(graph: Graph) -> set[str]:
    text = "\n".join([*(expression for _, expression in graph.lines), graph.result])
    found: set[str] = set()
    while wanted := set(re.findall(r"self\.(\w+)", text)) - found:
        found |= wanted
        text = "\n".join(graph.layers.get(name, "") for name in wanted)
    return found


def shrunk(graph: Graph, fails: Callable[[Graph], bool]) -> Graph:
    """The graph with fewer lines, one by one, as long as it fails.

    A line goes whose variable nothing reads, or whose variable another can stand for.
    """
    progress = True
    while progress:
        progress = False
        for index in reversed(range(len(graph.lines))):
            for smaller in _without(graph, index):
                try:
                    smaller.build()
                    good = fails(smaller)
                except Exception:
                    continue
                if good:
                    graph, progress = smaller, True
                    break
    return graph


def _without(graph: Graph, index: int) -> Iterable[Graph]:
    name = graph.lines[index][0]
    before = [*graph.inputs, *(other for other, _ in graph.lines[:index])]
    rest = graph.lines[:index] + graph.lines[index + 1 :]
    read = re.compile(rf"\b{name}\b")
    if not read.search("\n".join([*(e for _, e in rest), graph.result])):
        yield replace(graph, lines=rest)
        return
    for other in reversed(before):
        yield replace(
            graph,
            lines=tuple((n, read.sub(other, e)) for n, e in rest),
            result=read.sub(other, graph.result),
        )


def main(given: list[str]) -> None:
    """Print the network of a seed; with a method also what comes out, and the smallest one of which the same does."""
    graph = draw(int(given[0]))
    print(graph.source)
    if len(given) > 1:
        from benchmarks.kinds.graphs import kind_of, outcome

        word, told = outcome(graph, given[1])
        print(f"\n{word} {told}")
        if word != "works":

            def same(smaller: Graph) -> bool:
                found, why = outcome(smaller, given[1]) if trains(smaller) else ("", "")
                return found == word and kind_of(why)[:40] == kind_of(told)[:40]

            small = shrunk(graph, same)
            print(f"\n{small.source}\n\n{outcome(small, given[1])[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
