"""The command line on a network and data of one's own, in an empty folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_cli import Ran, fewbits
from torch import nn

import fewbits as fb
from fewbits import codec
from fewbits.job import _job as jobs
from fewbits.job import _own_code as own_code
from fewbits.job import folder as outputs

MINE = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.a(x).relu().mean((2, 3)))


def trained(steps=60):
    net = Net()
    steps = iter([batch for _ in range(9) for batch in loaders()["train"]][:steps])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for x, y in steps:
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net


def samples(count=320):
    y = torch.arange(count) % 4
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    for i, k in enumerate(y.tolist()):
        x[i, k % 3, k : k + 3] += 2
    return TensorDataset(x, y)


def loaders(batch=16, test=True):
    train, validation, rest = random_split(samples(), [200, 60, 60])
    found = {"train": DataLoader(train, batch, shuffle=True), "validation": DataLoader(validation, 32)}
    return found | ({"test": DataLoader(rest, 32)} if test else {})


def named(**options):
    return {k: [{"x": x, "label": y} for x, y in part] for k, part in loaders(**options).items()}


def numbers():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    return net


def sums():
    x, _ = samples().tensors
    y = x.sum((1, 2, 3))[:, None] / 10
    batches = list(zip(x.split(32), y.split(32)))
    return batches[2:], batches[:2]


def huber():
    from fewbits.task import Task

    return Task(loss=nn.functional.huber_loss, metric=nn.functional.l1_loss, scale="loss")


class Wrong(nn.Linear):
    def __init__(self):
        super().__init__(10, 4)
"""
RECIPE = """\
schema: 2
network: {name: "mine.py:trained"}
data: {name: "mine.py:loaders"}
assign: {method: ecq}
train: {epochs: 3, lr: 2.0e-3}
rounds: 6
target: 380
"""


def own_network() -> nn.Module:
    """The network in the code, as one imports it in Python."""
    net: nn.Module = own_code.found("mine.py:Net", seed=0)()
    return net


def folder(place: Path) -> Path:
    (place / "mine.py").write_text(MINE)
    (place / "recipe.yaml").write_text(RECIPE)
    return place


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code and a recipe, in which one works."""
    monkeypatch.chdir(folder(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished job in ``out``, made from elsewhere."""
    place = folder(tmp_path_factory.mktemp("own"))
    ran = fewbits("compress", place / "recipe.yaml", "--out", place / "out")
    assert ran.code == 0, ran.err
    assert "mine.py:trained: taken as trained" in ran.err
    assert "compress 100 %" in ran.err
    return place


@pytest.fixture
def made(job: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(job)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return job


# -- a whole job ----------------------------------------------------------------------------------------


def test_the_report_and_the_file_name_no_folder(made: Path) -> None:
    report = json.loads((made / "out" / "report.json").read_text())
    assert (report["model"], report["data"], report["split"]) == ("mine.py:trained", "mine.py:loaders", "test")
    assert report["identical"] is report["met"] is True
    assert report["file_bytes"] <= 380
    assert report["accuracy_before"] > 80
    assert codec.inspect((made / "out" / "net.few").read_bytes()).header["model"] == "mine.py:trained"


def test_verify_finds_the_accuracy_of_the_report(made: Path) -> None:
    ran = fewbits("verify", "out/net.few", "--recipe", "recipe.yaml")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1].endswith(": the same")
    ran = fewbits("verify", "out/net.few", "--network", "mine.py:Net", "--data", "mine.py:loaders")
    assert ran.code == 0, "a class is enough to decode into"
    ran = fewbits("verify", "out/net.few", "--recipe", "recipe.yaml", "--data", "mine.py:named", "--json", "v.json")
    assert ran.code == 0, "the same samples as dicts"
    assert json.loads(Path("v.json").read_text())["samples"] == 60


@pytest.mark.long
def test_explain(made: Path, tmp_path: Path) -> None:
    ran = fewbits("explain", "recipe.yaml", "--net", "out/net.few", "--out", tmp_path, "--json", tmp_path / "e.json")
    assert ran.code == 0, ran.err
    explained = json.loads((tmp_path / "e.json").read_text())
    assert explained["samples"] == 60
    assert [m["target"] for m in explained["maps"]] == ["0", "1", "2", "3"], "classes without names are numbers"


