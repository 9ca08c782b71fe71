"""A fine-tuned network as what differs from a base: coded, loaded, packed beside others, by Python and by commands."""

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
from fewbits.errors import BaseError, DataError, FileError, MismatchError, RecipeError, UnsupportedError
from fewbits.multitask import extract_member, members_in
from fewbits.pipeline._hub import card
from fewbits.recipe import make
from fewbits.task import accuracy
from fewbits.weights import select
from networks import small_network


def recipe(**changes: Any):
    given = {"train": {"epochs": 1, "lr": 4e-3}, "rounds": 3, "significand": 5, "assign": {"method": "ecq", "bits": 4}}
    return make(given | changes)


def plain(lam: float) -> dict[str, Any]:
    """Without batches."""
    return {"assign": {"method": "ecq", "lam": lam}}


@pytest.fixture(scope="module")
def base(_trained: nn.Module) -> fb.Compressed:
    return fb.compress(_trained, recipe=plain(0.02), progress=None)


@pytest.fixture(scope="module")
def batches(handwriting: Any) -> list[Any]:
    """Mirrored digits: what the base has to be fine-tuned for."""
    return [(x.flip(3), y) for x, y in handwriting.loader("train", 64, shuffle=True, seed=1)]


@pytest.fixture(scope="module")
def validation(handwriting: Any) -> list[Any]:
    return [(x.flip(3), y) for x, y in handwriting.loader("validation", 256)]


@pytest.fixture(scope="module")
def tuned(base: fb.Compressed, batches: list[Any]) -> nn.Module:
    return fb.train(base.into(small_network()), batches, epochs=2, lr=5e-3, progress=None)


@pytest.fixture(scope="module")
def delta(base: fb.Compressed, tuned: nn.Module, batches: list[Any], validation: list[Any]) -> fb.Compressed:
    return fb.compress(tuned, batches, evaluate=validation, base=base, recipe=recipe(), target="1100", progress=None)


@pytest.fixture
def files(base: fb.Compressed, delta: fb.Compressed, tmp_path: Path) -> Path:
    base.save(tmp_path / "base.few")
    delta.save(tmp_path / "mirrored.few")
    fb.family({"base": tmp_path / "base.few", "mirrored": delta.data}, tmp_path / "family.few")
    return tmp_path


def test_a_budget_is_kept_and_the_network_is_better_than_its_base(
    delta: fb.Compressed, base: fb.Compressed, validation: list[Any]
) -> None:
    assert 1050 <= len(delta.data) <= 1100
    assert delta.report.identical
    assert delta.report.met
    before = accuracy(base.into(small_network()), validation)
    assert delta.report.accuracy_after > before + 10
    assert all(entry.base is not None for entry in delta.plan.values())


def test_it_loads_with_its_base_alone_and_from_a_family(
    files: Path, delta: fb.Compressed, base: fb.Compressed, validation: list[Any]
) -> None:
    x = validation[0][0]
    wanted = delta.into(small_network())(x)
    for options in ({"base": files / "base.few"}, {"base": base.data}, {"base": files / "family.few"}):
        assert torch.equal(fb.load(files / "mirrored.few", like=small_network(), **options)(x), wanted)
    assert torch.equal(fb.load(files / "family.few", like=small_network())(x), wanted)
    found = fb.load(files / "family.few", like=small_network(), member="base")
    assert torch.equal(found(x), base.into(small_network())(x))
    verified = fb.verify(delta, small_network(), evaluate=validation)
    assert verified.score == delta.report.accuracy_after
    assert fb.verify(files / "family.few", small_network(), member="mirrored").tensors == verified.tensors


