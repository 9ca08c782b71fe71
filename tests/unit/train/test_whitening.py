"""Whitened inputs have covariance one, and the layer that whitens them is an ordinary one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError
from fewbits.train.whitening import Whitened, zca


def correlated(*shape: int, seed: int = 0) -> Tensor:
    """Samples whose values depend on their neighbours and have no mean of zero."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(shape[0], *shape[1:], generator=generator).flatten(1)
    mixing = torch.eye(flat.shape[1]) + 0.5 * torch.randn(flat.shape[1], flat.shape[1], generator=generator)
    return (flat @ mixing + 3.0).reshape(shape)


def covariance(x: Tensor) -> np.ndarray:
    return np.cov(x.flatten(1).double().numpy().T, bias=True)


@pytest.mark.parametrize(("shape", "size"), [((9,), None), ((2, 5), None), ((2, 3, 3), None), ((4,), 5)])
def test_whole_samples_get_covariance_one(shape: tuple[int, ...], size: int | None) -> None:
    x = correlated(500, *shape)
    net = Whitened(nn.Identity(), shape, size)
    assert torch.equal(net(x), x), "the identity until it is fitted"
    net.fit([(part, None) for part in x.split(64)], eps=0.0)
    white = net(x)
    assert white.shape == x.shape
    np.testing.assert_allclose(covariance(white), np.eye(x[0].numel()), atol=1e-4)
    np.testing.assert_allclose(white.mean(0).flatten(), 0, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 12), (2, 7, 8)])
def test_a_patch_is_whitened_in_its_middle(shape: tuple[int, ...]) -> None:
    """The convolution gives what the whitening of every patch has in the middle of each channel."""
    x = correlated(60, *shape)
    net = Whitened(nn.Identity(), shape, 3)
    net.fit([(x, None)], eps=0.1)
    windows = x.unfold(2, 3, 1) if len(shape) == 2 else x.unfold(2, 3, 1).unfold(3, 3, 1)
    order = (0, 2, 1, 3) if len(shape) == 2 else (0, 2, 3, 1, 4, 5)
    patches = windows.permute(order).reshape(-1, shape[0] * 3 ** (len(shape) - 1)).double()
    mean = patches.mean(0)
    matrix = zca(torch.from_numpy(np.cov(patches.numpy().T, bias=True)), 0.1)
    white = ((patches - mean) @ matrix.T).reshape(len(patches), shape[0], -1)
    middle = white[:, :, white.shape[2] // 2]
    inside = net(x)[(..., *[slice(1, -1)] * (len(shape) - 1))]
    found = inside.movedim(1, -1).reshape(-1, shape[0])
    torch.testing.assert_close(found.double(), middle, atol=1e-4, rtol=1e-4)


def test_what_hardly_varies_is_not_enlarged_without_end() -> None:
    spread = torch.diag(torch.tensor([1.0, 1e-12]))
    assert zca(spread, 0.1).diagonal().max() < 5
    assert zca(spread, 0.0).diagonal().max() > 1e5


def test_the_whitening_is_not_trained_and_travels_with_the_network() -> None:
    net, other = (Whitened(nn.Linear(4, 2), (4,)) for _ in range(2))
    net.fit([(correlated(50, 4), None)])
    assert [name for name, _ in net.named_parameters()] == ["network.weight", "network.bias"]
    other.load_state_dict(net.state_dict())
    x = correlated(3, 4, seed=1)
    assert torch.equal(net(x), other(x))


def test_impossible_patches_and_no_data_are_refused() -> None:
    for size in (2, 9):
        with pytest.raises(RecipeError, match=f"odd size within samples.*got {size}"):
            Whitened(nn.Identity(), (3, 8, 8), size)
    with pytest.raises(RecipeError, match="not for samples of shape"):
        Whitened(nn.Identity(), (3, 8, 8, 8), 3)
    with pytest.raises(DataError, match="empty"):
        Whitened(nn.Identity(), (3,)).fit([])
