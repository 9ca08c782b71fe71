"""What a GPU computes is what the CPU computes. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewbits import recipe as recipes
from fewbits.assign import Assigner, ecq, ecqx
from fewbits.job import _job as jobs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"wide": (64, 300), "small": (10, 20), "filter": (32, 16, 3, 3)}
    return {name: torch.randn(shape, generator=generator) ** 3 for name, shape in shapes.items()}


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("step", ["range", "rate"])
@pytest.mark.parametrize("lam", [0.0, 0.1, 2.0])
def test_assignments(bits: int, step: str, lam: float) -> None:
    made = weights()
    scores = {name: w * torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) for name, w in made.items()}
    for assigner in (ecq(bits, lam, step_rule=step), ecqx(bits, lam, step=step)):
        here = assigned(assigner, made, scores)
        there = assigned(assigner, on_gpu(made), on_gpu(scores))
        for name, levels in here.items():
            assert there[name].is_cuda
            differing = int((levels != there[name].cpu()).sum())
            assert differing <= levels.numel() // 1000, name  # sums of relevance are rounded in another order


def assigned(assigner: Assigner, made: dict[str, Tensor], scores: dict[str, Tensor]) -> dict[str, Tensor]:
    plan, _ = assigner.update(made, scores, assigner.init(made))
    return {name: entry.levels for name, entry in plan.clustered.items()}


def on_gpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.cuda() for name, t in tensors.items()}


def test_a_whole_job(tmp_path: Path) -> None:
    values = recipes.load("demo").model_dump(by_alias=True, exclude_unset=True)
    values["pretrain"]["epochs"], values["train"]["epochs"], values["target"] = 4, 2, "12 KB"
    done = jobs.run(job := jobs.prepare(recipes.make(values)), tmp_path / "out")
    assert done.report.identical
    assert done.report.met
    decoded = job.decoded(tmp_path / "out" / done.report.recipe.get("output", "net.few")).cpu()
    here = jobs.accuracy(decoded, job.dataset.loader("test"))
    assert here == pytest.approx(done.report.accuracy_after, abs=0.6)
    assert here > 80
