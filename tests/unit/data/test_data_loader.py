import pickle

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from torch.nn import functional as F

from fewbits.data import CropFlip, DataSet, Normalisation, Split
from fewbits.errors import DataError, RecipeError


def numbered(count):
    """Images whose pixels tell the sample's number, apart from the black border of a crop."""
    pixels = torch.arange(1, count + 1, dtype=torch.uint8)[:, None, None, None].expand(count, 3, 8, 8).clone()
    return Split(pixels, torch.arange(count) % 3)


@pytest.fixture
def dataset():
    return DataSet("numbers", numbered(50), numbered(10), numbered(20), ("a", "b", "c"), augmentation=CropFlip(2))


def epoch(loader):
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def numbers(inputs):
    return (inputs.amax(dim=(1, 2, 3)) * 255).round().long() - 1


def test_batches_are_normalised_float32(dataset):
    wanted = Normalisation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    x, y = next(iter(dataset.normalised(wanted).loader("train", 16)))
    mean, std = torch.tensor(wanted.mean)[:, None, None], torch.tensor(wanted.std)[:, None, None]
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    torch.testing.assert_close(x, (dataset.train.inputs[:16].float() / 255 - mean) / std)
    assert dataset.train.inputs.dtype == torch.uint8  # the stored images are left alone


def test_plain_order_covers_every_sample_once(dataset):
    loader = dataset.loader("train", 16)
    assert len(loader) == 4
    x, y = epoch(loader)
    assert numbers(x).tolist() == list(range(50))
    assert torch.equal(y, dataset.train.targets)


def test_shuffled_epochs_are_permutations_and_differ(dataset):
    loader = dataset.loader("train", 16, shuffle=True, seed=3)
    first, second = numbers(epoch(loader)[0]), numbers(epoch(loader)[0])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.arange(50))


def test_the_same_seed_gives_the_same_batches(dataset):
    one, two, other = (dataset.loader("train", 16, shuffle=True, augment=True, seed=s) for s in (3, 3, 4))
    for _ in range(2):
        a, b, c = epoch(one), epoch(two), epoch(other)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert not torch.equal(a[0], c[0])


def test_the_global_random_state_is_neither_used_nor_moved(dataset):
    before = torch.random.get_rng_state()
    first = epoch(dataset.loader("train", 16, shuffle=True, augment=True))[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(epoch(dataset.loader("train", 16, shuffle=True, augment=True))[0], first)


@pytest.mark.parametrize("fill", ["black", "edge"])
def test_batches_are_made_where_they_are_wanted(dataset, fill):
    """On the meta device every operation with a tensor that is elsewhere fails."""
    x, y = next(iter(dataset.loader("train", 16, shuffle=True, augment=CropFlip(2, fill=fill), device="meta")))
    assert (x.device.type, y.device.type) == ("meta", "meta")
    assert (x.shape, x.dtype, y.shape) == ((16, 3, 8, 8), torch.float32, (16,))
    assert dataset.train.inputs.device.type == "cpu"


def test_each_epoch_is_augmented_anew(dataset):
    loader = dataset.loader("train", 50, augment=True)
    first, second = epoch(loader)[0], epoch(loader)[0]
    assert torch.equal(numbers(first), numbers(second))  # the order stays
    assert not torch.equal(first, second)


def test_batch_size_changes_neither_order_nor_augmentation(dataset):
    small = epoch(dataset.loader("train", 7, shuffle=True, augment=True))
    large = epoch(dataset.loader("train", 50, shuffle=True, augment=True))
    assert torch.equal(small[0], large[0])


def test_resuming_at_an_epoch(dataset):
    straight = dataset.loader("train", 16, shuffle=True, augment=True)
    third = [epoch(straight) for _ in range(3)][2]
    resumed = dataset.loader("train", 16, shuffle=True, augment=True)
    resumed.sampler.set_epoch(2)
    assert torch.equal(epoch(resumed)[0], third[0])


def test_one_sample_equals_its_place_in_the_batch(dataset):
    samples = dataset.loader("train", 16, augment=True).dataset
    batch, targets = samples.__getitems__([3, 50 + 3, 49])  # sample 3 in epochs 0 and 1, and sample 49
    for i, position in enumerate([3, 53, 49]):
        x, y = samples[position]
        assert torch.equal(x, batch[i])
        assert y == targets[i]


def test_drop_last(dataset):
    assert [len(y) for _, y in dataset.loader("train", 16, drop_last=True)] == [16, 16, 16]


def test_a_worker_process_could_receive_the_samples(dataset):
    samples = dataset.loader("train", 16, augment=True).dataset
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again.__getitems__([1, 2])[0], samples.__getitems__([1, 2])[0])


