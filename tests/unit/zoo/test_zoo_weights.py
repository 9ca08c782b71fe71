import pytest
import torch
from safetensors.torch import save_file

from fewbits import zoo
from fewbits.data import Normalisation
from fewbits.errors import DataError, MismatchError, NonFiniteError


@pytest.fixture
def model():
    return zoo.build("digits-net", seed=0)


@pytest.fixture
def state():
    return zoo.build("digits-net", seed=1).state_dict()


def test_round_trip_with_metadata(tmp_path, model, state):
    save_file(state, tmp_path / "w.safetensors", metadata={"licence": "MIT"})
    assert zoo.load_weights(model, tmp_path / "w.safetensors") == {"licence": "MIT"}
    assert all(torch.equal(mine, state[name]) for name, mine in model.state_dict().items())


def test_half_precision_is_widened_and_counters_may_be_absent(tmp_path, model, state):
    half = {
        name: tensor.half() if tensor.ndim >= 2 else tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(half, tmp_path / "w.safetensors")
    assert zoo.load_weights(model, str(tmp_path / "w.safetensors")) == {}
    weight = model.state_dict()["classifier.1.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["classifier.1.weight"].half().float())


def renamed(state):
    state["classifier.1.weigth"] = state.pop("classifier.1.weight")


def reshaped(state):
    state["classifier.3.weight"] = torch.zeros(11, 128)


def lacking(state):
    del state["features.0.weight"]


def integers(state):
    state["classifier.3.bias"] = torch.zeros(10, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (renamed, r"'classifier.1.weigth' that the network lacks; did you mean 'classifier.1.weight'"),
        (reshaped, r"'classifier.3.weight' is \[11, 128\] in .* but \[10, 128\] in the network"),
        (lacking, r"lacks the network's tensor 'features.0.weight'"),
        (integers, r"'classifier.3.bias' is torch.int32 in .* but torch.float32"),
    ],
)
def test_mismatches_name_both_sides_and_change_nothing(tmp_path, model, state, change, says):
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MismatchError, match=says):
        zoo.load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nan_is_refused(tmp_path, model, state):
    state["classifier.3.bias"][2] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(NonFiniteError, match=r"classifier\.3\.bias"):
        zoo.load_weights(model, tmp_path / "w.safetensors")


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b"\xff" * 64, lambda b: b[:5]])
def test_damaged_files(tmp_path, model, state, damage):
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"w\.safetensors is not a sound"):
        zoo.load_weights(model, path)


def test_missing_file(tmp_path, model):
    with pytest.raises(DataError, match="no weight file at"):
        zoo.load_weights(model, tmp_path / "none.safetensors")


def test_normalisation_from_metadata():
    text = "mean .485 .456 .406 std .229 .224 .225"
    assert zoo.normalisation({"normalise": text}) == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert zoo.normalisation({}) is None
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    raw = zoo.normalisation({"input": "raw RGB 0..255 float, no normalisation"})
    assert torch.allclose(raw.apply(pixels).flatten(), torch.tensor([0.0, 51.0, 255.0]))


@pytest.mark.parametrize("text", ["imagenet", "mean 1 2 std", "mean . . . std 1 1 1", "mean 1 2 std 1"])
def test_unreadable_normalisation(text):
    with pytest.raises(DataError, match="cannot read the normalisation"):
        zoo.normalisation({"normalise": text})