def test_a_file_from_python(here: Path) -> None:
    torch.manual_seed(0)
    net, x = own_network(), torch.randn(32, 3, 8, 8)
    train = [(x, torch.arange(32) % 4)]
    fb.compress(net, train, recipe={"assign": {"method": "ecq", "lam": 0.1}, "train": None}).save("py.few")
    save_file(net.state_dict(), "float.safetensors")
    own = ("--network", "mine.py:Net", "--data", "mine.py:loaders")
    assert fewbits("inspect", "py.few").code == 0
    assert fewbits("verify", "py.few", *own).code == 0
    ran = fewbits("explain", "--net", "py.few", *own)
    assert ran.code == 0, ran.err
    assert "trained weights from float.safetensors" in ran.err
    for command in (("verify", "py.few"), ("explain", "--net", "py.few"), ("verify", "py.few", *own[:2])):
        assert "give a recipe, or --network" in fewbits(*command).err
    assert "give --recipe, or --network and --data" in fewbits("export", "py.few", "--to", "onnx").err
    ran = fewbits("verify", "py.few", *own, "--set", "network.options.width=8")
    assert ran.err == "error: tensor 'a.bias' has shape [16] in the file and [8] in the network\n"


def test_a_general_recipe_takes_them_from_the_command_line(here: Path) -> None:
    options = ("--set", "train.epochs=1", "--set", "rounds=2", "--set", "data.options.test=false")
    ran = fewbits("compress", "ecq-4bit", "--network", "mine.py:trained", "--data", "mine.py:loaders",
                  "--target", "400", *options)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "on 60 validation samples" in ran.err
    assert json.loads(Path("out/report.json").read_text())["split"] == "validation"
    ran = fewbits("verify", "out/net.few", "--network", "mine.py:Net", "--data", "mine.py:loaders", *options[-2:])
    assert ran.code == 0
    assert "on the validation data" in ran.out


