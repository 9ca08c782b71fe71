"""``fewbits price`` and ``fewbits machines`` as a user meets them."""

from __future__ import annotations

import importlib.util
import json
import types
from pathlib import Path

import pytest
import torch
from test_cli import fewbits

from fewbits import codec, ops, zoo
from fewbits.hardware import machine_names, machine_text
from fewbits.plan import Clustered, Dense, Plan


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = zoo.build("digits-net", seed=0)
    generator = torch.Generator().manual_seed(0)
    entries: dict[str, Clustered | Dense] = {}
    for name, tensor in model.state_dict().items():
        entries[name] = Dense(tensor)
        if tensor.dim() > 1:
            kept = torch.rand(tensor.shape, generator=generator) < 0.1
            entries[name] = Clustered(kept.short(), 4, step=0.1)
    path = tmp_path_factory.mktemp("price") / "net.few"
    path.write_bytes(codec.encode(Plan(entries), header={"model": "digits-net"}))
    return path


def test_one_machine_is_shown_layer_by_layer(file: Path) -> None:
    ran = fewbits("price", file, "--machine", "eyeriss-v2")
    assert ran.code == 0
    for name, tensor in zoo.build("digits-net").state_dict().items():
        assert (name in ran.out) == (tensor.dim() > 1)
    assert "weights: counted in the file; inputs: dense" in ran.out
    assert "its energy leaves out what it has no figures of: buffer" in ran.out