def test_a_missing_and_a_wrong_base_name_both_and_the_way_out(files: Path, delta: fb.Compressed) -> None:
    needed = codec.inspect(delta.data).base
    assert needed is not None
    with pytest.raises(BaseError, match=f"(?s){needed}.*base="):
        fb.load(files / "mirrored.few", like=small_network())
    other = fb.compress(small_network(), recipe=plain(0.02), progress=None)
    with pytest.raises(BaseError, match=f"(?s){needed}.*{other.data[-16:].hex()}"):
        fb.load(files / "mirrored.few", like=small_network(), base=other.data)
    with pytest.raises(BaseError, match="holds differences itself"):
        fb.load(files / "mirrored.few", like=small_network(), base=files / "mirrored.few")
    with pytest.raises(FileError, match="cannot read"):
        fb.load(files / "mirrored.few", like=small_network(), base=files / "nowhere.few")
    with pytest.raises(RecipeError, match="no network 'missing'"):
        fb.load(files / "family.few", like=small_network(), member="missing")
    with pytest.raises(MismatchError, match="one network"):
        fb.load(files / "base.few", like=small_network(), member="base")


def test_a_network_is_its_own_base_for_two_hundred_bytes(base: fb.Compressed) -> None:
    for method in ("ecq", "ternary"):
        itself = fb.compress(
            base.into(small_network()), base=base, recipe={"assign": {"method": method}}, progress=None
        )
        assert len(itself.data) <= 200
        x = torch.randn(3, 1, 8, 8)
        assert torch.equal(itself.into(small_network())(x), base.into(small_network())(x))


def test_differences_that_are_pruned_by_magnitude(base: fb.Compressed, tuned: nn.Module) -> None:
    pruned = fb.compress(
        tuned,
        base=base,
        recipe={"assign": {"method": "none"}, "prune": {"method": "global-magnitude", "sparsity": 0.9}},
        progress=None,
    )
    weights = pruned.plan.compressed
    total = sum(entry.kept.numel() for entry in weights.values())
    assert sum(int(entry.kept.sum()) for entry in weights.values()) == pytest.approx(0.1 * total, rel=0.02)
    name = "5.weight"
    kept = weights[name].kept
    assert torch.equal(weights[name].values()[~kept], codec.base_of(base.data).tensors[name][~kept])


def test_another_head_stands_alone(base: fb.Compressed, batches: list[Any]) -> None:
    class Other(nn.Sequential):
        pass

    torch.manual_seed(0)
    net = Other(*base.into(small_network())[:-1], nn.Linear(30, 3))
    few = [(x, y % 3) for x, y in batches[:4]]
    delta = fb.compress(
        net, few, base=base, recipe=recipe(train={"epochs": 1}, assign={"method": "ecq", "lam": 0.1}), progress=None
    )
    assert delta.report.identical
    assert delta.plan["7.weight"].base is None
    assert delta.plan["5.weight"].base is not None


def test_what_is_frozen_at_the_base_stays_it(base: fb.Compressed, batches: list[Any]) -> None:
    """As where only a head is tuned: the rest costs no byte, and is the base's to the bit."""
    net = base.into(small_network())
    first, *others = select(net)
    for name, p in net.named_parameters():
        p.requires_grad_(name != first)
    small = fb.compress(net, batches[:8], base=base, recipe=recipe(), steps=8, progress=None)
    loaded = fb.load(small.data, like=small_network(), base=base.data)
    assert torch.equal(select(loaded)[first], select(base.into(small_network()))[first])
    assert first not in {row.name for row in small.report.tensors} >= set(others)
    (row,) = [row for row in small.report.rest if row.name == first]
    assert (row.bytes, row.why) == (0, "is as it is in the base")
    free = fb.compress(
        base.into(small_network()), batches[:8], base=base, recipe=recipe(), steps=8, progress=None
    )  # fmt: skip
    assert len(small.data) < len(free.data)
    for name, p in net.named_parameters():
        p.requires_grad_(name.endswith("bias"))
    biases = fb.compress(net, batches[:8], base=base, recipe=recipe(), steps=8, progress=None)
    assert not {row.name for row in biases.report.tensors} & {first, *others}, "all that is compressed is frozen"