def test_an_onnx_file(here: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node, weights = onnx.helper.make_node, own_network().state_dict()
    nodes = [
        node("Conv", ["x", "a.weight", "a.bias"], ["h"], pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("ReduceMean", ["r"], ["m"], axes=[2, 3], keepdims=0),
        node("Gemm", ["m", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    tensors = [onnx.numpy_helper.from_array(t.numpy(), name) for name, t in weights.items()]
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, here / "net.onnx")
    (here / "onnx.yaml").write_text(
        'schema: 2\nnetwork: {onnx: net.onnx}\ndata: {name: "mine.py:loaders"}\nassign: {method: ecq}\ntrain: null\n'
        "target: 420\n"
    )
    ran = fewbits("compress", "onnx.yaml")
    assert ran.code == 0, ran.err
    assert json.loads((here / "out" / "report.json").read_text())["model"] == "net.onnx"
    both = ("--network", "net.onnx", "--data", "mine.py:loaders")
    assert "the same" in fewbits("verify", "out/net.few", *both).out
    assert "outputs of torch and ONNX Runtime" in fewbits("export", "out/net.few", "--to", "onnx", *both).out
    assert (here / "out" / "net.onnx").stat().st_size < (here / "net.onnx").stat().st_size
    trained = fewbits("compress", "ecq-4bit", *both, "--out", "trained")
    assert "no gradient of the loss reaches OnnxNetwork" in trained.err
    wrong = fewbits("compress", "onnx.yaml", "--set", "network.weights=a.safetensors", "--out", "w")
    assert "leave network.options and network.weights out" in wrong.err
    for written, said in (("onnx: a.bin", "ends with .onnx, got 'a.bin'"), ("onnx: a.onnx, name: b", "leave name out")):
        (here / "wrong.yaml").write_text(f"schema: 2\nnetwork: {{{written}}}\ndata: {{name: digits}}\n")
        assert said in fewbits("compress", "wrong.yaml").err


def test_weights_from_a_file_and_a_training_here(here: Path) -> None:
    save_file(own_network().state_dict(), "net.safetensors")
    options = ("--set", "train=null", "--set", "target=null", "--set", "assign.lam=0.1", "--network", "mine.py:Net")
    ran = fewbits("compress", "recipe.yaml", *options, "--set", "network.weights=net.safetensors")
    assert ran.code == 0, ran.err
    assert "mine.py:Net: trained weights from net.safetensors" in ran.err
    ran = fewbits("compress", "recipe.yaml", *options, "--set", "pretrain={epochs: 1, lr: 0.01}")
    assert ran.code == 0, ran.err
    assert "mine.py:Net: training on 13 batches of mine.py:loaders" in ran.err
    ran = fewbits("compress", "recipe.yaml", *options)
    assert ran.err == (
        "error: the network is untrained: give network.weights (a .safetensors file), a pretrain section or the name "
        "of a function that returns it trained\n"
    )
    ran = fewbits("compress", "recipe.yaml", *options, "--set", "network.weights=net.pt")
    assert "net.pt is a pickle" in ran.err


def test_a_teacher_of_ones_own_brings_its_weights(here: Path) -> None:
    options = ("--set", "train.distill=0.5", "--set", "train.epochs=1", "--set", "rounds=1")
    ran = fewbits("compress", "recipe.yaml", *options, "--set", "train.teacher={name: mine.py:trained}")
    assert ran.code == 0, ran.err
    assert "mine.py:trained teaches" in ran.err
    ran = fewbits("compress", "recipe.yaml", *options, "--set", "train.teacher={name: mine.py:Net}")
    assert ran.err.splitlines()[-1] == "error: an untrained teacher teaches nothing: give train.teacher.weights"


@pytest.mark.parametrize("task", ["regression", "mine.py:huber"])
def test_other_tasks(here: Path, task: str) -> None:
    options = (
        "--network", "mine.py:numbers", "--data", "mine.py:sums", "--set", f"task={task}",
        "--set", "pretrain={epochs: 20, lr: 0.01}", "--set", "target=null", "--set", "assign.lam=0.01",
    )  # fmt: skip
    ran = fewbits("compress", "recipe.yaml", *options)
    assert ran.code == 0, ran.err
    assert "float network: loss " in ran.err
    ran = fewbits("verify", "out/net.few", "--recipe", "recipe.yaml", *options)
    assert ran.code == 0, ran.out
    assert "loss " in ran.out
    ran = fewbits("explain", "recipe.yaml", "--net", "out/net.few", *options)
    assert ran.code == 0, ran.err
    assert "same class" not in ran.out
    ran = fewbits("prune-search", "recipe.yaml", "--set", f"task={task}")
    assert "a search counts right classes" in ran.err


@pytest.mark.long
def test_a_search_and_a_sweep(here: Path) -> None:
    Path("sub").mkdir()
    options = ("--evaluations", 3, "--proxy", 60, "--calibration", 30, "--method", "uniform")
    ran = fewbits("prune-search", "recipe.yaml", "--out", "sub/found", *options)
    assert ran.code == 0, ran.err
    assert "name: ../../mine.py:trained" in Path("sub/found/pruned.yaml").read_text()
    ran = fewbits("compress", "sub/found/pruned.yaml", "--set", "train.epochs=1", "--set", "target=600")
    assert ran.code == 0, ran.err
    assert "trained weights from float.safetensors" in ran.err
    ran = fewbits("prune-search", "recipe.yaml", "--out", "x", *options[:2], "--proxy", 200, "--calibration", 1)
    assert "cannot be taken of the 200 training samples of mine.py:loaders" in ran.err

    Path("sweep.yaml").write_text(
        RECIPE.replace("target: 380", "sweep: {over: {assign.bits: [2, 3]}, trials: 2, objectives: [bytes, macs]}")
        .replace("ecq", "ecq, lam: 0.1").replace("rounds: 6", "rounds: 1").replace("epochs: 3", "epochs: 1")
    )  # fmt: skip
    ran = fewbits("sweep", "sweep.yaml", "--out", "swept", "--test", "--set", "data.options={test: false}")
    assert ran.code == 0, ran.err
    assert "mine.py:loaders has no test part" in ran.err
    assert "test %" not in ran.out
    Path("mine.py").write_text(MINE.replace("[200, 60, 60]", "[200, 50, 70]"))
    ran = fewbits("sweep", "sweep.yaml", "--out", "swept", "--set", "data.options={test: false}")
    assert (ran.code, "was begun with another" in ran.err) == (2, True)


# -- interruptions --------------------------------------------------------------------------------------


def stopped(monkeypatch: pytest.MonkeyPatch, *options: object) -> Ran:
    """A run that is interrupted half-way, within an epoch."""
    whole = jobs.compress

    def half(*args: object, **options: object) -> object:
        def stop(done: int, total: int, line: str) -> None:
            if 2 * done >= total:
                raise KeyboardInterrupt

        return whole(*args, **options | {"progress": stop})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "compress", half)
        return fewbits("compress", "recipe.yaml", *options)


@pytest.mark.parametrize("options", [(), ("--network", "mine.py:Net", "--set", "pretrain={epochs: 1}")])
def test_an_interrupted_job_goes_on_to_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    straight = fewbits("compress", "recipe.yaml", *options, "--out", "straight")
    assert straight.code == 0, straight.err
    ran = stopped(monkeypatch, *options)
    assert ran.code == 130
    assert Path("out", outputs.STATE).is_file()
    ran = fewbits("compress", "recipe.yaml", *options)
    assert ran.code == 0, ran.err
    assert "going on with the unfinished run" in ran.err
    assert Path("out/net.few").read_bytes() == Path("straight/net.few").read_bytes()
    assert sorted(p.name for p in Path("out").iterdir()) == sorted(p.name for p in Path("straight").iterdir())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("steps=60", "steps=61", "network than mine.py:trained"),
        ("[200, 60, 60]", "[200, 59, 61]", "data than mine.py:loaders"),
        ("DataLoader(validation, 32)", "DataLoader(validation, 30)", "data than mine.py:loaders"),
        ("* 0.5\n", "* 0.5 + 1e-3\n", "network than mine.py:trained"),
        ("# nothing", "# else", None),
    ],
)
def test_another_network_or_other_data_is_noticed(
    here: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, what: str | None
) -> None:
    text = MINE + "# nothing\n"
    Path("mine.py").write_text(text)
    assert stopped(monkeypatch).code == 130
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert text.count(old) == 1
    Path("mine.py").write_text(text.replace(old, new))
    ran = fewbits("compress", "recipe.yaml")
    if what is None:
        assert ran.code == 0, "a comment changes nothing"
        return
    assert ran.err.splitlines()[-1] == (
        f"error: the job in out was begun with another {what} gives now: make it as it was, give another --out, or "
        "delete what is in out to start anew"
    )
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


# -- mistakes -------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_told_before_anything_is_written(here: Path) -> None:
    for network, says in (
        ("mine.py:Wrong", "mine.py:Wrong does not take the first batch of the validation data of mine.py:loaders, "
                          "[32, 3, 8, 8] float32: "),
        ("mine.py:numbers", "batch 1 of the validation data of mine.py:loaders: the data has class 3"),
        ("mine.py:nothing", "mine.py has no 'nothing'"),
        ("min.py:Net", "there is no file min.py"),
    ):  # fmt: skip
        ran = fewbits("compress", "recipe.yaml", "--network", network)
        assert ran.code == 2
        assert says in ran.err
        assert len(ran.err.splitlines()) == 1, ran.err
        assert not Path("out").exists()


# -- which part of a batch is what ----------------------------------------------------------------------

SPLIT = """
def backwards(**options):
    def turned(part):
        return [(y, torch.ones(len(y)), x) for x, y in part]
    return {k: turned(part) for k, part in loaders(**options).items()}
"""


def test_a_recipe_says_which_parts_of_a_batch_are_what(here: Path) -> None:
    (here / "mine.py").write_text(MINE + SPLIT)
    own = ("--set", "data.name=mine.py:backwards")
    wrong = fewbits("compress", "recipe.yaml", *own)
    assert wrong.code == 2
    assert "say which are what, for example inputs=0, targets=1" in wrong.err
    parts = ("--set", "data.inputs=2", "--set", "data.targets=0")
    ran = fewbits("compress", "recipe.yaml", *own, *parts, "--out", "turned")
    assert ran.code == 0, ran.err
    assert fewbits("verify", "turned/net.few", "--recipe", "recipe.yaml", *own, *parts).code == 0
    report = json.loads((here / "turned/report.json").read_text())
    assert report["accuracy_after"] > 60, "of four classes: the images were the inputs"


def test_a_split_that_does_not_fit_is_named(here: Path) -> None:
    (here / "mine.py").write_text(MINE + SPLIT)
    for key, value, words in (
        ("inputs", "true", "data.inputs"),
        ("inputs", "[]", "a name or a place among the parts of a batch"),
        ("targets", "label", "targets='label': a batch has no such part"),
        ("inputs", "5", "inputs=5: a batch has no such part"),
    ):
        ran = fewbits("compress", "recipe.yaml", "--set", f"data.{key}={value}")
        assert ran.code == 2
        assert words in " ".join(ran.err.split()), ran.err
    ran = fewbits("compress", "recipe.yaml", "--set", "data={name: digits, inputs: 0}")
    assert "digits is a data set of inputs and targets, so data.inputs changes nothing" in ran.err
