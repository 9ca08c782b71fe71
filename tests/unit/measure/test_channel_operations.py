"""Every operation that channels meet: the narrowed network computes what the silenced one does, or says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from channel_networks import disagreement, removal
from fewbits.channels import dependencies
from fewbits.errors import UnsupportedError
from fewbits.graph import graph_of


class Around(nn.Module):
    """Two convolutions of an image with something in between; what is learnt there is called ``layer``."""

    def __init__(self, between: Callable[..., Tensor], layer: nn.Module | None = None, after: int = 8) -> None:
        super().__init__()
        self.first, self.beside, self.layer = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), layer
        self.second, self.between = nn.Conv2d(after, 2, 1), between
        self.scale, self.shift = nn.Parameter(torch.rand(8, 1, 1) + 0.5), nn.Parameter(torch.randn(8, 1, 1))
        self.register_buffer("order", torch.arange(8).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self, F.relu(self.first(x)), F.relu(self.beside(x))))


def channels_first(between: Callable[..., Tensor], **more: object) -> tuple[nn.Module, int]:
    """The network, its statistics not trivial, and how many channels of its first layer can go."""
    torch.manual_seed(0)
    model = Around(between, **more).double().eval()  # type: ignore[arg-type]
    for name, tensor in model.named_buffers():
        if "running" in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    found = dependencies(model, (3, 4, 4))
    return model, int((found.axes["first.weight"][0] >= 0).sum()) if "first.weight" in found.axes else 0


WORK = {
    "the rank and the type that are asked for": {
        "between": lambda m, x, y: (x * (x.ndim == 4) + x.dim()) * y.is_floating_point(),
    },
    "a depthwise convolution of two outputs each": {
        "between": lambda m, x, y: m.layer(x),
        "layer": nn.Conv2d(8, 16, 1, groups=8),
        "after": 16,
    },
    "groups": {"between": lambda m, x, y: m.layer(x), "layer": nn.Conv2d(8, 12, 1, groups=4), "after": 12},
    "a transposed convolution": {"between": lambda m, x, y: m.layer(x), "layer": nn.ConvTranspose2d(8, 8, 2, 2)},
    "a transposed depthwise one": {
        "between": lambda m, x, y: m.layer(x),
        "layer": nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
    },
    "outputs of a transposed one that are added": {
        "between": lambda m, x, y: m.layer(y) + x,
        "layer": nn.ConvTranspose2d(8, 8, 1),
    },
    "a slope for each channel": {"between": lambda m, x, y: m.layer(x - 1), "layer": nn.PReLU(8)},
    "instance normalisation": {"between": lambda m, x, y: m.layer(x), "layer": nn.InstanceNorm2d(8, affine=True)},
    "a scale of the network's own": {"between": lambda m, x, y: x * m.scale + m.shift},
    "a scale that is used twice": {"between": lambda m, x, y: x * m.scale + m.scale * y},
    "a tuple that is joined": {"between": lambda m, x, y: torch.cat(x.chunk(2, 1), 1)},
    "parts one by one": {"between": lambda m, x, y: torch.cat([2 * part for part in x.chunk(2, 1)], 1)},
    "a stack": {"between": lambda m, x, y: torch.stack([x, y], 1).sum(1)},
    "a stack behind": {"between": lambda m, x, y: torch.stack((x, y), dim=-1).amax(-1)},
    "a choice": {"between": lambda m, x, y: torch.where(x > y, x, 0.5 * y)},
    "three operands": {"between": lambda m, x, y: torch.addcmul(torch.lerp(x, y, 0.3), x, y, value=0.1)},
    "a power": {"between": lambda m, x, y: x**2 + torch.sin(y)},
    "a gated half": {"between": lambda m, x, y: F.glu(torch.cat([x, y], 1), 1)},
    "a gated half by a layer": {"between": lambda m, x, y: m.layer(torch.cat([x, y], 1)), "layer": nn.GLU(dim=1)},
    "shuffled channels": {"between": lambda m, x, y: m.layer(x), "layer": nn.ChannelShuffle(2)},
    "channels made places": {"between": lambda m, x, y: F.pixel_shuffle(x, 2), "after": 2},
    "channels made places by a layer": {"between": lambda m, x, y: m.layer(x), "layer": nn.PixelShuffle(2), "after": 2},
    "places made channels": {"between": lambda m, x, y: m.layer(x), "layer": nn.PixelUnshuffle(2), "after": 32},
    "channels in another order": {"between": lambda m, x, y: x.flip(1) + 0 * y},
    "channels twice": {"between": lambda m, x, y: x.repeat(1, 2, 1, 1), "after": 16},
    "a size of an axis": {"between": lambda m, x, y: x.unflatten(1, (2, -1)).sum(1), "after": 4},
    "the shape of another": {"between": lambda m, x, y: x.flatten(2).reshape(x.shape)},
    "as large as another": {"between": lambda m, x, y: x.mean((2, 3), keepdim=True).expand_as(y) * y},
    "the largest places": {"between": lambda m, x, y: x.max(2, keepdim=True)[0] + y.std(3, keepdim=True)},
    "indices that are left": {"between": lambda m, x, y: F.max_pool2d(x, 2, return_indices=True)[0]},
    "padding that reflects": {"between": lambda m, x, y: m.layer(x), "layer": nn.ReflectionPad2d(1)},
    "softmax over places": {"between": lambda m, x, y: m.layer(x), "layer": nn.Softmax(dim=-1)},
    "parts of places": {"between": lambda m, x, y: torch.cat(x.split([1, 3], 2)[::-1], 2)},
}


@pytest.mark.parametrize("name", WORK)
def test_what_goes_through_is_cut_with_what_it_meets(name: str) -> None:
    model, free = channels_first(**WORK[name])
    assert free == 8
    inputs = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    left = []
    for seed in range(3):
        off, small = disagreement(model, removal(model, (3, 4, 4), seed), inputs)
        assert off < 1e-12
        left.append(len(small.first.weight))
    assert min(left) < 8


STAYS = {
    "takes channels by their numbers": lambda m, x, y: x[:, [0, 1, 2, 3, 4, 5, 6, 7]],
    "index_select (index_select) takes channels": lambda m, x, y: x.index_select(1, m.order),
    "roll (roll) takes channels": lambda m, x, y: torch.roll(x, 1, 1),
    "split (split) takes channels": lambda m, x, y: torch.cat(x.split(4, 1), 1),
    "makes unequal parts": lambda m, x, y: torch.cat(x.chunk(3, 1), 1),
    "computes with their number": lambda m, x, y: x * x.shape[1] ** -0.5,
    "getitem (getitem) computes with their number": lambda m, x, y: torch.cat(
        [x[:, : x.size(1) // 2], x[:, x.size(1) // 2 :]], 1
    ),
    "runs over channels": lambda m, x, y: x - x.max(1, keepdim=True)[0],
    "over channels": lambda m, x, y: F.normalize(x),
    "has no rule": lambda m, x, y: torch.einsum("nchw->nchw", x),
    "pixel_shuffle (pixel_shuffle) has fixed sizes": lambda m, x, y: (F.pixel_shuffle(x.chunk(2, 1)[0], 2), x)[1],
    "ties it to what stays": lambda m, x, y: x + torch.ones(8, 1, 1),
}


@pytest.mark.parametrize("word", STAYS)
def test_what_stays_says_why(word: str) -> None:
    found = dependencies(Around(STAYS[word]), (3, 4, 4))
    assert word in found.fixed["first.weight"]


def test_a_tensor_of_ones_own_that_is_used_along_two_axes_stays() -> None:
    class Twice(Around):
        def __init__(self) -> None:
            super().__init__(
                lambda m, x, y: (x.flatten(2)[..., :8] * m.both + y.flatten(2).mT[:, :8] * m.both).unsqueeze(3)
            )
            self.both = nn.Parameter(torch.rand(8, 8))

        def used(self, x: Tensor, y: Tensor) -> Tensor:
            return x * self.both + y * self.both

    with pytest.raises(UnsupportedError, match=r"first\.weight: .* along two axes"):
        dependencies(Twice(), (3, 4, 4))


def test_a_network_that_takes_no_single_sample_is_named_with_the_place() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    with pytest.raises(UnsupportedError, match=r"1 \(BatchNorm1d\) does not take a single sample of shape \(4,\)"):
        dependencies(model, (4,))


def test_a_constant_is_no_attribute_of_ones_own_and_tracing_twice_reads_the_same() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).index_select(0, torch.tensor([0])))

    model = Constant()
    first, second = (([str(n.target) for n in graph_of(model).nodes]) for _ in range(2))
    assert first == second