def test_many_machines_in_one_call_and_as_json(file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(machine_text("stc").replace("name: stc", "name: mine").replace("value: 1024", "value: 64"))
    wanted = ["eyeriss-v2", "stc", "eie", str(mine)]
    flags = [flag for name in wanted for flag in ("--machine", name)]
    ran = fewbits("price", file, *flags, "--input-density", "0.5", "--json", tmp_path / "p.json",
                  "--html", tmp_path / "p.html")  # fmt: skip
    assert ran.code == 0
    assert "eie: " in ran.out
    assert "runs matrix products only" in ran.out
    assert "inputs: density" in ran.out
    assert "What net.few costs" in (tmp_path / "p.html").read_text()
    found = json.loads((tmp_path / "p.json").read_text())["prices"]
    assert [row["machine"] for row in found] == ["eyeriss-v2", "stc", "mine"]
    sparse, pattern, mine_row = found
    assert sparse["seconds"] < 0.2 * sparse["dense"]["seconds"], "a tenth of the weights, half of the inputs"
    assert pattern["seconds"] > 0.9 * pattern["dense"]["seconds"], "scattered zeros are no pattern"
    assert mine_row["seconds"] > pattern["seconds"]
    assert sparse["joules"] == pytest.approx(sum(sparse["energy_pj"].values()) * 1e-12)


def test_inputs_are_counted_on_a_recipes_data(file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "schema: 2\nnetwork: {name: digits-net}\ndata: {name: digits, batch_size: 64}\n"
        "assign: {method: ecq, lam: 0.1}\n"
    )
    ran = fewbits("price", file, "--machine", "eyeriss-v2", "--recipe", recipe)
    assert ran.code == 0, ran.err
    assert "inputs: counted" in ran.out


def test_what_is_wrong_is_said_in_a_sentence(file: Path, tmp_path: Path) -> None:
    ran = fewbits("price", file)
    assert ran.code == 2
    assert "name a machine, as --machine edge-tpu" in ran.err
    ran = fewbits("price", file, "--machine", "eyeris")
    assert (ran.code, "did you mean 'eyeriss'?" in ran.err) == (2, True)
    ran = fewbits("price", file, "--machine", "eie")
    assert (ran.code, "runs matrix products only" in ran.err) == (2, True)
    (tmp_path / "x.yaml").write_text(machine_text("stc").replace("clock_mhz", "clock_ghz"))
    ran = fewbits("price", file, "--machine", tmp_path / "x.yaml")
    assert (ran.code, "clock_ghz: a wrong unit; write it as clock_mhz" in ran.err) == (2, True)
    assert ran.err.count("\n") == 1


def test_machines_are_listed_and_shown() -> None:
    ran = fewbits("machines")
    assert ran.code == 0
    assert all(f"{name} " in ran.out for name in machine_names())
    assert "checked: " in ran.out
    assert fewbits("machines", "stc").out.strip() == machine_text("stc").strip()
    assert fewbits("machines", "sct").code == 2


def test_encrypted_inputs_are_priced_in_both_profiles(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK_WITH_A_SQUARE)
    network = _own(tmp_path / "mine.py").Net()
    entries = {name: Dense(tensor) for name, tensor in network.state_dict().items()}
    (tmp_path / "net.few").write_bytes(codec.encode(Plan(entries), header={"model": "Net"}))
    own = ["--network", f"{tmp_path}/mine.py:Net", "--data", f"{tmp_path}/mine.py:loaders"]
    ran = fewbits("price", tmp_path / "net.few", "--machine", "ckks", *own, "--json", tmp_path / "p.json")
    assert ran.code == 0, ran.err
    rows = json.loads((tmp_path / "p.json").read_text())["prices"]
    assert [row["profile"] for row in rows] == ["precise", "fast"]
    assert all(row["seconds"] > 0 and row["rotations"] == sum(row["rotations_by_level"]) for row in rows)
    assert rows[1]["levels"] < rows[0]["levels"], "the fast profile rescales after squares only"
    assert "rotations, by level" in ran.out


def test_a_network_that_cannot_be_encrypted_is_told_with_published_times(file: Path, tmp_path: Path) -> None:
    ran = fewbits("price", file, "--machine", "ckks", "--json", tmp_path / "p.json")
    assert ran.code == 0, ran.err
    assert "(ReLU) cannot be computed on encrypted numbers" in ran.out
    assert "ResNet-20: 403 s, 19 bootstraps; FHEON" in ran.out
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["prices"] == []
    assert written["beyond"]["bootstraps"] > 0
    assert "put a square" in written["refused"] or "swap" in written["refused"]
    both = fewbits("price", file, "--machine", "ckks", "--machine", "stc")
    assert "ckks is priced alone" in both.err


def test_swapped_operations_have_a_price_and_exact_ones_are_said(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK_WITH_A_SQUARE.replace("self.first(x) ** 2", "self.first(x).tanh()"))
    network = _own(tmp_path / "mine.py").Net()
    entries = {name: Dense(tensor) for name, tensor in network.state_dict().items()}
    own = ["--network", f"{tmp_path}/mine.py:Net", "--data", f"{tmp_path}/mine.py:loaders"]
    swapped = {"tanh": ops.fit("tanh", (-4, 4), pieces=8)}
    for name, approximations in (("plain", {}), ("swapped", swapped)):
        (tmp_path / f"{name}.few").write_bytes(codec.encode(Plan(entries, approximations=approximations)))
    command = ["--machine", "eyeriss", "--machine", "tpu-v1", *own, "--html", tmp_path / "p.html"]
    ran = fewbits("price", tmp_path / "swapped.few", *command, "--json", tmp_path / "p.json")
    assert ran.code == 0, ran.err
    eyeriss, tpu = (row["operations"] for row in json.loads((tmp_path / "p.json").read_text())["prices"])
    assert [(one["name"], one["form"], one["values"]) for one in eyeriss] == [("tanh", "8 lines", 8)]
    assert eyeriss[0]["energy_pj"] > 0
    assert tpu[0]["energy_pj"] is None
    assert "8 lines" in ran.out
    assert "not priced" in ran.out
    assert "8 lines" in (tmp_path / "p.html").read_text()
    ran = fewbits("price", tmp_path / "plain.few", *command)
    assert "not priced, as nothing says what the exact ones take: tanh" in ran.out


NETWORK_WITH_A_SQUARE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.first(x) ** 2)


def loaders():
    batches = [(torch.randn(16, 12), torch.randint(3, (16,))) for _ in range(2)]
    return batches, batches
"""


def _own(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("mine_with_a_square", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
