"""A network without normalisation from weights that were trained with it: what a run without a GPU can start from."""

from __future__ import annotations

from pathlib import Path

import torch

from fewbits import zoo
from fewbits.data.normalisation import Normalisation
from fewbits.int8.folding import folded
from fewbits.job import folder as outputs
from rows import published_vgg


def vgg16(weights: Path, path: Path) -> None:
    """Fold the normalisation of trained VGG16-BN weights and write what is left, the paper's VGG16, to ``path``."""
    trained = zoo.build("vgg16-bn", dropout=False)
    zoo.load_weights(trained, weights)
    plain = zoo.build("vgg16", dropout=0.0)
    values = list(folded(trained)[0].state_dict().values())
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), trained.eval()(images), rtol=1e-4, atol=1e-4)
    outputs.save_float(plain, path, Normalisation(**published_vgg()["normalise"]))
