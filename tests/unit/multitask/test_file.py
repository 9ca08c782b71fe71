"""Many tasks in one file: listed, taken out, loaded alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fewbits as fb
from fewbits import codec
from fewbits.cli import app
from fewbits.errors import MismatchError, RecipeError
from fewbits.multitask import SegmentNet, branched_paths, extract, load_task, read_task, tasks_in
from fewbits.plan import Dense, Plan
from tests.task_networks import NAMES, net, paths

OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm": "task", "merge": "gated"},
    {"norm": "task", "shared_head": True, "merge": "mean"},
]
X = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=OPTIONS, ids=str, scope="module")
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


@pytest.fixture(scope="module")
def file(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tasks") / "net.few"
    fb.compress(net(**options), progress=None).save(found)
    return found


def test_a_task_of_a_file_computes_what_it_computes_in_the_whole(file: Path, options: dict[str, Any]) -> None:
    whole = fb.load(file, like=net(seed=1, **options))
    for task in NAMES:
        plan, path, reader = read_task(file, task)
        alone = whole.alone(task)
        counters = {name for name in alone.state_dict() if name.endswith("num_batches_tracked")}
        assert set(plan.tensors()) == set(alone.state_dict()) - counters
        assert torch.equal(path, whole.path(task))
        assert reader.bytes_read < file.stat().st_size
        assert torch.equal(load_task(file, task, like=net(seed=2, **options))(X), whole(X, task))


def test_a_file_of_one_task_stands_alone(file: Path, options: dict[str, Any]) -> None:
    whole = fb.load(file, like=net(seed=1, **options))
    for task in NAMES:
        out = file.with_name(f"{task}.few")
        done = extract(file, task, out)
        assert done.bytes == out.stat().st_size < file.stat().st_size
        assert done.size == file.stat().st_size
        for like in (net(seed=3, **options), net(seed=3, **options).alone(task)):
            assert torch.equal(load_task(out, task, like=like)(X), whole(X, task))
        assert torch.equal(fb.load(out, like=net(seed=3, **options).alone(task))(X), whole(X, task))
        assert [found.name for found in tasks_in(out)] == [task]
        again = extract(out, task, file.with_name("again.few"))
        assert file.with_name("again.few").read_bytes() == out.read_bytes()
        assert again.decoded <= again.numbers, "constants stand in the directory"
        levels = {t.name: t.coded_bytes for t in codec.inspect(file.read_bytes()).tensors if t.kind == "clustered"}
        for tensor in codec.inspect(out.read_bytes()).tensors:
            assert levels.get(tensor.name, tensor.coded_bytes) == tensor.coded_bytes


def test_what_is_listed_is_what_is_read(file: Path, options: dict[str, Any]) -> None:
    found = tasks_in(file)
    assert [task.name for task in found] == list(NAMES)
    users = paths().users()
    for task in found:
        plan, path, reader = read_task(file, task.name)
        assert task.bytes == reader.bytes_read
        assert task.numbers == sum(entry.values().numel() for entry in plan.values())
        assert task.segments == int(path.sum())
        assert task.private == sum(names == [task.name] for names in users.values())


def test_the_path_of_the_file_counts_and_not_that_of_the_skeleton(tmp_path: Path) -> None:
    made = net(norm="task").eval()
    made.add("planes", made.path("cars"), nn.Linear(16, 3))
    fb.compress(made, progress=None).save(tmp_path / "net.few")
    whole = net(seed=1, norm="task")
    whole.add("planes", made.path("cars"), nn.Linear(16, 3))
    fb.load(tmp_path / "net.few", like=whole)
    other = net(seed=2, norm="task")
    other.add("planes", made.path("birds"), nn.Linear(16, 3))
    assert torch.equal(load_task(tmp_path / "net.few", "planes", like=other)(X), whole(X, "planes"))
    with pytest.raises(MismatchError, match="which is not there"):
        net().alone("cars").alone("cars", made.path("birds"))


def test_files_without_tasks_and_tasks_without_files(tmp_path: Path) -> None:
    plain = fb.compress(nn.Sequential(nn.Linear(8, 8)), progress=None).data
    with pytest.raises(MismatchError, match="holds no tasks"):
        tasks_in(plain)
    many = fb.compress(net(), progress=None).data
    with pytest.raises(RecipeError, match="no task 'car'; did you mean 'cars'"):
        read_task(many, "car")
    for entries in (
        {"paths.a": torch.zeros(2, 2)},
        {"paths.a": torch.ones(2)},
        {"paths.a.b": torch.ones(2, 2)},
        {"paths.a": torch.ones(1, 1), "layers.7.0.weight": torch.ones(3)},
        {"paths.a": torch.ones(1, 1), "layers.x": torch.ones(3)},
        {"paths.a": torch.ones(1, 1), "layers": torch.ones(3)},
    ):
        forged = codec.encode(Plan({name: Dense(tensor) for name, tensor in entries.items()}))
        with pytest.raises(MismatchError):
            read_task(forged, "a")


def test_the_command_line_lists_and_extracts(tmp_path: Path) -> None:
    fb.compress(net(norm="task"), progress=None).save(tmp_path / "net.few")
    runner = CliRunner()
    told = runner.invoke(app, ["tasks", str(tmp_path / "net.few"), "--json", str(tmp_path / "tasks.json")])
    assert told.exit_code == 0, told.output
    assert all(name in told.output for name in NAMES)
    listed = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["name"] for task in listed["tasks"]] == list(NAMES)
    done = runner.invoke(app, ["extract", str(tmp_path / "net.few"), "--task", "cars"])
    assert done.exit_code == 0, done.output
    assert f"{listed['tasks'][0]['bytes']:,} of {listed['file_bytes']:,} bytes were read" in done.output
    assert load_task(tmp_path / "cars.few", "cars", like=net(norm="task"))(X).shape == (4, 3)


def test_a_tenth_of_the_tasks_needs_little_of_a_file() -> None:
    """Ten tasks without common segments: about a tenth is read, and the directory."""
    names = [f"t{number}" for number in range(10)]
    torch.manual_seed(0)
    made = SegmentNet(
        lambda layer: nn.Linear(64, 64), branched_paths(names, 2), {name: nn.Linear(64, 10) for name in names}
    )
    data = fb.compress(made, progress=None).data
    _, _, reader = read_task(data, "t3")
    assert reader.bytes_read < 0.2 * len(data)
