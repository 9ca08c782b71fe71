"""Where one global threshold empties layers, and a floor does not: a small MobileNetV2 on handwritten digits."""

import copy

import torch
from torch import nn

from benchmarks.unit import Place, Row, Unit
from fewbits.data import digits
from fewbits.pipeline import compress
from fewbits.recipe import Training
from fewbits.task import accuracy
from fewbits.train import pretrain
from fewbits.zoo.initialise import he_normal
from fewbits.zoo.mobilenet import InvertedResidual


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: a network trained with the seed, pruned at once and trained on."""
    recipe, data = unit.recipe, digits()
    assert recipe is not None
    model, test = inverted(unit.seed), data.loader("test", 256)
    first, second = (data.loader("train", 32, shuffle=True, seed=unit.seed + n) for n in (0, 1))
    pretrain(model, first, Training(epochs=10, lr=2e-3), seed=unit.seed)
    before = accuracy(model, test)
    found = compress(model.eval(), second, recipe=recipe)
    left = [int(entry.kept.sum()) for entry in found.plan.compressed.values()]
    return [
        unit.settings | {
            "data": "digits", "sparsity": 100 * found.report.zeros, "split": "test",
            "accuracy": accuracy(found.into(copy.deepcopy(model)), test), "baseline_accuracy": before,
            "fewest_survivors": min(left), "collapsed_layers": sum(n == 0 for n in left),
            "bytes": found.report.file_bytes,
        }
    ]  # fmt: skip


def inverted(seed: int) -> nn.Module:
    """MobileNetV2's blocks in small: 141,760 weights in 18 layers, among them depthwise ones and a shortcut's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            InvertedResidual(16, 24, 6, 1), InvertedResidual(24, 32, 6, 2),
            InvertedResidual(32, 64, 6, 1), InvertedResidual(64, 96, 6, 1),
            nn.Conv2d(96, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 10),
        )  # fmt: skip
        he_normal(model)
    return model
