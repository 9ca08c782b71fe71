"""What the page of many tasks is told is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fewbits as fb
from fewbits.cli import app
from fewbits.errors import DataError
from fewbits.multitask import (
    OverTime,
    Tasks,
    Transfer,
    all_batches,
    attribution,
    paths_in,
    paths_view,
    relevance_by_task,
    sharing,
    sharing_predicts,
    similarity,
    view,
)
from fewbits.report.words import accuracy
from fewbits.task import Classification
from tests.task_networks import loaders, net, paths

NAMES = ("cars", "birds", "flowers", "planes")


def test_a_view_has_what_the_measures_say() -> None:
    made, data = net(paths(NAMES), norm="task"), loaders(NAMES, seed=1)
    over = OverTime(NAMES, ((60.0, 40.0, 40.0, 40.0), (50.0, 70.0, 40.0, 40.0)), (0, 1, 1, 1))
    transfer = Transfer(NAMES, torch.tensor([9.0, 8, 7, 6]), torch.arange(16.0).view(4, 4))
    found = view(made, data, over_time=over, transfer=transfer)
    aim = Tasks({name: Classification() for name in NAMES})
    scores = aim.by_task(made, all_batches(data))
    assert found.facts == {"accuracy": tuple(accuracy(scores[name]) for name in NAMES)}
    assert found.drops == attribution(made, aim, all_batches(data))
    assert found.relevance == relevance_by_task(made, {name: batches[:2] for name, batches in data.items()})
    alike = similarity(made, [data[name][0][0] for name in NAMES])
    torch.testing.assert_close(torch.tensor(found.similarity), alike, rtol=0, atol=1e-6)
    shared = sharing(made.all_paths()).matrix
    assert found.shared == tuple(tuple(row) for row in shared.tolist())
    assert [test.p for test in found.tests] == [
        sharing_predicts(shared, alike.mean(0)).p, sharing_predicts(shared, transfer.both_ways).p,
    ]  # fmt: skip
    assert found.transfer[0][1] == 8.0
    assert found.times == tuple(f"after {name}" for name in NAMES)
    assert found.learnt == (0, 1, 1, 1)
    assert "-10.00" in found.forgetting[0]
    at_once = view(made, data, over_time=OverTime(NAMES, over.scores))
    assert at_once.times == ("50 %", "100 %")
    with pytest.raises(DataError, match="no data of task 'birds'"):
        view(made, {"cars": data["cars"]})


def test_the_command_writes_the_page_of_a_file(tmp_path: Path) -> None:
    file, page = tmp_path / "net.few", tmp_path / "page.html"
    fb.compress(net(paths(NAMES)), progress=None).save(file)
    found = paths_in(file)
    assert all(torch.equal(found[name], path) for name, path in paths(NAMES).items())
    done = CliRunner().invoke(app, ["tasks", str(file), "--html", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "Tasks of net.few" in text
    assert all(f">{name}<" in text for name in NAMES)
    assert paths_view("x", found).users == {place: tuple(names) for place, names in found.users().items()}
