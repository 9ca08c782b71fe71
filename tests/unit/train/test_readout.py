"""The closed-form readout, against least squares and against leaving each sample out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError, UnsupportedError
from fewbits.task import Task
from fewbits.task.named import Regression
from fewbits.train import readout
from fewbits.train.readout import Ridge, head_of, ridge


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3, bias=bias))


class Named(nn.Module):
    """Gives its outputs by name, as networks of transformers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"hidden": self.inner[:2](x), "logits": self.inner(x)}


def data(samples: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 5, generator=generator)
    return x, (x[:, :3] + 0.5 * torch.randn(samples, 3, generator=generator)).argmax(1)


def features(net: nn.Sequential, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(net[:2](x).double())


def fitted(net: nn.Sequential, x: Tensor, t: Tensor, lam: float | None = None) -> Ridge:
    task = Regression() if t.is_floating_point() else None
    return ridge(net, net[3], lambda: zip(x.split(17), t.split(17), strict=True), lam=lam, task=task)


@pytest.mark.parametrize("bias", [True, False])
def test_ridge_is_least_squares_with_rows_for_the_penalty(bias: bool) -> None:
    net, (x, _) = network(bias), data()
    t = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    h = features(net, x)
    mean = h.mean(0) if bias else 0
    unit = ((h - mean) ** 2).mean()  # mean over samples and features of the variance
    fitted(net, x, t, lam=0.3)
    rows = np.concatenate([h - mean, np.sqrt(0.3 * unit * len(h)) * np.eye(8)])
    wanted = np.concatenate(
        [np.asarray(t.double()) - (np.asarray(t.double()).mean(0) if bias else 0), np.zeros((8, 3))]
    )
    weight = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    np.testing.assert_allclose(net[3].weight.detach(), weight, rtol=1e-4, atol=1e-5)
    if bias:
        np.testing.assert_allclose(net[3].bias.detach(), np.asarray(t).mean(0) - weight @ mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_error_is_that_of_each_sample_left_out(bias: bool) -> None:
    net, (x, _) = network(bias), data(25)
    t = torch.randn(25, 3, generator=torch.Generator().manual_seed(2)).double()
    h, lam = features(net, x), 0.1
    found = fitted(net, x, t.float(), lam=lam)
    unit = ((h - (h.mean(0) if bias else 0)) ** 2).mean() * 25 * lam
    total = 0.0
    for i in range(25):
        others = np.arange(25) != i
        design = np.concatenate([h, np.ones((25, 1))], 1) if bias else h
        penalty = np.sqrt(unit) * np.eye(design.shape[1])
        if bias:
            penalty[-1, -1] = 0
        rows = np.concatenate([design[others], penalty])
        wanted = np.concatenate([np.asarray(t)[others], np.zeros((len(penalty), 3))])
        coefficients = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        total += float(((np.asarray(t)[i] - design[i] @ coefficients) ** 2).sum())
    assert found.error == pytest.approx(total / 25, rel=1e-4)


def test_lambda_is_the_one_with_the_least_error() -> None:
    x, t = data()
    errors = {lam: fitted(network(), x, t, lam=lam).error for lam in readout.LAMBDAS}
    chosen = fitted(network(), x, t)
    assert chosen == (min(errors, key=errors.__getitem__), pytest.approx(min(errors.values())))


def test_classes_get_outputs_that_a_softmax_can_read() -> None:
    net, (x, t) = network().eval(), data(400)
    fitted(net, x, t)
    outputs = net(x).detach()
    assert (outputs.argmax(1) == t).float().mean() > 0.7
    losses = [float(F.cross_entropy(s * outputs, t)) for s in (0.5, 1.0, 2.0)]
    assert losses[1] == min(losses)


def test_only_the_last_layer_changes_and_modes_stay() -> None:
    net, (x, t) = network(), data()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    fitted(net, x, t)
    changed = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["3.weight", "3.bias"]
    assert net.training


def test_the_head_is_the_layer_that_gives_the_outputs() -> None:
    net = network()
    assert head_of(net, data()[0]) == ("3", net[3])
    named = Named(net)
    assert head_of(named, data()[0]) == ("inner.3", net[3])
    with pytest.raises(UnsupportedError, match="last linear layer '3' gives something else"):
        head_of(net.append(nn.Softmax(1)), data()[0])
    with pytest.raises(UnsupportedError, match="has no linear layer"):
        head_of(nn.Sequential(nn.Flatten()), data()[0])


def test_features_are_kept_as_the_head_gets_them_in_evaluation() -> None:
    net, (x, t) = network(), data()
    kept, targets = readout.features_once(net, net[3], zip(x.split(17), t.split(17), strict=True))
    np.testing.assert_allclose(kept, features(net, x), rtol=1e-5)
    assert torch.equal(targets, t)
    assert net.training
    with pytest.raises(DataError, match="empty"):
        readout.features_once(net, net[3], [])
    own = Task(loss=lambda outputs, targets: outputs.square().mean())
    with pytest.raises(UnsupportedError, match=r"one target for each sample.*leave once out"):
        readout.features_once(net, net[3], [(x, t[:-1])], own)


def test_what_ridge_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, t) = network(), data()
    with pytest.raises(DataError, match=r"targets of shape \(60, 1\); \[samples, classes\] and \[samples\] are needed"):
        ridge(net, net[3], lambda: [(x, t[:, None])])
    own = Task(loss=lambda outputs, targets: outputs.square().mean())
    with pytest.raises(UnsupportedError, match=r"classes \[samples\] or numbers \[samples, 3\].*take readout: sgd"):
        ridge(net, net[3], lambda: [(x, t[:, None])], task=own)
    with pytest.raises(DataError, match="empty"):
        ridge(net, net[3], list)
    monkeypatch.setattr(readout, "LARGEST", 7)
    with pytest.raises(UnsupportedError, match=r"readout of 8 features.*take readout: sgd"):
        fitted(net, x, t)
