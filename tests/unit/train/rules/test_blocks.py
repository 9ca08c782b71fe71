"""A network in blocks computes what it computes as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.assign import global_magnitude
from fewbits.attach import attach, background
from fewbits.errors import UnsupportedError
from fewbits.task import Inputs
from fewbits.train.rules import Chain, blocks_of
from fewbits.weights import select
from fewbits.zoo.resnet import ResNet20
from learning import Functional, Skipping, convolutional, dense

IMAGE = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def in_blocks(chain: Chain, x: Tensor) -> Tensor:
    for block in chain:
        x = block(x)
    return x


def speech() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 64)),
        nn.Conv1d(1, 4, 5),
        nn.MaxPool1d(2),
        nn.ReLU(),
        nn.GroupNorm(2, 4),
        nn.Conv1d(4, 4, 3),
        nn.LayerNorm(28),
        nn.Flatten(),
        nn.Linear(112, 3),
    )


@pytest.mark.parametrize(
    ("make", "x", "names"),
    [
        (convolutional, IMAGE, ["0", "5", "8"]),
        (Functional, IMAGE, ["first", "second", "third", "last"]),
        (Skipping, IMAGE, ["stem", "inner", "head"]),
        (dense, torch.randn(4, 5), ["0", "2", "4"]),
        (speech, torch.randn(4, 64), ["1", "5", "8"]),
        (lambda: nn.Linear(5, 3), torch.randn(4, 5), ["0"]),
        (ResNet20, torch.randn(2, 3, 32, 32), None),
    ],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
def test_the_blocks_one_behind_the_other_are_the_network(
    make: Callable[[], nn.Module], x: Tensor, names: list[str] | None, training: bool, pooled: bool
) -> None:
    torch.manual_seed(0)
    network = make().train(training)
    chain = blocks_of(network, pooled=pooled)
    torch.manual_seed(1)
    whole = network(x.clone())
    before = x.clone()
    torch.manual_seed(1)
    assert torch.equal(in_blocks(chain, x), whole)
    assert torch.equal(x, before)
    assert names is None or [block.name for block in chain] == names
    paths = [path for block in chain for path in block.layers]
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    assert paths == [path for path, m in chain.network.named_modules() if isinstance(m, kinds)]
    held = [p for block in chain for p in block.parameters()]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for p in network.parameters()}


def test_a_residual_network_is_cut_where_one_path_is_left() -> None:
    chain = blocks_of(ResNet20())
    assert [len(block.layers) for block in chain] == [1, *[2] * 9, 1]
    with pytest.raises(UnsupportedError, match=r"layer1\.0\.conv1, layer1\.0\.conv2 lie on paths"):
        chain[1].layer  # noqa: B018
    with pytest.raises(UnsupportedError, match=r"mine trains networks .* layer1\.0\.conv1"):
        chain.check("mine")


@pytest.mark.parametrize("make", [convolutional, Functional])
def test_a_block_is_what_is_before_its_layer_the_layer_and_what_is_after(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    x = IMAGE
    with blocks_of(network).steady() as chain:
        for block in chain:
            a = block.layer(block.before(x))
            copy = a.clone()
            whole = block(x)
            assert torch.equal(block.after(a), whole)
            assert torch.equal(a, copy), "an activation in place writes over a copy"
            x = whole


def test_pooling_goes_where_it_is_asked_to() -> None:
    own, next_ = (blocks_of(convolutional(), pooled=pooled)[0](IMAGE).shape for pooled in (True, False))
    assert (own[-1], next_[-1]) == (4, 8)


def test_steady_blocks_drop_the_same_and_count_statistics_once() -> None:
    torch.manual_seed(0)
    network = convolutional()
    counted = int(network[1].num_batches_tracked)
    with blocks_of(network).steady() as chain:
        first = chain.activations(IMAGE)
        mean = network[1].running_mean.clone()
        torch.rand(7)
        again = chain.activations(IMAGE)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(network[1].running_mean, mean)
    assert int(network[1].num_batches_tracked) == counted + 1
    assert network[1].track_running_stats
    with blocks_of(network).steady() as chain:
        assert not torch.equal(chain.activations(IMAGE)[-1], first[-1]), "the next step drops others"


def test_a_network_without_dropout_draws_nothing() -> None:
    network, state = dense(), torch.get_rng_state()
    with blocks_of(network).steady() as chain:
        chain.activations(torch.zeros(1, 5))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_block_sees_the_plan_that_is_held() -> None:
    torch.manual_seed(0)
    network, x = dense(), torch.randn(4, 5)
    weights = select(network)
    assigner = global_magnitude(0.5)
    attach(network, assigner.update(weights, None, assigner.init(weights))[0])
    chain = blocks_of(network)
    assert torch.equal(in_blocks(chain, x), network(x))
    assert (chain[0].layer.weight == 0).sum() >= 10
    held = {id(p) for block in chain for p in block.parameters()}
    assert {id(p) for p in background(network).values()} <= held


class Forking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Two(Forking):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.layer(x) + y


class Optional(Two):
    """Other arguments than the inputs have defaults, as a mask of attention has."""

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, *, turned: bool = False) -> Tensor:  # type: ignore[override]
        x = self.layer(x) if mask is None else self.layer(x * mask)
        return -x if turned else scale * x


class Named(Two):
    def forward(self, pixels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        assert pixels is not None
        return self.layer(pixels)


class Around(Forking):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) + x


class Own(Forking):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layer.weight)


class Twice(Forking):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x), self.layer(-x)], 1)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Around(), "a path leads around layer layer"),
        (Own(), "forward computes with layer.weight itself"),
        (Twice(), "one is called twice"),
        (nn.Sequential(nn.Bilinear(4, 4, 4)), r"0 \(Bilinear\) is no linear"),
        (nn.ReLU(), "ReLU has no linear or convolutional layer"),
    ],
)
def test_blocks_that_are_more_than_a_layer_say_why(network: nn.Module, words: str) -> None:
    if isinstance(network, nn.Sequential):
        network.forward = lambda x: network[0](x, x)  # type: ignore[method-assign]
    chain = blocks_of(network)
    assert len(chain) == 1
    with pytest.raises(UnsupportedError, match=words):
        chain[0].before(torch.zeros(2, 4))


def test_networks_that_are_no_chain_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"Forking with torch\.fx.*layer by layer cannot train it, backprop can"):
        blocks_of(Forking())
    with pytest.raises(UnsupportedError, match="Two takes 2 inputs"):
        blocks_of(Two())


def test_arguments_that_have_defaults_keep_them() -> None:
    x = torch.randn(2, 4)
    for network in (Optional(), Named()):
        (block,) = chain = blocks_of(network)
        torch.testing.assert_close(block(x), network(x))
        assert chain.enter(x) is x
    assert chain.enter(Inputs((), {"pixels": x})) is x
    for inputs in (Inputs((x, x), {}), Inputs((), {"mask": x})):
        with pytest.raises(UnsupportedError, match="takes pixels alone"):
            chain.enter(inputs)
