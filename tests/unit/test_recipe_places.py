"""Files that a recipe names lie beside it, wherever one stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fewbits import recipe as recipes
from fewbits.recipe.places import beside, written_to
from fewbits.recipe.sections import without_folders

OWN = {
    "schema": 2,
    "network": {"name": "code/mine.py:Net", "weights": "net.safetensors"},
    "data": {"name": "../data.py:loaders"},
    "task": "mine.py:task",
    "train": {"distill": 0.5, "teacher": {"name": "mine.py:large", "weights": "elsewhere.safetensors"}},
}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``jobs`` with a recipe and weights, in the folder where one stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "net.safetensors").write_bytes(b"")
    (tmp_path / "jobs" / "recipe.yaml").write_text(yaml.safe_dump(OWN))
    return Path("jobs")


@pytest.mark.parametrize("absolute", [False, True])
def test_paths_start_from_the_working_folder(jobs: Path, absolute: bool) -> None:
    found = recipes.load((jobs.absolute() if absolute else jobs) / "recipe.yaml")
    assert found.network is not None
    assert found.data is not None
    assert found.train.teacher is not None
    assert (found.network.name, found.network.weights) == ("jobs/code/mine.py:Net", "jobs/net.safetensors")
    assert (found.data.name, found.task.name) == ("data.py:loaders", "jobs/mine.py:task")
    assert found.train.teacher.name == "jobs/mine.py:large"
    assert found.train.teacher.weights == "elsewhere.safetensors", "what does not lie there is meant as it was"


def test_from_elsewhere_the_paths_are_whole(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = jobs.absolute()
    (place / "deep").mkdir()
    monkeypatch.chdir(place / "deep")
    for source in (place / "recipe.yaml", Path("../recipe.yaml")):
        found = recipes.load(source)
        assert found.network is not None
        assert Path(found.network.name.removesuffix(":Net")).resolve() == place / "code" / "mine.py"


@pytest.mark.parametrize("name", ["resnet-20", "package.module:make", "torchvision:resnet18", "transformers:me/net"])
def test_other_names_stay(jobs: Path, name: str) -> None:
    assert beside({"network": {"name": name}}, jobs) == {"network": {"name": name}}


def test_a_folder_of_transformers_lies_beside_the_recipe_if_it_is_there(jobs: Path) -> None:
    (jobs / "bert").mkdir()
    found = beside({"network": {"name": "transformers:bert"}}, jobs)
    assert found == {"network": {"name": "transformers:jobs/bert"}}


def test_what_is_no_recipe_is_left_for_its_own_error() -> None:
    for values in ({"network": 3, "train": None}, {"network": {"name": 3, "weights": []}}, {"task": 5}):
        assert beside(values, Path("jobs")) == values


def test_writing_is_the_opposite_of_reading(jobs: Path, tmp_path: Path) -> None:
    read = recipes.load(jobs / "recipe.yaml").model_dump(mode="json", by_alias=True, exclude_unset=True)
    out = tmp_path / "out" / "deep"
    out.mkdir(parents=True)
    (out / "again.yaml").write_text(yaml.safe_dump(written_to(read, Path("out/deep"))))
    assert recipes.load(out / "again.yaml") == recipes.load(jobs / "recipe.yaml")


def test_files_and_reports_have_names_without_folders() -> None:
    assert without_folders("/home/me/mine.py:Net") == "mine.py:Net"
    assert without_folders(r"code\mine.py:Net.Inner") == "mine.py:Net.Inner"
    assert without_folders("transformers:/models/bert") == "transformers:bert"
    assert without_folders("resnet-20") == "resnet-20"