def test_what_goes_not_with_a_base_is_refused(base: fb.Compressed, tuned: nn.Module, batches: list[Any]) -> None:
    for asked in ({"channels": {"parameters": 0.5}, **plain(0.1)}, {"assign": {"method": "int8"}}):
        with pytest.raises(RecipeError, match="base"):
            fb.compress(tuned, batches, base=base, recipe=asked, progress=None)
    with pytest.raises(MismatchError, match=r"begins with '0\.weight'"):
        fb.compress(nn.Linear(3, 2), base=base, progress=None)
    with pytest.raises(RecipeError, match="base"):
        fb.compressing(tuned, recipe={"base": "base.few"}, steps=3)


def test_an_interrupted_run_goes_on_to_the_same_bytes_and_not_with_another_base(
    base: fb.Compressed, tuned: nn.Module, batches: list[Any], validation: list[Any], tmp_path: Path
) -> None:
    asked = {"evaluate": validation, "recipe": recipe(train={"epochs": 1}), "target": 1100}
    whole = fb.compress(tuned, batches, base=base, progress=None, **asked)

    def stop(done: int, total: int, line: str) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        fb.compress(tuned, batches, base=base, progress=stop, state_file=state, **asked)
    other = fb.compress(tuned, recipe=plain(0.3), progress=None)
    with pytest.raises(DataError, match="another recipe"):
        fb.compress(tuned, batches, base=other, progress=None, state_file=state, **asked)
    again = fb.compress(tuned, batches, base=base, progress=None, state_file=state, **asked)
    assert again.data == whole.data


def test_one_of_a_family_is_read_without_the_others(files: Path, base: fb.Compressed, delta: fb.Compressed) -> None:
    members = {"base": base.data} | {f"task{i}": delta.data for i in range(10)}
    size = fb.family(members, files / "ten.few")
    found = {one.name: one for one in members_in(files / "ten.few")}
    assert found["task3"].base == "base"
    needed = len(base.data) + len(delta.data)
    assert needed < found["task3"].read < needed + 250 < size / 3
    done = extract_member(files / "ten.few", "task3", files / "three.few")
    assert done.read == found["task3"].read
    assert done.base == "base"
    alone = extract_member(files / "ten.few", "task4", files / "four.few", with_base=False)
    assert (files / "four.few").read_bytes() == delta.data
    assert alone.read < len(delta.data) + 250
    x = torch.randn(3, 1, 8, 8)
    wanted = delta.into(small_network())(x)
    assert torch.equal(fb.load(files / "three.few", like=small_network())(x), wanted)
    assert torch.equal(fb.load(files / "four.few", like=small_network(), base=files / "base.few")(x), wanted)
    reads = counted(files / "ten.few", "task9")
    assert reads == found["task9"].read


def counted(path: Path, member: str) -> int:
    """Bytes that loading one network really asks the operating system for, beyond the first look."""
    from fewbits.codec import FamilyReader

    total: list[int] = []

    class Counting(FamilyReader):
        def take(self, begin: int, end: int) -> bytes:
            data = super().take(begin, end)
            total.append(len(data))
            return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewbits.pipeline._sources.FamilyReader", Counting)
        fb.load(path, like=small_network(), member=member)
    return sum(total)


MINE = """
from networks import small_network

def net():
    return small_network()

def loaders():
    from fewbits.data import digits
    found = digits()
    flip = lambda split: [(x.flip(3), y) for x, y in found.loader(split, 64)]
    return {"train": flip("train"), "validation": flip("validation"), "test": flip("test")}
"""


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(why: str, *words: object) -> None:
    with pytest.raises(RecipeError, match=why):
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_a_base_may_have_a_head_larger_than_the_network(batches: list[Any]) -> None:
    """As networks of very many classes have, of which a small one is tuned."""
    torch.manual_seed(0)

    def network(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))

    base = fb.compress(network(20_000), recipe=plain(0.0), progress=None)
    tuned = fb.compress(network(10), batches[:2], base=base.data, recipe=recipe(rounds=1), progress=None)
    assert fb.load(tuned.data, like=network(10), base=base.data) is not None


