"""Networks, data and tasks of the user's own: found by name, run, and each mistake one sentence with its line."""

from __future__ import annotations

import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.data import DataSet
from fewbits.errors import DataError, FewbitsError, MissingExtraError, RecipeError
from fewbits.job import OwnData
from fewbits.job import _sources as sources
from fewbits.recipe.sections import Data, Network, TaskChoice
from fewbits.task import Task

CODE = """\
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fewbits import data as sets
from fewbits.task import Task, task_of


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(x)


def make(width=4):
    return Net(width)


def needy(width):
    return Net(width)


def anything(**options):
    return Net(**options)


def fails():
    return {}["nothing"]


def leaves():
    raise SystemExit(3)


def state():
    return Net().state_dict()


def pair():
    return Net(), "tokenizer"


def drawn():
    torch.manual_seed(int(torch.randint(1000, ())) + random.randrange(1000) + int(np.random.randint(1000)))
    return Net()


ready, five = Net(), 5
Net.Inner = Net

x, y = torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64)
batches = list(zip(x.split(2), y.split(2)))


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise ValueError(f"no picture {index}")


def as_tuple():
    return batches, batches[:2]


def as_three():
    return batches, DataLoader(TensorDataset(x, y), 3), batches[:1]


def as_dict(test=None):
    return {"train": batches, "validation": batches, "test": test}


def as_set():
    return sets.digits()


def listed():
    return [batches, batches]


def alone():
    return DataLoader(TensorDataset(x, y))


def misnamed():
    return {"train": batches, "val": batches}


def halved():
    return {"train": batches}


def tensors():
    return x, y


def whole():
    return {"train": (x, y), "validation": batches}


def singles():
    return batches, TensorDataset(x, y)


def once():
    return batches, (batch for batch in batches)


def number():
    return batches, 3


def empty():
    return batches, []


def untrainable():
    return [], batches


def broken():
    return batches, DataLoader(Broken(), 2)


def task(delta=1.0):
    return Task(loss=nn.HuberLoss(delta=delta))


regression = task_of("regression")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with code in it, where one works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of other tests
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def network(name: str, **options: Any) -> sources.Source:
    return sources.network(Network(name=name, options=options), seed=0)


def data(name: str, **options: Any) -> DataSet | OwnData:
    return sources.data(Data(name=name, options=options), seed=0)


# -- networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("mine.py:Net", False), ("mine.py:Net.Inner", False), ("mine.py:make", True), ("mine.py:ready", True),
        ("mine:make", True), ("mine.py:anything", True),
    ],
)  # fmt: skip
def test_a_class_is_untrained_and_what_a_function_returns_is_trained(mine: Path, name: str, trained: bool) -> None:
    options = {} if name.endswith("ready") else {"width": 3}
    found = network(name, **options)
    assert (type(found.network).__name__, found.trained, found.own) == ("Net", trained, True)
    assert found.network.head.in_features == options.get("width", 4)  # type: ignore[union-attr]


def test_a_zoo_network_is_as_it_was() -> None:
    found = network("lenet-300-100", inputs=64)
    assert (found.trained, found.own) == (False, False)


def test_a_module_in_a_package_and_modules_beside_a_file_are_found(mine: Path) -> None:
    (mine / "boxes").mkdir()
    (mine / "boxes" / "__init__.py").write_text("")
    (mine / "boxes" / "parts.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(2, 3)\n")
    assert network("boxes.parts:make").network.out_features == 3
    deep = mine / "deep"
    deep.mkdir()
    (deep / "beside_mine.py").write_text("size = 7\n")
    (deep / "other.py").write_text(
        "import beside_mine\nfrom torch import nn\ndef make():\n    return nn.Linear(2, beside_mine.size)\n"
    )
    assert network("deep/other.py:make").network.out_features == 7


def test_a_file_that_changed_is_read_anew_and_an_equal_name_is_no_equal_file(mine: Path) -> None:
    text = "from torch import nn\ndef make():\n    return nn.Linear(1, {})\n"
    (mine / "twice.py").write_text(text.format(2))
    (mine / "sub").mkdir()
    (mine / "sub" / "twice.py").write_text(text.format(30))
    assert network("twice.py:make").network.out_features == 2
    assert network("sub/twice.py:make").network.out_features == 30
    (mine / "twice.py").write_text(text.format(400))
    assert network("twice.py:make").network.out_features == 400


def test_what_a_function_draws_follows_from_the_seed_and_leaves_the_random_state(mine: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = torch.rand(2), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    first, second = (network("mine.py:drawn").network.head.weight for _ in range(2))  # type: ignore[union-attr]
    assert torch.equal(first, second)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(2), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mne.py:Net", {}, ["there is no file mne.py", "did you mean 'mine.py'?"]),
        ("gone/mine.py:Net", {}, ["there is no file gone/mine.py"]),
        ("mine.py:Nett", {}, ["mine.py has no 'Nett'; did you mean 'Net'?", "it has: Net, make"]),
        ("mine.py", {}, ["say what of it is meant, for example mine.py:Net"]),
        ("mine.py:five", {}, ["mine.py:five is an int, not a function"]),
        ("mine.py:make", {"widht": 3}, ["has no option 'widht'; did you mean 'width'? (it has: width)"]),
        ("mine.py:needy", {}, ["needs a value for 'width': add network.options.width"]),
        ("mine.py:ready", {"width": 3}, ["is a network already", "leave network.options out"]),
        ("mine.py:fails", {}, ["mine.py:fails failed: mine.py, line 34: KeyError: 'nothing'"]),
        ("mine.py:leaves", {}, ["mine.py, line 38: SystemExit: 3"]),
        ("mine.py:make", {"width": "wide"}, ["mine.py:make failed: mine.py, line 15: TypeError"]),
        ("mine.py:state", {}, ["returned an OrderedDict", "not a torch.nn.Module; load it into the network"]),
        ("mine.py:pair", {}, ["returned a tuple (Net, str), not a torch.nn.Module"]),
        ("nowhere.at_all:Net", {}, ["there is no module 'nowhere.at_all'", "a file is written mine.py:Net"]),
        ("torchvison:resnet18", {}, ["there is no module 'torchvison'", "did you mean 'torchvision'?"]),
        ("resnet-2O", {}, ["no network is called 'resnet-2O'", "one of your own is written mine.py:Net"]),
        ("resnet-20", {"depth": 3}, ["resnet-20 has no option 'depth'"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(mine: Path, name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        network(name, **options)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef f(:\n    pass\n", "bad.py, line 2: SyntaxError"),
        ("import os\nimport no_such_library\n", "bad.py, line 2: ModuleNotFoundError: No module named"),
        ("raise SystemExit(2)\n", "bad.py, line 1: SystemExit: 2"),
        ("def f():\n    return 1 / 0\n\nf()\n", "bad.py, line 2: ZeroDivisionError"),
        ("import json\njson.loads('{')\n", "bad.py, line 2: JSONDecodeError"),
    ],
)
def test_a_file_that_fails_to_import_says_line_and_error(mine: Path, text: str, says: str) -> None:
    (mine / "bad.py").write_text(text)
    for name in ("bad.py:f", "bad:f"):
        with pytest.raises(RecipeError, match="cannot be imported") as caught:
            network(name)
        assert says in str(caught.value)
        assert "bad" not in sys.modules, "half a module stays behind"


def test_ctrl_c_in_ones_own_code_is_ctrl_c(mine: Path) -> None:
    (mine / "stop.py").write_text("def make():\n    raise KeyboardInterrupt\n")
    (mine / "stops.py").write_text("raise KeyboardInterrupt\n")
    for name in ("stop.py:make", "stops.py:make"):
        with pytest.raises(KeyboardInterrupt):
            network(name)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "sub/NET.BIN", "a.ckpt", "a.pkl"])
def test_a_pickle_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(RecipeError, match=r"pickle.*weights_only=True.*mine\.py:trained"):
        sources.load_weights(nn.Linear(1, 1), name)


# -- data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "lengths"),
    [("as_tuple", {}, (3, 2, None)), ("as_three", {}, (3, 2, 1)), ("as_dict", {}, (3, 3, None))],
)
def test_loaders_come_as_a_tuple_or_a_dict(
    mine: Path, name: str, options: dict[str, Any], lengths: tuple[int | None, ...]
) -> None:
    found = data(f"mine.py:{name}", **options)
    assert isinstance(found, OwnData)
    parts = (found.train, found.validation, found.test)
    assert tuple(None if part is None else len(part) for part in parts) == lengths
    assert len(found.first("validation")[0]) in (2, 3)


def test_a_data_set_of_fewbits_may_be_returned_and_then_is_fed_as_the_recipe_says(mine: Path) -> None:
    found = sources.data(Data(name="mine.py:as_set", batch_size=3), seed=0)
    assert isinstance(found, DataSet)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("listed", RecipeError, "returned a list of 2: return (train, validation)"),
        ("alone", RecipeError, "returned a DataLoader: return (train, validation)"),
        ("misnamed", RecipeError, "the key 'val'; its keys are train, validation, test"),
        ("halved", RecipeError, "returned no validation batches"),
        ("tensors", RecipeError, "train is a Tensor [6, 4]; batches are needed"),
        ("whole", RecipeError, "train is a tuple (Tensor [6, 4], Tensor [6]), which are no batches; cut them"),
        ("singles", RecipeError, "validation is a TensorDataset of single samples; put it into a DataLoader"),
        ("once", RecipeError, "validation is a generator, which can be read only once"),
        ("number", RecipeError, "validation is an int; batches are needed"),
        ("empty", DataError, "validation is empty"),
        ("untrainable", DataError, "train is empty"),
        (
            "broken",
            DataError,
            "batch 1 of the validation data of mine.py:broken cannot be made: mine.py, line 66: ValueError: no",
        ),
    ],
)
def test_what_is_no_data_is_told(mine: Path, name: str, error: type[FewbitsError], says: str) -> None:
    with pytest.raises(error) as caught:
        data(f"mine.py:{name}")
    assert f"mine.py:{name}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("key", ["batch_size", "augment", "folder"])
def test_keys_that_change_nothing_are_refused(mine: Path, key: str) -> None:
    value: Any = {"batch_size": 8, "augment": True, "folder": "x"}[key]
    with pytest.raises(RecipeError, match=f"data.{key} changes nothing.*data.options.{key}"):
        sources.data(Data(name="mine.py:as_tuple", **{key: value}), seed=0)


# -- tasks ----------------------------------------------------------------------------------------------


def test_a_task_of_ones_own(mine: Path) -> None:
    def made(name: str, **options: Any) -> Task:
        return sources.task(TaskChoice(name=name, options=options), seed=0)

    assert made("mine.py:regression").name == "regression"
    assert made("regression").name == "regression"
    own = made("mine.py:task", delta=0.5)
    value = own.loss(torch.full((1,), 3.0), (None, torch.zeros(1)))
    assert value == pytest.approx(0.5 * (3.0 - 0.25))  # Huber beyond delta: delta * (|d| - delta / 2)
    with pytest.raises(RecipeError, match=r"returned a Net, not a fewbits\.task\.Task"):
        made("mine.py:make")


# -- libraries ------------------------------------------------------------------------------------------


def library(name: str, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
    for key, part in parts.items():
        setattr(module, key, part)
    monkeypatch.setitem(sys.modules, name, module)


def test_torchvision_and_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, **options: Any) -> nn.Module:
        return nn.Linear(1, options.get("num_classes", 5))

    library("torchvision.models", monkeypatch, get_model=made, list_models=lambda: ["resnet18"])
    library("timm", monkeypatch, create_model=made, list_models=lambda: ["resnet10t"])
    found = network("torchvision:resnet18", num_classes=3)
    assert (found.network.out_features, found.trained, found.own) == (3, False, True)
    assert network("torchvision:resnet18", weights="DEFAULT").trained
    assert network("timm:resnet10t", pretrained=True).trained
    assert not network("timm:resnet10t.a_tag").trained
    assert torch.equal(network("timm:resnet10t").network.weight, network("timm:resnet10t").network.weight)  # type: ignore[arg-type]
    for name in ("torchvision:resnet81", "timm:resnet01t"):
        with pytest.raises(RecipeError, match=r"has no network 'resnet.*did you mean 'resnet1"):
            network(name)


@pytest.mark.parametrize("name", ["torchvision", "timm", "transformers"])
def test_a_missing_library_names_the_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda library: None)
    with pytest.raises(MissingExtraError, match=rf"{name}.*pip install 'fewbits\[networks\]'"):
        network(f"{name}:resnet18")


def test_a_folder_of_transformers(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class Saved:
        @staticmethod
        def from_pretrained(place: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
            calls.append({"place": place, **options})
            if place == "nothing/there":
                raise OSError("no such\nrepository")
            return nn.Linear(1, 2), {"missing_keys": ["score.weight"] if options.get("num_labels") else []}

    class Config:
        @staticmethod
        def from_pretrained(place: str, **options: Any) -> Any:
            return types.SimpleNamespace(architectures=["Saved"])

    library("transformers", monkeypatch, AutoConfig=Config, Saved=Saved)
    (mine / "tiny").mkdir()
    assert network("transformers:tiny").trained
    assert calls == [{"place": "tiny", "use_safetensors": True, "output_loading_info": True, "local_files_only": True}]
    assert not network("transformers:tiny", num_labels=3).trained, "a new head is not trained"
    network("transformers:someone/net", **{"class": "Saved"})
    assert "local_files_only" not in calls[-1], "a hub id may be fetched"
    with pytest.raises(RecipeError, match="no folder is there, and the hub gives no network: no such repository"):
        network("transformers:nothing/there")
    with pytest.raises(RecipeError, match=r"there is no folder '\./tinny'"):
        network("transformers:./tinny")
    with pytest.raises(RecipeError, match=r"no class 'Nope'.*network\.options\.class"):
        network("transformers:tiny", **{"class": "Nope"})
