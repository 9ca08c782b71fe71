"""Distillation from another network than the one that is compressed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits import zoo
from fewbits.data import Normalisation
from fewbits.data.normalisation import Renormalised
from fewbits.errors import DataError, RecipeError
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs
from fewbits.recipe import make

COMMON = {
    "network": {"name": "lenet-300-100", "options": {"inputs": 64}},
    "data": {"name": "digits"},
    "assign": {"method": "ecq"},
}


def test_the_teacher_is_what_training_listens_to(trained, handwriting) -> None:
    batches = list(handwriting.loader("train", 64))[:4]
    values = {"assign": {"method": "ecq"}, "train": {"epochs": 1, "lr": 1e-3, "distill": 1.0}}
    own = fb.compress(trained, batches, recipe=make(values))
    same = fb.compress(trained, batches, recipe=make(values), teacher=copy.deepcopy(trained))
    assert own.data == same.data, "the float network itself is the default"

    class Always(nn.Module):
        """Sure of class 3, whatever it sees; in training mode of nothing."""

        def forward(self, x):
            scores = torch.zeros(len(x), 10)
            if not self.training:
                scores[:, 3] = 20.0
            return scores

    long = make(values | {"train": {"epochs": 30, "lr": 1e-2, "distill": 1.0}})
    other = fb.compress(trained, batches, recipe=long, teacher=Always())
    net = other.into(copy.deepcopy(trained))
    assert (net(batches[0][0]).argmax(1) == 3).float().mean() > 0.9
    with pytest.raises(RecipeError, match=r"train\.distill"):
        fb.compress(trained, batches, recipe=make({"assign": {"method": "ecq"}}), teacher=Always())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"distill": 0.5, "teacher": {"name": "lenet-5"}}, "untrained teacher"),
        ({"teacher": {"name": "lenet-5", "weights": "w.safetensors"}}, "needs distill"),
    ],
)
def test_impossible_teachers(train, message) -> None:
    with pytest.raises(RecipeError, match=message):
        make({"train": train})


def test_inputs_are_normalised_for_the_teacher() -> None:
    given, wanted = Normalisation((0.2,), (0.5,)), Normalisation((0.1, 0.4, 0.3), (2.0, 3.0, 0.7))
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    seen = Renormalised(nn.Identity(), given, wanted)(given.apply(images))
    assert torch.allclose(seen, wanted.apply(images), atol=1e-6)


def test_a_recipe_names_a_teacher_of_other_size_and_normalisation(tmp_path) -> None:
    teacher = zoo.build("lenet-300-100", seed=1, inputs=64)
    outputs.save_float(teacher, tmp_path / "teacher.safetensors", Normalisation((0.3,), (0.2,)))
    outputs.save_float(zoo.build("lenet-300-100", seed=0, inputs=64), tmp_path / "own.safetensors", Normalisation())
    part = {"name": "lenet-300-100", "options": {"inputs": 64}, "weights": str(tmp_path / "teacher.safetensors")}
    values = COMMON | {"train": {"epochs": 0.2, "distill": 0.5, "teacher": part}}
    said: list[str] = []
    job = jobs.prepare(make(values), trained=tmp_path / "own.safetensors", say=said.append)
    assert "lenet-300-100 teaches" in said
    assert isinstance(job.teacher, Renormalised)
    raw = next(iter(job.dataset.normalised(Normalisation((0.3,), (0.2,))).loader("test", 16)))[0]
    inputs = next(iter(job.dataset.loader("test", 16)))[0]
    assert torch.allclose(job.teacher(inputs), teacher.eval()(raw), atol=1e-4)
    result = jobs.run(job, tmp_path / "out")
    assert result.report.identical

    wrong = part | {"options": {"inputs": 32}}
    outputs.save_float(zoo.build("lenet-300-100", inputs=32), tmp_path / "teacher.safetensors", Normalisation())
    with pytest.raises(DataError, match="lenet-300-100 does not take"):
        jobs.prepare(
            make(values | {"train": {"epochs": 1, "distill": 0.5, "teacher": wrong}}),
            trained=tmp_path / "own.safetensors",
        )