def test_commands(files: Path, tuned: nn.Module, delta: fb.Compressed, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.chdir(files)
    (files / "mine.py").write_text(MINE)
    save_file({n: t.contiguous() for n, t in tuned.state_dict().items()}, files / "tuned.safetensors")
    (files / "recipe.yaml").write_text(
        "schema: 2\nnetwork: {name: 'mine.py:net', weights: tuned.safetensors}\ndata: {name: 'mine.py:loaders'}\n"
        "base: base.few\nassign: {method: ecq, lam: 0.2}\nsignificand: 5\ntrain: null\n"
    )
    run("compress", "recipe.yaml", "--out", "out")
    made = files / "out" / "net.few"
    assert codec.inspect(made.read_bytes()).base == delta.base.identity.hex()
    assert "sound, decodes" in run("verify", made, "--recipe", "recipe.yaml")
    own = ("--network", "mine.py:net", "--data", "mine.py:loaders")
    assert "sound, decodes" in run("verify", made, *own, "--base", "base.few")
    without = run("inspect", "mirrored.few")
    assert "holds differences to the base" in without
    assert "--base" in without
    within = run("inspect", "mirrored.few", "--base", "base.few", "--json", "seen.json")
    assert "clustered difference" in within
    assert json.loads((files / "seen.json").read_text())["base"] == delta.base.identity.hex()
    assert "identity" in run("inspect", "family.few", "--member", "base")
    run("export", "mirrored.few", "--to", "safetensors", "--levels", "--base", "base.few")
    found = load_file(files / "mirrored.safetensors")
    assert torch.equal(found["5.weight"], delta.plan["5.weight"].values())
    run("family", "both.few", "base.few", "mirrored.few")
    kept = {name: (files / name).read_bytes() for name in ("base.few", "both.few")}
    refused(r"base.few is there and holds no family: name the new file first", "family", "base.few", "mirrored.few")
    for words in (
        ["family", "both.few", "base.few", "both.few"],
        ["extract", "both.few", "--task", "mirrored", "--out", "both.few"],
    ):
        over = CliRunner().invoke(app, words)
        assert over.exit_code == 2
        assert "both.few is read here" in over.output.replace("\n", " ")
    refused("mirrored.few is there already", "extract", "both.few", "--task", "mirrored")
    refused("'a/b' is no name of a file", "extract", "both.few", "--task", "a/b")
    assert all((files / name).read_bytes() == data for name, data in kept.items())
    listed = run("tasks", "both.few", "--json", "tasks.json")
    assert "mirrored" in listed
    assert [one["base"] for one in json.loads((files / "tasks.json").read_text())["members"]] == [None, "base"]
    assert "with its base" in run("extract", "both.few", "--task", "mirrored", "--out", "one.few")
    run("extract", "both.few", "--task", "mirrored", "--no-with-base", "--out", "alone.few")
    assert (files / "alone.few").read_bytes() == delta.data


def test_a_card_says_which_base_is_needed(delta: fb.Compressed, base: fb.Compressed) -> None:
    words = card(delta.report, "hf://owner/name", codec.inspect(delta.data).base)
    assert base.data[-16:].hex() in words
    assert "base=" in words
    assert "base=" not in card(base.report, "hf://owner/name", codec.inspect(base.data).base)


def test_other_operations_go_without_a_base(base: fb.Compressed, batches: list[Any]) -> None:
    with pytest.raises(RecipeError, match="leave ops or base out"):
        fb.compress(small_network(), batches, base=base, recipe=recipe(ops={"gelu": {"kind": "lines"}}), progress=None)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    other = fb.compress(net, recipe=plain(0.02), progress=None)
    made = {"assign": {"method": "ecq", "lam": 0.02}, "train": None, "ops": {"tanh": {"kind": "lines", "pieces": 8}}}
    lines = fb.compress(net, [(torch.randn(8, 4), torch.zeros(8).long())], recipe=made, progress=None)
    with pytest.raises(UnsupportedError, match="computes tanh otherwise cannot be a base"):
        fb.compress(net, recipe=plain(0.02), base=lines, progress=None)
    with pytest.raises(UnsupportedError, match="computes tanh otherwise goes without a base"):
        fb.compress(lines.into(net), recipe=plain(0.02), base=other, progress=None)
