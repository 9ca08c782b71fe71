"""`fewbits prune-search`: from a recipe to the recipe that prunes, and on to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import pytest
from test_cli import RECIPE, fewbits

from fewbits import recipe as recipes
from fewbits.search.layer_rates import Proxy
from fewbits.search.layer_rates._proxy import Kept


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("target: 14 KB", "prune: {sparsity: 0.5, schedule: cubic}\nrounds: 2"))
    return path


def test_what_is_found_can_be_compressed(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = fewbits("prune-search", recipe, "--out", out, "--method", "erk", "--evaluations", 30, "--min-kept", 9)
    assert ran.code == 3, ran.err
    assert "NOT both targets are met" in ran.out
    assert "of 30 evaluations" in ran.out
    assert "fewbits compress" in ran.out
    found = json.loads((out / "search.json").read_text())
    written = recipes.load(out / "pruned.yaml")
    assert written.prune is not None
    assert (written.prune.method, written.prune.rates) == ("layers", found["rates"])
    assert written.prune.schedule == "cubic", "how it rises is as it was"
    assert written.pretrain is None
    ran = fewbits("compress", out / "pruned.yaml", "--out", tmp_path / "net", "--set", "assign={method: none}")
    assert ran.code == 0, ran.err
    figures = json.loads((tmp_path / "net" / "report.json").read_text())
    assert figures["zeros"] == pytest.approx(found["sparsity"])


def test_targets_that_are_met_end_with_0(recipe: Path, tmp_path: Path) -> None:
    options = ("--method", "uniform", "--sparsity", 0.1, "--max-drop", 50)
    assert fewbits("prune-search", recipe, "--out", tmp_path / "easy", *options).code == 0


def test_an_interrupted_search_goes_on(recipe: Path, tmp_path: Path) -> None:
    options = ("--method", "random", "--evaluations", 12, "--sparsity", 0.9)
    assert fewbits("prune-search", recipe, "--out", tmp_path / "whole", *options).code == 3, "out of reach"
    real, runs = Proxy.__call__, []

    def measured(self: Proxy, kept: Kept) -> float:
        runs.append(kept)
        if len(runs) == 6:
            raise KeyboardInterrupt
        return real(self, kept)

    with mock.patch.object(Proxy, "__call__", measured):
        ran = fewbits("prune-search", recipe, "--out", tmp_path / "cut", *options)
    assert ran.code == 130
    assert "the best so far is kept" in ran.err
    assert not json.loads((tmp_path / "cut" / "search.json").read_text())["finished"]
    ran = fewbits("prune-search", recipe, "--out", tmp_path / "cut", *options)
    assert ran.code == 3
    assert "training on" not in ran.err, "the network of the first run is taken"
    both = [(tmp_path / place / "search.json").read_text() for place in ("whole", "cut")]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method", "greedi"], "did you mean 'greedy'"),
        (["--precision", "float8"], "float32 or bfloat16"),
        (["--min-kept", "x"], "min_kept is a number of weights or percent"),
        (["--evaluations", 0], "at least one evaluation"),
        (["--sparsity", 80], "the sparsity to reach must lie between 0 and 1, got 80"),
        (["--max-drop", "nan"], "max_drop is points of accuracy, at least 0 and below 100, got nan"),
        (["--method", "qlp", "--reward", "potentail"], "did you mean 'potential'"),
        (["--proxy", 5000], "cannot be taken of the 1077 training samples"),
    ],
)
def test_complaints(recipe: Path, tmp_path: Path, options: list[object], told: str) -> None:
    ran = fewbits("prune-search", recipe, "--out", tmp_path / "no", *options, "--set", "pretrain.epochs=0.1")
    assert ran.code == 2
    assert told in ran.err
    assert "--proxy" in options or "training on" not in ran.err, "told before anything is trained"


def test_an_agent_without_its_extra_is_told_before_anything_is_trained(recipe: Path, tmp_path: Path) -> None:
    gone = {n: m for n, m in sys.modules.items() if n.startswith("fewbits.search.layer_rates.agent")}
    with mock.patch.dict(sys.modules, {"stable_baselines3": None}):
        for name in gone:
            del sys.modules[name]
        ran = fewbits("prune-search", recipe, "--out", tmp_path / "no", "--method", "purl")
    sys.modules.update(gone)
    assert ran.code == 2
    assert "pip install 'fewbits[rl]'" in ran.err
    assert not (tmp_path / "no").exists()
