"""What recipes can say together: rows of methods and pruners over one pipeline of stages."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits import recipe as recipes
from fewbits.assign import ternary
from fewbits.data import DataSet
from fewbits.errors import RecipeError
from fewbits.int8 import is_integer
from fewbits.pipeline import METHODS, PRUNERS, check, stages_of
from fewbits.pipeline.methods import Method
from fewbits.plan import Affine, Masked
from fewbits.task import accuracy

SHORT = {"epochs": 0.3, "lr": 1e-3}


@pytest.fixture
def run(trained: nn.Module, handwriting: DataSet) -> Callable[..., fb.Compressed]:
    def run(**values: Any) -> fb.Compressed:
        state = values.pop("state_file", None)
        progress = values.pop("progress", None)
        return fb.compress(
            trained,
            handwriting.loader("train", 64, shuffle=True, seed=1),
            evaluate=lambda net: accuracy(net, handwriting.loader("validation", 256)),
            recipe=recipes.make({"rounds": 2, **values}),
            state_file=state,
            progress=progress,
        )

    return run


def loaded(small: fb.Compressed, trained: nn.Module, tmp_path: Path) -> nn.Module:
    """What a file gives on an untrained network; its outputs are those that were evaluated."""
    small.save(tmp_path / "net.few")
    like = copy.deepcopy(trained)
    for parameter in like.parameters():
        parameter.data.zero_()
    net = fb.load(tmp_path / "net.few", like=like)
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.equal(net(inputs), small.into(copy.deepcopy(trained))(inputs))
    return net


@pytest.mark.parametrize("method", ["ecq", "ecqx", "ternary", "none", "int8"])
def test_any_method_without_training(method: str, run, trained: nn.Module, tmp_path: Path) -> None:
    more = {"prune": {"sparsity": 0.3}} if method == "none" else {}
    if method in ("ecq", "ecqx"):
        more["target"] = 1500
    small = run(assign={"method": method}, train=None, **more)
    assert small.report.identical
    assert small.report.steps == 0
    if "target" in more:
        assert 1450 <= len(small.data) <= 1500
    loaded(small, trained, tmp_path)
    floats = {n: p for n, p in trained.named_parameters() if p.dim() < 2}
    for name in floats:  # nothing was trained: what is no compressed weight only lost bits, or moved into a shift
        assert small.plan.get(name) is None or small.plan[name].shape == floats[name].shape


def test_pruning_and_int8_are_one_file(run, trained: nn.Module, tmp_path: Path) -> None:
    small = run(assign={"method": "int8"}, prune={"sparsity": 0.5}, train=SHORT)
    entries = small.plan.compressed
    assert all(isinstance(entry, Affine) for entry in entries.values())
    zeros = sum(int((~entry.kept).sum()) for entry in entries.values())
    assert zeros >= 0.5 * sum(entry.kept.numel() for entry in entries.values())
    assert is_integer(loaded(small, trained, tmp_path))
    assert small.report.kind == "quantized"


@pytest.mark.parametrize("train", [None, SHORT])
@pytest.mark.parametrize("method", ["ecq", "ecqx", "ternary", "none"])
def test_clusters_and_pruned_floats_with_integer_activations(
    method: str, train: Any, run, trained: nn.Module, tmp_path: Path
) -> None:
    more = {"none": {"prune": {"sparsity": 0.5}}, "ternary": {}}.get(method, {"target": 1500})
    small = run(assign={"method": method}, activations="int8", train=train, **more)
    kind = Masked if method == "none" else Affine
    assert all(isinstance(entry, kind) for entry in small.plan.compressed.values())
    net = loaded(small, trained, tmp_path)
    assert is_integer(net)
    assert small.report.identical
    assert "int8 activations" in small.report.method
    if "target" in more:
        assert 1450 <= len(small.data) <= 1500


def test_distillation_alone(run, trained: nn.Module) -> None:
    small = run(assign={"method": "none"}, train=SHORT | {"distill": 1.0})
    assert not small.plan.compressed
    assert small.report.method == "distilled"
    assert small.report.identical
    changed = [n for n, p in trained.named_parameters() if not torch.equal(small.plan[n].values(), p)]
    assert changed


def test_an_interrupted_run_with_integer_activations_goes_on_to_the_same_bytes(run, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "assign": {"method": "ecq"}, "activations": {}, "target": 1800, "train": SHORT, "channels": {"channels": 0.8},
    }  # fmt: skip
    values["channels"] |= {"samples": 64, "train": {"epochs": 0.2}}
    whole = run(**values)
    lines: list[str] = []

    def stop(done: int, total: int, line: str) -> None:
        lines.append(line)
        if "bytes" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(**values, state_file=tmp_path / "state", progress=stop)
    assert run(**values, state_file=tmp_path / "state").data == whole.data
    assert not list(tmp_path.iterdir())


def test_scores_that_nobody_reads_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"nothing reads the scores of measure: assign\.method ecq"):
        check(recipes.make({"assign": {"method": "ecq"}, "measure": {"name": "taylor"}}))
    check(recipes.make({"assign": {"method": "ecqx"}, "measure": {"name": "taylor"}}))


def test_a_row_more_is_a_method_more(run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="no 'mine'"):
        run(assign={"method": "mine"}, train=None)
    monkeypatch.setitem(METHODS, "mine", Method(ternary, bits=2))
    assert run(assign={"method": "mine", "lam": 0.1}, train=None).report.method == "mine, without training"


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_every_pruner_says_what_it_takes(name: str) -> None:
    row = PRUNERS[name]
    amounts = {"sparsity": 0.5, "rates": {"*": 0.5}, "pattern": "2:4"}
    values: dict[str, Any] = {"prune": {"method": name, row.amount: amounts[row.amount]}, "assign": {"method": "none"}}
    if row.measure is not None:
        with pytest.raises(RecipeError, match=row.measure):  # it is told which scores it reads
            check(recipes.make(values))
        values["measure"] = {"name": row.measure}
    check(recipes.make(values))
    for key, more in {"packing": {"profile": "fast"}, "lasso": 1e-4}.items():
        if not row.packed:
            with pytest.raises(RecipeError, match=f"prune: {key} goes with diagonals, not with {name}"):
                check(recipes.make(values | {"prune": values["prune"] | {key: more}}))
    for other in amounts.keys() - {row.amount}:
        wrong = values | {"prune": values["prune"] | {other: amounts[other]}}
        with pytest.raises(RecipeError, match=f"and no {other}: leave it out"):
            check(recipes.make(wrong))


def test_no_method_has_a_run_of_its_own() -> None:
    def names(**values: Any) -> list[str]:
        return [type(stage).__name__ for stage in stages_of(recipes.make(values))]

    for method in METHODS:
        assert names(assign={"method": method})[-1] == "Hold"
    every = names(channels={"macs": 0.5}, assign={"method": "int8"})
    assert every == ["RemoveChannels", "Pilots", "Calibrate", "Hold"]


def test_names_of_methods_are_compared_nowhere() -> None:
    """What a method needs is in its row: nobody asks for one by its name."""
    source = Path(fb.__file__).parent
    names = "|".join([*METHODS, *PRUNERS])
    asks = re.compile(rf"method\s*(==|!=|in|not in)\s*\(?[\"']({names})[\"']")
    found = [str(path) for path in source.rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))]
    assert found == []
