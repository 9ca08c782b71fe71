"""What holders made is made again in the backward pass: the same gradients, and no value that stays."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from fewbits import assign
from fewbits.attach import _recomputed, attach, recomputed
from fewbits.weights import select


class Net(nn.Module):
    """A convolution, an attention that takes its weight apart, and a weight of two layers."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
        self.down.weight = self.up.weight
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        wide = torch.sigmoid(self.up(x))
        if self.inplace:
            wide.add_(1)  # which the gradient of the sigmoid needs as it was
        return self.down(wide).mean(1)


def attached(assigner: assign.Assigner, *, inplace: bool = False) -> nn.Module:
    net = Net(inplace=inplace)
    weights = select(net)
    attach(net, assigner.update(weights, None, assigner.init(weights))[0], learn=True)
    return net


METHODS = {
    "grid": assign.ecq(4, 0.1),
    "codebook": assign.ternary(0.05),
    "mask": assign.global_magnitude(0.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_the_same_and_no_value_stays(method: str, monkeypatch) -> None:
    net, x = attached(METHODS[method]), torch.randn(4, 1, 6, 6)
    values, mark = [], _recomputed._mark
    monkeypatch.setattr(_recomputed, "_mark", lambda *a: (values.append(weakref.ref(a[2])), mark(*a))[1])
    net(x).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad(set_to_none=True)
    with recomputed(net):
        loss = net(x).square().sum()
        assert len(values) == 7  # a plan holds one of each, but the attention asks twice for two of its weights
        assert not any(value() is not None for value in values)
        loss.backward()
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_is_written_over_is_still_named() -> None:
    net = attached(METHODS["grid"], inplace=True)
    with recomputed(net), pytest.raises(RuntimeError, match=r"inplace operation.*output 0 of SigmoidBackward"):
        net(torch.randn(4, 1, 6, 6)).sum().backward()


def test_outside_everything_is_as_before() -> None:
    net = attached(METHODS["grid"])
    with recomputed(net):
        pass
    assert not hasattr(net.up.weight, _recomputed.MADE)
