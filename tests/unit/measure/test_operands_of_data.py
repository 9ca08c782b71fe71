"""Operations that are linear in some of their operands only, and scales that are features: right, or a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.measure import relevance
from fewbits.measure.relevance import COMPOSITES, Propagated, Rules, Tape, propagate
from networks import sharp

EPSILON = sharp(COMPOSITES["epsilon"])
DETACH = dataclasses.replace(EPSILON, attention="detach")


class Three(nn.Module):
    """Three dense layers whose outputs a function joins."""

    def __init__(self, join: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.g, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self.a(x), self.b(x), self.g(x)))


def three(join: Callable[[Tensor, Tensor, Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Three(join).double()


X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BATCH = [(X, torch.zeros(3, dtype=torch.long))]


def found_in(model: nn.Module, rules: Rules = EPSILON, x: Tensor = X) -> tuple[Propagated, float]:
    """Relevance of the first score with its books, and what arrived in all over what started."""
    tape = Tape(model, account=True)
    with tape.watch():
        outputs = model(x)
    start = torch.zeros_like(outputs)
    start[:, 0] = outputs.detach()[:, 0]
    found = propagate(outputs, start, rules, tape, inputs=True, account=True)
    arrived = sum(float(r.sum()) for r in found.sources) + sum(found.biases.values())
    return found, arrived / float(start.sum())


@pytest.mark.parametrize("rules", [EPSILON, DETACH], ids=["half", "detach"])
def test_a_gate_in_lerp_is_a_product_written_short(rules: Rules) -> None:
    short, total = found_in(three(lambda a, b, g: torch.lerp(a, b, g.sigmoid())), rules)
    long, _ = found_in(three(lambda a, b, g: a + g.sigmoid() * (b - a)), rules)
    torch.testing.assert_close(short.weights, long.weights)
    torch.testing.assert_close(short.inputs, long.inputs)
    assert total == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("rules", [EPSILON, DETACH], ids=["half", "detach"])
@pytest.mark.parametrize("dim", [1, -1])
def test_a_gated_linear_unit_is_a_product_written_short(dim: int, rules: Rules) -> None:
    short, total = found_in(three(lambda a, b, g: F.glu(torch.cat([b, g], 1), dim)), rules)
    long, _ = found_in(three(lambda a, b, g: b * g.sigmoid()), rules)
    torch.testing.assert_close(short.weights, long.weights)
    torch.testing.assert_close(short.inputs, long.inputs)
    assert total == pytest.approx(1, rel=1e-6)


def test_a_gate_between_constants_in_lerp() -> None:
    ends = torch.arange(4.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    short, _ = found_in(three(lambda a, b, g: a + torch.lerp(*ends, g.sigmoid())))
    long, _ = found_in(three(lambda a, b, g: a + (ends[0] + g.sigmoid() * (ends[1] - ends[0]))))
    torch.testing.assert_close(short.weights, long.weights)


def sampled(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    image, grid = a.reshape(-1, 1, 2, 2), torch.tanh(b).reshape(-1, 1, 2, 2)
    return F.grid_sample(image, grid, align_corners=False).flatten(1).repeat(1, 2)


def test_sampling_where_the_data_says() -> None:
    """It is linear in the image, and not in the places; these have no rule."""
    with pytest.raises(UnsupportedError, match="no relevance rule for the operation GridSampler2D"):
        relevance(three(sampled), BATCH)
    fixed = three(lambda a, b, g: sampled(a, torch.ones_like(b) / 3, g))
    assert found_in(fixed)[1] == pytest.approx(1, rel=1e-6)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "Std": lambda b: b.std(1, keepdim=True),
    "Var": lambda b: b.var(1, keepdim=True),
    "Sqrt": lambda b: b.abs().sqrt()[:, :1],
    "LinalgVectorNorm": lambda b: torch.linalg.vector_norm(b, dim=1, keepdim=True),
    "Round": lambda b: b.round()[:, :1],
    "VarMean": lambda b: torch.var_mean(b, 1, keepdim=True)[0],
}


@pytest.mark.parametrize("account", [False, True])
@pytest.mark.parametrize("how", ["joined", "added", "alone"])
@pytest.mark.parametrize("name", POOLS)
def test_a_scale_that_is_a_feature_has_no_rule(name: str, how: str, account: bool) -> None:
    """Statistics pooling: all that lies behind it would have no relevance, and nobody would know."""
    pool = POOLS[name]
    joins: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "joined": lambda a, b, g: torch.cat([a[:, :3], pool(b)], 1),
        "added": lambda a, b, g: a + pool(b),
        "alone": lambda a, b, g: pool(b).expand(-1, 4),
    }
    model = three(joins[how])
    with pytest.raises(UnsupportedError, match=f"no relevance rule for the operation {name}Backward"):
        found_in(model) if account else relevance(model, BATCH)


@pytest.mark.parametrize("key", [torch.std, "Std"])
def test_a_standard_deviation_as_a_feature_can_be_called_linear(key: object) -> None:
    """It is homogeneous, so its derivative conserves relevance."""
    model = three(lambda a, b, g: torch.cat([a[:, :3], b.std(1, keepdim=True)], 1))
    found = relevance(model, BATCH, rules=EPSILON, operations={key: "linear"}).weights
    model(X)[:, 0].sum().backward()
    torch.testing.assert_close(found["b.weight"], (model.b.weight * model.b.weight.grad).detach() / 3)
    scaled = relevance(model, BATCH, rules=EPSILON, operations={key: "scale"}).weights
    assert not scaled["b.weight"].any()


NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "var and mean": lambda a: (a - a.mean(1, keepdim=True)) / a.std(1, keepdim=True),
    "std_mean": lambda a: (a - torch.std_mean(a, 1, keepdim=True)[1]) / torch.std_mean(a, 1, keepdim=True)[0],
    "var_mean": lambda a: (a - (s := torch.var_mean(a, 1, keepdim=True))[1]) * s[0].rsqrt(),
    "multiplied": lambda a: (a - (s := torch.std_mean(a, 1, keepdim=True))[1]) * (1 / s[0]),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_a_mean_is_data_also_where_it_comes_with_a_variance(name: str) -> None:
    normalise = NORMALISED[name]
    layer = nn.LayerNorm(4, elementwise_affine=False, eps=0).double()
    found, total = found_in(three(lambda a, b, g: normalise(a)))
    expected, _ = found_in(three(lambda a, b, g: layer(a) * 0.75**0.5))  # of the standard deviation for samples
    torch.testing.assert_close(found.inputs, expected.inputs)
    torch.testing.assert_close(found.weights, expected.weights)
    assert total == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_gives_its_table_relevance(mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(7, 4, mode=mode), nn.ReLU(), nn.Linear(4, 2)).double()
    tokens, table = torch.randint(7, (3, 5)), model[0].weight
    found, total = found_in(model, x=tokens)
    (gradient,) = torch.autograd.grad(model(tokens)[:, 0].sum(), table)
    torch.testing.assert_close(found.weights["0.weight"], table.detach() * gradient)
    assert total == pytest.approx(1, rel=1e-6)


def test_a_table_with_sparse_gradients() -> None:
    torch.manual_seed(0)
    tokens, head = torch.randint(7, (3, 5)), nn.Linear(4, 2)
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Embedding(7, 4, sparse=sparse), nn.Flatten(), nn.Linear(20, 4), nn.ReLU(), head)
        found.append(relevance(model, [(tokens, torch.zeros(3, dtype=torch.long))]).weights)
    torch.testing.assert_close(found[1], found[0])
    assert found[1]["0.weight"].any()