def test_two_processes_share_the_samples(dataset):
    shards = [
        prepare_data_loader(dataset.loader("train", 5, shuffle=True, augment=True), num_processes=2, process_index=k)
        for k in range(2)
    ]
    whole = dataset.loader("train", 5, shuffle=True, augment=True)
    for _ in range(2):
        parts = [epoch(shard)[0] for shard in shards]
        expected = epoch(whole)[0]
        mine, theirs = (set(numbers(part).tolist()) for part in parts)
        assert not mine & theirs
        assert mine | theirs == set(range(50))
        # Batches are dealt out in turn, with the augmentation that one process would have seen.
        woven = torch.stack([part.reshape(5, 5, 3, 8, 8) for part in parts], dim=1).reshape(50, 3, 8, 8)
        assert torch.equal(woven, expected)


def test_accelerator_keeps_batches_and_epochs(dataset):
    try:
        prepared = Accelerator(cpu=True).prepare(dataset.loader("train", 16, shuffle=True, augment=True))
        plain = dataset.loader("train", 16, shuffle=True, augment=True)
        for _ in range(2):
            assert torch.equal(epoch(prepared)[0], epoch(plain)[0])
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)  # else other tests could not use another device


def slow_crop_flip(image, top, left, mirrored, padding, fill):
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                row = top + i - padding
                column = left + (width - 1 - j if mirrored else j) - padding
                if fill == "edge":
                    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
                if 0 <= row < height and 0 <= column < width:
                    out[c, i, j] = image[c, row, column]
    return out


@pytest.mark.parametrize("fill", ["black", "edge"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_augmentation_equals_a_loop_over_pixels(dtype, fill):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (20, 3, 7, 6), generator=generator).to(dtype)
    augmentation = CropFlip(padding=3, fill=fill)
    choices = augmentation.draw(20, generator)
    out = augmentation.apply(images, choices)
    assert out.dtype == dtype
    for image, (top, left, mirrored), found in zip(images, choices.tolist(), out, strict=True):
        assert torch.equal(found, slow_crop_flip(image, top, left, mirrored, 3, fill))


def test_augmentation_draws_every_corner_and_mirrors_half():
    choices = CropFlip(padding=1).draw(9000, torch.Generator().manual_seed(0))
    corners = F.one_hot(choices[:, 0] * 3 + choices[:, 1], 9).sum(dim=0)
    assert corners.min() > 850  # 1000 expected, deviation 30
    assert abs(choices[:, 2].sum() - 4500) < 250
    assert not CropFlip(flip=False).draw(100, torch.Generator())[:, 2].any()


def test_the_middle_crop_is_the_image():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(CropFlip(4).apply(images, torch.tensor([[4, 4, 0], [4, 4, 0]])), images)


def test_hold_out_is_stratified_disjoint_and_constant():
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 11)
    whole = Split(torch.arange(101.0)[:, None], targets)
    rest, taken = whole.hold_out(20)
    assert sorted([*rest.inputs.flatten().tolist(), *taken.inputs.flatten().tolist()]) == list(range(101))
    assert torch.bincount(taken.targets).tolist() == [12, 6, 2]
    assert torch.equal(whole.hold_out(20)[1].inputs, taken.inputs)


@pytest.mark.parametrize("count", [0, 50, -1])
def test_impossible_hold_out(count):
    with pytest.raises(DataError, match="cannot take"):
        numbered(50).hold_out(count)


def test_unusable_requests(dataset):
    with pytest.raises(RecipeError, match="did you mean 'validation'"):
        dataset.loader("valdation")
    with pytest.raises(RecipeError, match="at least 1"):
        dataset.loader("train", 0)
    plain = DataSet("plain", numbered(9), numbered(9), numbered(9), ("a", "b", "c"))
    with pytest.raises(RecipeError, match="no customary augmentation"):
        plain.loader("train", augment=True)
    with pytest.raises(RecipeError, match="cannot be cropped"):
        DataSet("flat", *[Split(torch.zeros(3, 5), torch.arange(3))] * 3, ("a", "b", "c")).loader(
            "train", augment=CropFlip()
        )
    with pytest.raises(RecipeError, match="did you mean 'edge'"):
        CropFlip(fill="egde")
    with pytest.raises(RecipeError, match="pad by -1"):
        CropFlip(padding=-1)
    with pytest.raises(RecipeError, match="do not fit"):
        Normalisation((0.0, 0.0), (1.0,))
    with pytest.raises(RecipeError, match="positive"):
        Normalisation((0.0,), (0.0,))


def test_inconsistent_data_is_refused():
    with pytest.raises(DataError, match="do not fit"):
        Split(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="float64"):
        Split(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="int64"):
        Split(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(DataError, match="class outside"):
        DataSet("short", numbered(9), numbered(9), numbered(9), ("a", "b"))
    with pytest.raises(DataError, match="validation split is empty"):
        DataSet("empty", numbered(9), numbered(0), numbered(9), ("a", "b", "c"))
