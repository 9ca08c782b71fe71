"""Operations swapped by a recipe: trained with, written, loaded, exported and told of."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import fewbits as fb
from fewbits.approximation import approximations_of
from fewbits.cli.app import app
from fewbits.errors import RecipeError
from fewbits.pipeline.stages import _swap as stage
from fewbits.report.report import Report

OPS = {"gelu": {"kind": "lines", "error": 1e-2}, "softmax": {"kind": "integer", "bits": 8}, "layer_norm": {"degree": 2}}
Batches = list[tuple[Tensor, Tensor]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(nn.functional.gelu(self.first(x)))
        return self.last(h * h.softmax(-1))


@pytest.fixture(scope="module")
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(6):
        y = torch.randint(3, (16,), generator=generator)
        x = torch.randn(16, 8, generator=generator)
        x[torch.arange(16), 2 * y] += 3
        made.append((x, y))
    return made


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def compressed(net: nn.Module, batches: Batches | None, **recipe: Any) -> fb.Compressed:
    given = {"assign": {"method": "ecq"}, "train": {"epochs": 1}, "rounds": 2} | recipe
    return fb.compress(net, batches, evaluate=lambda _: 50.0, recipe=given, progress=None)


def test_clusters_with_integer_activations_compute_with_them(net: Net, batches: Batches) -> None:
    small = compressed(net, batches, activations={}, ops=OPS)
    assert small.report.identical
    assert set(small.plan.approximations) == set(approximations_of(small.into(Net()))) == set(OPS)


@pytest.mark.parametrize("method", ["ecq", "ecqx", "none", "int8"])
def test_the_file_says_what_the_network_computes_with(net: Net, batches: Batches, method: str, tmp_path: Path) -> None:
    before = copy.deepcopy(net.state_dict())
    small = compressed(net, batches, assign={"method": method}, ops=OPS)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert approximations_of(net) == {}
    assert small.report.identical
    assert set(small.plan.approximations) == set(OPS)
    small.save(tmp_path / "net.few")
    loaded = fb.load(tmp_path / "net.few", like=Net())
    assert approximations_of(loaded) == small.plan.approximations
    into = small.into(Net())
    x = batches[0][0]
    with torch.no_grad():
        assert torch.equal(loaded(x), into(x))
        if method != "int8":
            plain = fb.Plan(dict(small.plan)) if method == "none" else None
            other = copy.deepcopy(loaded)
            from fewbits.ops.swap import swap

            swap(other, {})
            assert not torch.equal(other(x), loaded(x))
            assert plain is None or plain.approximations == {}
    assert fb.inspect(small).operations[0].name == "gelu"


def test_the_same_network_without_the_section_is_the_same_file(net: Net, batches: Batches) -> None:
    assert compressed(net, batches).data == compressed(net, batches, ops={}).data


def test_the_report_tells_bound_and_error_place_by_place(net: Net, batches: Batches) -> None:
    report = compressed(net, batches, ops=OPS).report
    rows = {(row.place, row.operation): row for row in report.operations}
    assert set(rows) == {("", "gelu"), ("", "softmax"), ("norm", "layer_norm")}
    for row in rows.values():
        assert row.bound is not None
        assert row.error is not None
        assert 0 < row.error <= row.bound
    assert Report.from_json(report.to_json()) == report
    told = " ".join(str(report).split())
    assert "operations gelu by" in told
    assert "error at most" in told
    assert "gelu and softmax and layer_norm swapped" in report.method


def test_without_data_the_usual_domains_are_taken(net: Net) -> None:
    small = fb.compress(net, recipe={"assign": {"method": "ecq"}, "ops": OPS, "train": None}, progress=None)
    assert small.plan.approximations["gelu"].pieces is not None
    assert small.plan.approximations["gelu"].pieces.domain == (-8, 8)
    assert small.report.operations[0].error is None


def test_operations_alone_are_work_enough(net: Net, batches: Batches) -> None:
    small = compressed(net, batches, assign={"method": "none"}, ops=OPS, train=None, floats="float32")
    assert small.report.identical
    again = compressed(small.into(Net()), batches)  # what is there stays, also without the section
    assert again.plan.approximations == small.plan.approximations
    more = compressed(small.into(Net()), batches, ops={"gelu": {"kind": "table", "pieces": 9}})
    assert more.plan.approximations["gelu"].kind == "table"
    assert more.plan.approximations["softmax"] == small.plan.approximations["softmax"]


def test_a_run_that_goes_on_has_what_it_had(net: Net, batches: Batches, tmp_path: Path) -> None:
    whole = compressed(net, batches, ops=OPS)

    def stop(done: int, total: int, line: str) -> None:
        raise KeyboardInterrupt

    options = {"evaluate": lambda _: 50.0, "state_file": tmp_path / "state"}
    recipe = {"assign": {"method": "ecq"}, "train": {"epochs": 1}, "rounds": 2, "ops": OPS}
    with pytest.raises(KeyboardInterrupt):
        fb.compress(net, batches, recipe=recipe, progress=stop, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "places", None)  # nothing is measured again
        resumed = fb.compress(net, batches, recipe=recipe, progress=None, **options)
    assert resumed.data == whole.data
    assert resumed.report.operations == whole.report.operations


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"ops": {"geluu": {"error": 1e-3}}}, "ops: no operation 'geluu'; did you mean 'gelu'"),
        ({"ops": {"gelu": {}}}, "ops: gelu: say error"),
        ({"ops": {"gelu": {"kinds": "lines"}}}, "unknown key 'ops.gelu.kinds'; did you mean 'kind'"),
        ({"ops": {"gelu": {"error": -1}}}, "ops.gelu.error"),
        ({"ops": {"tanh": {"error": 1e-3}}}, "the network calls no tanh; it calls gelu, layer_norm, softmax"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(net: Net, batches: Batches, recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as found:
        compressed(net, batches, **recipe)
    assert words in str(found.value)


def test_operations_inside_of_recurrent_layers_are_out_of_reach(batches: Batches) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.last = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(x[:, None])[0][:, -1])

    with pytest.raises(RecipeError, match="layers such as cell compute theirs inside of torch"):
        compressed(Cell(), batches, ops={"sigmoid": {"error": 1e-3}})


def test_a_loop_of_ones_own_cannot_swap_but_keeps_what_is_there(net: Net, batches: Batches) -> None:
    with pytest.raises(RecipeError, match="cannot have ops"):
        fb.compressing(net, {"ops": OPS}, steps=1)
    small = compressed(net, batches, assign={"method": "none"}, ops=OPS, train=None)
    net = small.into(Net())
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with fb.compressing(net, "ecq-4bit", steps=len(batches), optimizer=optimizer) as job:
        for x, y in batches:
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            job.after_backward(y)
            optimizer.step()
            optimizer.zero_grad()
            job.after_step(loss)
        done = job.finish()
    assert done.plan.approximations == small.plan.approximations == approximations_of(net)


def test_inspect_names_them(net: Net, batches: Batches, tmp_path: Path) -> None:
    compressed(net, batches, ops=OPS).save(tmp_path / "net.few")
    ran = CliRunner().invoke(app, ["inspect", str(tmp_path / "net.few"), "--json", str(tmp_path / "net.json")])
    assert ran.exit_code == 0, ran.output
    assert "computes softmax by 8-bit integers (error at most 0.0023" in " ".join(ran.output.split())
    assert '"operations"' in (tmp_path / "net.json").read_text()


@pytest.mark.long
@pytest.mark.parametrize("method", ["ecq", "int8"])
def test_onnx_computes_with_them_too(net: Net, batches: Batches, method: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    small = compressed(net, batches, assign={"method": method}, ops=OPS)
    fb.export(small, tmp_path / "net.onnx", like=Net(), inputs=batches[0][0])
    used = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not used & {"Gelu", "Erf", "Softmax", "LayerNormalization"}
