"""Optimal Brain Surgeon's scores, against Fisher matrices that are written out and inverted whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import NonFiniteError, UnsupportedError
from fewbits.measure import TrainingStep, control, surgeon
from fewbits.weights import select


def scores(model: nn.Module, x: Tensor, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Of one batch, whose loss is half the squared outputs, so that their gradients are the outputs themselves."""
    scorer = control("obs", 0, model)
    with scorer.watch():
        outputs = model(x)
    (outputs.square().sum() / 2).backward()
    return scorer.scores(TrainingStep(outputs, None, select(model) if weights is None else weights, {}))


def damped(moments: Tensor) -> Tensor:
    return moments + surgeon.DAMPING * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)


def whole(weight: Tensor, patches: Tensor, gradients: Tensor) -> Tensor:
    """``w_q^2 / (2 [H^-1]_qq)`` with ``H`` written out.

    Args:
        weight: ``[outputs, inputs]``. patches: ``[n, inputs]``. gradients: ``[n, outputs]``.
    """
    a, g = damped(patches.T @ patches / len(patches)), damped(gradients.T @ gradients)
    inverse = torch.linalg.inv(torch.kron(g, a))
    return (weight.flatten().square() / (2 * inverse.diagonal())).view_as(weight)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5)])
def test_linear(shape: tuple[int, ...]) -> None:
    model, x = nn.Sequential(nn.Linear(5, 4)), drawn(*shape)
    rows = x.reshape(-1, 5).double()
    weight = model[0].weight.detach().double()
    expected = whole(weight, rows, model(x).detach().reshape(-1, 4).double())
    torch.testing.assert_close(scores(model, x)["0.weight"].double(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("dims", "settings"),
    [
        (1, {"groups": 2, "stride": 2, "padding": 1}),
        (1, {"dilation": 2, "padding": "same"}),
        (2, {"stride": (2, 1), "padding": (0, 1), "padding_mode": "circular"}),
        (2, {"groups": 4}),
        (3, {"padding": 1, "padding_mode": "reflect"}),
    ],
)
@pytest.mark.parametrize("at_once", [1, 2**24])
def test_convolutions(dims, settings, at_once, monkeypatch) -> None:
    monkeypatch.setattr(surgeon, "AT_ONCE", at_once)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](4, 8, 2 + (dims == 1), bias=False, **settings)
    x, groups = drawn(3, 4, *[5] * dims), settings.get("groups", 1)
    found = scores(nn.Sequential(layer), x)["0.weight"]
    inputs = layer.weight[0].numel()
    # What goes into a weight is what its output would be if it were one, and all others zero.
    probe = type(layer)(4, groups * inputs, layer.kernel_size, bias=False, **settings)
    probe.weight.data = torch.eye(inputs).repeat(groups, 1).view_as(probe.weight)
    patches, gradients = (f(x).detach().movedim(1, -1).flatten(0, -2).double() for f in (probe, layer))
    each = zip(
        layer.weight.detach().double().flatten(1).chunk(groups),
        patches.chunk(groups, 1),
        gradients.chunk(groups, 1),
        strict=True,
    )
    expected = torch.cat([whole(*group) for group in each]).view_as(found)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-8)


def test_what_least_squares_loses_when_a_weight_goes_and_the_others_are_fitted_anew(monkeypatch) -> None:
    monkeypatch.setattr(surgeon, "DAMPING", 1e-7)
    x = (drawn(64, 6) @ drawn(6, 6)).double()
    y = drawn(64, 1).double() + x.sum(1, keepdim=True)
    best = torch.linalg.lstsq(x, y).solution
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    model[0].weight.data = best.T.float()
    found = scores(model, x.float())["0.weight"][0].double()

    def error(left: Tensor) -> Tensor:
        return (left @ torch.linalg.lstsq(left, y).solution - y).square().sum()

    lost = torch.stack([error(x[:, [i for i in range(6) if i != j]]) - error(x) for j in range(6)])
    torch.testing.assert_close(found / found.sum(), lost / lost.sum(), rtol=1e-3, atol=1e-5)
    plain = model[0].weight.detach()[0].double().square()
    assert not torch.equal(found.argsort(), plain.argsort())


class Conv1D(nn.Module):
    """As transformers have it: ``[inputs, outputs]``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_weights_of_inputs_by_outputs() -> None:
    turned, plain, x = nn.Sequential(Conv1D()), nn.Sequential(nn.Linear(5, 3, bias=False)), drawn(9, 5)
    plain[0].weight.data = turned[0].weight.detach().T.clone()
    torch.testing.assert_close(scores(turned, x)["0.weight"].T, scores(plain, x)["0.weight"])


@pytest.mark.parametrize("most", [2, 8192])
def test_embeddings_and_what_is_too_large_have_no_partners(most: int, monkeypatch) -> None:
    monkeypatch.setattr(surgeon, "MOST", most)
    model, ids = nn.Sequential(nn.Embedding(6, 3)), torch.tensor([[0, 1, 1], [4, 1, 0]])
    found = scores(model, ids)["0.weight"]
    asked = torch.bincount(ids.flatten(), minlength=6).double() / 6
    gradients = model(ids).detach().flatten(0, 1).double()
    g = gradients.T @ gradients
    a = asked.diag() + surgeon.DAMPING * asked.mean() * torch.eye(6, dtype=torch.float64)
    g = damped(g if most > 3 else g.diagonal().diag())
    expected = model[0].weight.detach().double().square() / 2
    expected = expected / a.inverse().diagonal()[:, None] / g.inverse().diagonal()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-10)
    factors = found / model[0].weight.detach().square()
    assert (factors[2] < factors[0] / 10).all()  # nobody asked for it


class Words(nn.Module):
    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight if tied else nn.Parameter(self.table.weight.detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))


def test_uses_of_a_weight_add_up() -> None:
    one, two, ids = Words(tied=True), Words(tied=False), torch.tensor([[0, 1, 2], [3, 1, 6]])
    two.load_state_dict(one.state_dict())
    (together,), apart = scores(one, ids).values(), scores(two, ids)
    torch.testing.assert_close(together, apart["table.weight"] + apart["head.weight"])
    assert (apart["table.weight"] > 0).any()


def test_layers_that_say_nothing_are_errors() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "never": nn.Linear(3, 3), "cell": nn.GRU(3, 3)})
    scorer = control("obs", 0, model)
    with scorer.watch():
        model["used"](drawn(2, 3)).sum().backward()
    for name, match in {"never.weight": "not called", "cell.weight_hh_l0": "linear and convolutional"}.items():
        weights = {name: model.get_parameter(name)}
        with pytest.raises(UnsupportedError, match=f"{name}.*{match}.*select.exclude"):
            scorer.scores(TrainingStep(drawn(1), None, weights, {}))
    with pytest.raises(NonFiniteError, match=r"0\.weight: inputs"):
        scores(nn.Sequential(nn.Linear(3, 3)), torch.full((2, 3), float("inf")))


def test_a_dead_layer_scores_nothing() -> None:
    assert not scores(nn.Sequential(nn.Linear(3, 3, bias=False)), torch.zeros(2, 3))["0.weight"].any()
