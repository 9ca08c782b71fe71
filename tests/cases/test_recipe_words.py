"""What YAML reads as something else than its writer meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from later import Net, batches

import fewbits as fb
from fewbits.errors import RecipeError
from fewbits.pipeline import check
from fewbits.recipe import load


def read(folder: Path, text: str) -> None:
    (folder / "a.yaml").write_text(f"schema: 2\n{text}\n")
    check(load(folder / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("train: {epochs: 0.5}\ntrain: {epochs: 0.1}", "train"),
        pytest.param("max_drop: no", "max_drop"),
        pytest.param("assign: {lam: off}", "assign.lam"),
        pytest.param("prune: {sparsity: yes}", "prune.sparsity"),
        pytest.param("train: {epochs: .inf}", "train.epochs"),
        pytest.param("target: 99999999999999 GB", "target"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        read(tmp_path, text)


def test_a_power_of_ten_is_a_number_among_options(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "schema: 2\nassign: {method: ecqx, lam: 0.3, options: {p: 1e-1}}\nmeasure: {name: magnitude}\ntrain: null\n"
    )
    fb.compress(Net(), batches(1), recipe=tmp_path / "a.yaml")


def test_a_power_of_ten_is_a_number_in_a_sweep(tmp_path: Path) -> None:
    ends = "{from: 1e-1, to: 1.0, log: true}"
    read(tmp_path, f"sweep: {{trials: 2, objectives: [accuracy, bytes], over: {{assign.lam: {ends}}}}}")


@pytest.mark.parametrize(
    "name", ["report.json", "float.safetensors", "report.html", "unfinished.state", "../o.few", "sub/o.few"]
)
def test_the_file_has_a_plain_name_of_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="output"):
        read(tmp_path, f"output: {name}")
