"""The main job with INT8: calibrated, trained, written, read back bit-equal."""

from __future__ import annotations

import copy

import pytest
import torch

import fewbits as fb
from fewbits import recipe as recipes
from fewbits import zoo
from fewbits.errors import MismatchError, RecipeError
from fewbits.pipeline import check
from fewbits.pipeline.restore import decoded, restore
from fewbits.task import accuracy
from fewbits.weights import layers
from networks import small_network


def job(**train):
    return recipes.make({"assign": {"method": "int8"}, "train": train})


def run(trained, handwriting, recipe):
    def evaluate(model):
        return accuracy(model, handwriting.loader("validation", 256))

    loader = handwriting.loader("train", 32, shuffle=True)
    return fb.compress(trained, loader, evaluate=evaluate, recipe=recipe)


@pytest.mark.parametrize("train", [{"epochs": 0}, {"epochs": 1, "lr": 1e-4}, {"epochs": 0.5, "learn": True}])
def test_accuracy_stays_and_the_file_gives_the_same_bits(trained, handwriting, tmp_path, train):
    before = {name: t.clone() for name, t in trained.state_dict().items()}
    small = run(trained, handwriting, job(**train))
    assert all(torch.equal(before[name], t) for name, t in trained.state_dict().items())
    report = small.report
    assert report.identical is True
    assert report.accuracy_before - report.accuracy_after < 1.0
    assert report.method == ("int8" if train["epochs"] else "int8, calibrated only")
    assert {row.bits for row in report.tensors} == {8}
    assert report.steps == round(train["epochs"] * 34)
    small.save(tmp_path / "net.few")
    like = copy.deepcopy(trained)
    for parameter in like.parameters():
        parameter.data.zero_()
    net = fb.load(tmp_path / "net.few", like=like)
    inputs, _ = next(iter(handwriting.loader("test", 64)))
    with torch.no_grad():
        assert torch.equal(net(inputs), small.into(trained)(inputs))
        assert not torch.equal(net(inputs), trained(inputs))
    assert accuracy(net, handwriting.loader("validation", 256)) == report.accuracy_after


def test_the_same_seed_gives_the_same_bytes(trained, handwriting):
    files = [run(trained, handwriting, job(epochs=0.3, lr=1e-4)).data for _ in range(2)]
    assert files[0] == files[1]
    assert run(trained, handwriting, job(epochs=0)).data != files[0]


@pytest.mark.parametrize("learn", [False, True])
def test_training_goes_on_where_it_was_interrupted(trained, handwriting, tmp_path, learn):
    recipe = recipes.make(
        {"assign": {"method": "int8"}, "train": {"epochs": 2, "lr": 1e-3, "learn": learn}, "rounds": 8}
    )
    loader = handwriting.loader("train", 32, shuffle=True)
    state = tmp_path / "state"
    whole = fb.compress(trained, loader, recipe=recipe)
    seen = []

    def stop(done, total, line):
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fb.compress(trained, loader, recipe=recipe, state_file=state, progress=stop)
    assert state.exists()
    resumed = fb.compress(trained, loader, recipe=recipe, state_file=state, progress=stop)
    assert resumed.data == whole.data
    assert len(seen) == 8  # nothing was done twice
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_network_is_refused(trained, handwriting):
    data = run(trained, handwriting, job(epochs=0)).data
    trained[7] = torch.nn.Linear(30, 11)
    with pytest.raises(MismatchError, match=r"'7.bias' has shape \[10\] in the file and \[11\]"):
        decoded(data, trained)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"assign": {"method": "int8", "bits": 4}}, "int8 has 8 bits, got 4"),
        ({"assign": {"method": "int8"}, "target": "5 KB"}, "leave target"),
        ({"assign": {"method": "int8", "lam": 0.1}}, "leave target and assign.lam out"),
        ({"assign": {"method": "int8"}, "significand": 5}, "leave significand out"),
        ({"assign": {"method": "int8"}, "select": {"include": ["a*"]}}, "leave the select section out"),
        ({"assign": {"method": "int8"}, "train": {"precision": "bfloat16"}}, "train in float32"),
    ],
)
def test_impossible_recipes(values, message):
    with pytest.raises(RecipeError, match=message):
        check(recipes.make(values))


@pytest.mark.parametrize(
    ("options", "message"), [({"batches": 3}, "no 'batches'"), ({"calibrate": 8}, "called activations.calibrate now")]
)
def test_impossible_options(trained, handwriting, options, message):
    recipe = recipes.make({"assign": {"method": "int8", "options": options}, "train": {"epochs": 0}})
    with pytest.raises(RecipeError, match=message):
        run(trained, handwriting, recipe)


def test_a_drop_is_held_against_the_budget(trained, handwriting):
    recipe = recipes.make({"assign": {"method": "int8"}, "train": {"epochs": 0}, "max_drop": 5.0})
    assert run(trained, handwriting, recipe).report.met is True


@pytest.mark.parametrize("train", [{"epochs": 0}, {"epochs": 0.5, "lr": 1e-4}])
def test_channels_removed_before_int8_are_in_the_same_file(trained, handwriting, tmp_path, train):
    channels = {"macs": 0.5, "samples": 64, "train": {"epochs": 0.5, "lr": 0.02}}
    recipe = recipes.make({"channels": channels, "assign": {"method": "int8"}, "train": train})
    small = run(trained, handwriting, recipe)
    whole = run(trained, handwriting, job(epochs=0))
    report = small.report
    assert report.identical is True
    assert report.method.startswith("0.5 of macs by magnitude, layers measured + int8")
    assert report.float_bytes == whole.report.float_bytes, "of the network that was given"
    assert report.accuracy_before == whole.report.accuracy_before
    assert report.file_bytes < 0.8 * whole.report.file_bytes
    small.save(tmp_path / "net.few")
    net = fb.load(tmp_path / "net.few", like=small_network())
    inputs, _ = next(iter(handwriting.loader("test", 64)))
    with torch.no_grad():
        assert torch.equal(net(inputs), small.into(trained)(inputs))
    assert len(layers(net)["0"].weight) < len(trained[0].weight)


@pytest.mark.long
def test_channels_of_a_padded_shortcut_and_int8():
    """Shortcuts that pad channels with zeros, and biases that folding made."""
    torch.manual_seed(0)
    model = zoo.build("resnet-20", seed=0).eval()
    batches = [(torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))) for _ in range(2)]
    channels = {"channels": 0.3, "criterion": "random", "samples": 16, "train": None}
    recipe = recipes.make({"channels": channels, "assign": {"method": "int8"}, "train": {"epochs": 0}})
    small = fb.compress(model, batches, recipe=recipe)
    assert small.report.identical is True
    net, plan = restore(small.data, zoo.build("resnet-20", seed=1))
    assert plan.equals(small.plan)
    assert plan.channels.paddings
    inputs = batches[0][0]
    with torch.no_grad():
        assert torch.equal(net(inputs), small.into(model)(inputs))
