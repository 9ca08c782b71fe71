"""The command line as a user meets it: what is printed where, what is written, and the exit code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from fewbits import cli
from fewbits.cli import _progress as progress
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 1, lr: 5.0e-3}
assign: {options: {zero_floor: 0.5}}
train: {epochs: 1, lr: 2.0e-3}
target: 14 KB
"""
FILES = ["float.safetensors", "net.few", "report.html", "report.json"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def fewbits(*args: object) -> Ran:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["fewbits", *map(str, args)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as leave:
            code = int(leave.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def first_run(recipe: Path) -> tuple[Ran, Path]:
    out = recipe.parent / "out"
    ran = fewbits("compress", recipe, "--out", out, "--set", "rounds=3", "--json", recipe.parent / "figures.json")
    return ran, out


@pytest.fixture
def made(first_run: tuple[Ran, Path], tmp_path: Path) -> Path:
    """A folder of results; each test gets its own copy."""
    return Path(shutil.copytree(first_run[1], tmp_path / "made"))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# -- what works -----------------------------------------------------------------------------------------


def test_compress_writes_four_files_and_says_so(first_run: tuple[Ran, Path]) -> None:
    ran, out = first_run
    assert ran.code == 0, ran.err
    assert sorted(os.listdir(out)) == FILES
    report = json.loads((out / "report.json").read_text())
    assert report["file_bytes"] == (out / "net.few").stat().st_size <= 14_000
    assert report["identical"] is report["met"] is True
    assert len(report["history"]) == 4, "three rounds, as --set says, and where it began"
    assert json.loads((out.parent / "figures.json").read_text()) == report
    last = ran.out.splitlines()[-1]
    assert last.startswith(f"written to {out}: ")
    assert all(name in last for name in FILES)


def test_piped_output_has_no_control_characters_and_shows_progress_in_lines(first_run: tuple[Ran, Path]) -> None:
    ran, _ = first_run
    assert (ran.out + ran.err).replace("\n", "").isprintable()
    assert "train 100 %: loss" in ran.err
    assert "compress 100 %: " in ran.err
    assert len(ran.err.splitlines()) < 26


def test_inspect(made: Path, tmp_path: Path) -> None:
    ran = fewbits("inspect", made / "net.few", "--json", tmp_path / "net.json")
    assert ran.code == 0
    assert hashlib.sha256((made / "net.few").read_bytes()).hexdigest() in ran.out
    summary = json.loads((tmp_path / "net.json").read_text())
    assert {t["name"] for t in summary["tensors"]} == {
        f"layers.{n}.{part}" for n in (1, 3, 5) for part in ("weight", "bias")
    }
    assert all(t["name"] in ran.out for t in summary["tensors"])
    assert {t["coder"] for t in summary["tensors"]} <= {"small", "mixing", "numbers", "constant"}
    assert all(row["seconds"] > 0 and row["coded_bits"] > 0 for row in summary["decoded"])
    assert "times their zero-order entropy" in ran.out
    ran = fewbits("inspect", made / "net.few", "--limit", 10)
    assert ran.code == 0
    assert "the limit without its network is 10 (--limit)" in ran.out


def test_a_recipe_prunes_and_everything_else_takes_the_file(recipe: Path, tmp_path: Path) -> None:
    pruning = tmp_path / "prune.yaml"
    pruning.write_text(
        RECIPE.replace("assign: {options: {zero_floor: 0.5}}", "assign: {method: none}")
        .replace("target: 14 KB", "prune: {sparsity: 0.9, min_kept: 20, schedule: cubic}\nrounds: 2")
    )  # fmt: skip
    ran = fewbits("compress", pruning, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "global-magnitude 0.9 keeping at least 20" in ran.out
    told = " ".join(ran.out.split())
    assert "zeros 90.0 % of the pruned weights (50,200), 89.3 % of all 50,610 parameters" in told
    assert "multiplications 5,020 of 50,200 per sample are with weights that are not zero (10.0 %)" in told
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["zeros"] == pytest.approx(0.9)
    net = tmp_path / "out" / "net.few"
    ran = fewbits("inspect", net, "--json", tmp_path / "net.json")
    assert ran.code == 0
    tensors = json.loads((tmp_path / "net.json").read_text())["tensors"]
    assert sum(t["survivors"] for t in tensors if t["kind"] == "masked") == 5020
    assert fewbits("verify", net, "--recipe", pruning).code == 0
    assert fewbits("explain", pruning, "--net", net).code == 0
    assert fewbits("export", net, "--to", "safetensors").code == 0
    ran = fewbits("compress", pruning, "--out", tmp_path / "no", "--set", "prune.min_kept=90%")
    assert ran.code == 2
    assert "lower the sparsity or min_kept" in ran.err


def test_export(made: Path, tmp_path: Path) -> None:
    ran = fewbits("export", made / "net.few", "--to", "safetensors", "--out", tmp_path / "x.safetensors")
    assert ran.code == 0, ran.err
    assert "6 tensors" in ran.out
    assert set(load_file(tmp_path / "x.safetensors")) == {
        f"layers.{n}.{part}" for n in (1, 3, 5) for part in ("weight", "bias")
    }
    ran = fewbits("export", made / "net.few", "--to", "safetensors", "--levels")
    assert ran.code == 0
    assert "layers.1.weight.step" in load_file(made / "net.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "onyx"), "'onyx' is not one of"),
        (("--to", "nnc", "--levels"), "--levels goes with --to safetensors"),
        (("--to", "safetensors", "--out", "no/such/folder/x"), "cannot be written"),
        (("--to", "safetensors", "--limit", 3), "the limit without its network is 3"),
    ],
)
def test_export_refuses(made: Path, options: tuple[object, ...], message: str) -> None:
    ran = fewbits("export", made / "net.few", *options)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_verify_finds_the_accuracy_of_the_report(made: Path, recipe: Path, tmp_path: Path) -> None:
    ran = fewbits("verify", made / "net.few", "--recipe", recipe, "--json", tmp_path / "v.json")
    assert ran.code == 0, ran.err
    report = json.loads((made / "report.json").read_text())
    assert json.loads((tmp_path / "v.json").read_text())["accuracy"] == report["accuracy_after"] > 50
    assert "the same" in ran.out


def test_verify_tells_a_wrong_report(made: Path, recipe: Path, tmp_path: Path) -> None:
    values = json.loads((made / "report.json").read_text())
    values["accuracy_after"] += 1.0
    (made / "report.json").write_text(json.dumps(values))
    ran = fewbits("verify", made / "net.few", "--recipe", recipe, "--json", tmp_path / "v.json")
    assert ran.code == 3
    assert "NOT the same" in ran.out
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["reported"] == pytest.approx(found["accuracy"] + 1)


@pytest.mark.parametrize(("samples", "code", "words"), [(1, 0, "1 of 540 samples apart"), (2, 3, "NOT the same")])
def test_verify_allows_what_other_processors_round(
    made: Path, recipe: Path, samples: int, code: int, words: str
) -> None:
    values = json.loads((made / "report.json").read_text())
    values["accuracy_after"] -= samples / 5.4  # percent of 540 test samples
    (made / "report.json").write_text(json.dumps(values))
    ran = fewbits("verify", made / "net.few", "--recipe", recipe)
    assert (ran.code, words in ran.out) == (code, True), ran.out


def test_a_report_of_another_file_is_not_read(made: Path, recipe: Path, tmp_path: Path) -> None:
    values = json.loads((made / "report.json").read_text())
    (made / "report.json").write_text(json.dumps(values | {"accuracy_after": 12.0, "sha256": 64 * "0"}))
    ran = fewbits("verify", made / "net.few", "--recipe", recipe, "--json", tmp_path / "v.json")
    assert ran.code == 0
    assert "report.json beside it is of another file, and is not read" in ran.out
    assert "reported" not in json.loads((tmp_path / "v.json").read_text())


def test_an_export_does_not_write_over_what_it_reads(made: Path) -> None:
    kept = {path: path.read_bytes() for path in made.iterdir() if path.is_file()}
    (made / "float.few").write_bytes((made / "net.few").read_bytes())
    for words in (["net.few", "--out", made / "net.few"], ["float.few"]):
        ran = fewbits("export", made / words[0], "--to", "safetensors", *words[1:])
        assert ran.code == 2
        assert "is read here, and would be lost" in ran.err.replace("\n", " ").replace("│ ", "")
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_verify_needs_no_report(made: Path, recipe: Path) -> None:
    (made / "report.json").unlink()
    ran = fewbits("verify", made / "net.few", "--recipe", recipe)
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)


def test_explain_draws_pictures_from_the_float_network_beside_the_file(
    made: Path, recipe: Path, tmp_path: Path
) -> None:
    before = (made / "report.html").read_text().count("<img")
    ran = fewbits("explain", recipe, "--net", made / "net.few", "--json", tmp_path / "e.json")
    assert ran.code == 0, ran.err
    pictures = [f"relevance-layers.{n}.weight.png" for n in (1, 3, 5)] + ["flipping.png", "heatmaps.png", "kept.png"]
    for name in pictures:
        assert (made / name).read_bytes().startswith(b"\x89PNG"), name
        assert name in ran.out
    assert (made / "report.html").read_text().count("<img") > before
    assert "training on" not in ran.err, "the float network was trained again"
    layers = json.loads((tmp_path / "e.json").read_text())["layers"]
    assert [layer["name"] for layer in layers] == [f"layers.{n}.weight" for n in (1, 3, 5)]


def test_report_draws_a_report_and_results(made: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert fewbits("report", made / "report.json", "--out", page).code == 0
    assert "lenet-300-100" in page.read_text()
    row = {"model": "m", "data": "d", "method": "ecqx", "seed": 0, "accuracy": 91.0, "bytes": 1234}
    (tmp_path / "r.json").write_text(json.dumps({"benchmark": "trial", "rows": [row]}))
    assert fewbits("report", tmp_path / "r.json", "--out", page).code == 0
    assert "1,234" in page.read_text()


def test_lists(tmp_path: Path) -> None:
    recipes = fewbits("recipes").out.splitlines()
    assert [line.split()[0] for line in recipes] == sorted(line.split()[0] for line in recipes)
    assert any(line.startswith("demo ") for line in recipes)
    (tmp_path / "mnist").mkdir()
    known = dict(line.split(maxsplit=1) for line in fewbits("data", "list", "--folder", tmp_path).out.splitlines())
    assert known["mnist"] == f"in {tmp_path / 'mnist'}"
    assert known["cifar10"] == "not here: fewbits data fetch cifar10"
    assert known["digits"] == "comes with scikit-learn"


def test_version_and_help() -> None:
    assert fewbits("--version") == Ran(0, f"fewbits {version('fewbits')}\n", "")
    shown = fewbits("--help")
    assert shown.code == 0
    assert "demo" in shown.out


# -- budgets --------------------------------------------------------------------------------------------


def test_a_target_goes_before_the_lambda_of_the_recipe(recipe: Path, tmp_path: Path) -> None:
    change = ["--set", "target=null", "--set", "assign.lam=0.1", "--set", "rounds=2"]
    ran = fewbits("compress", recipe, "--target", "12 KB", "--out", tmp_path, *change)
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["target"], report["max_drop"]) == (12_000, None)
    assert report["file_bytes"] <= 12_000


@pytest.mark.long
def test_both_budgets(recipe: Path, tmp_path: Path) -> None:
    ran = fewbits("compress", recipe, "--target", "20 KB", "--max-drop", "15", "--out", tmp_path, "--set", "rounds=4")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["target"], report["max_drop"], report["met"]) == (20_000, 15, True)
    assert report["file_bytes"] < 20_000


@pytest.mark.long
def test_any_drop_gives_the_smallest_file_rather_than_an_error(recipe: Path, tmp_path: Path) -> None:
    ran = fewbits("compress", recipe, "--max-drop", "100", "--out", tmp_path, "--set", "rounds=7")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "report.json").read_text())["file_bytes"] < 6_000


@pytest.mark.parametrize("target", [[], ["--target", "30 KB"]])
def test_a_drop_that_cannot_be_kept_is_told_with_what_was_reached(
    recipe: Path, tmp_path: Path, target: list[str]
) -> None:
    poor = ["--set", "assign.bits=2", "--set", "train.lr=1e-7", "--set", "rounds=2"]
    ran = fewbits("compress", recipe, "--max-drop", "0", *target, "--out", tmp_path, *poor)
    assert ran.code == 3
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["met"] is False
    (told,) = [line for line in ran.err.splitlines() if line.startswith("the budget was not met")]
    assert f"{report['file_bytes']:,} bytes" in told
    assert ("at most 30,000" in told) == bool(target)
    assert "points lost on validation data (asked for at most 0 points of accuracy lost)" in told
    assert "NOT MET" in ran.out
    assert sorted(os.listdir(tmp_path)) == FILES


def test_an_impossible_target_is_told_before_training_and_costs_nothing(made: Path, recipe: Path) -> None:
    before = snapshot(made)
    ran = fewbits("compress", recipe, "--target", "500 bytes", "--out", made)
    assert ran.code == 2
    assert "error: 500 bytes cannot be reached" in ran.err
    assert re.findall(r"compress (\d+) %", ran.err) == ["0"]  # said before the first file is coded
    assert snapshot(made) == before


# -- what goes wrong ------------------------------------------------------------------------------------

Case = tuple[Callable[[Path, Path], list[object]], str]


def _cut(made: Path, end: int | None) -> Path:
    file = made / "net.few"
    file.write_bytes(file.read_bytes()[:end])
    return file


def _flipped(made: Path) -> Path:
    data = bytearray((made / "net.few").read_bytes())
    data[len(data) // 2] ^= 4
    (made / "net.few").write_bytes(data)
    return made / "net.few"


def _file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _blocked(folder: Path) -> Path:
    (folder / "net.few").unlink()
    (folder / "net.few").mkdir()
    return folder


MISTAKES: dict[str, Case] = {
    "no such option": (lambda r, m: ["compress", r, "--tagret", "3 KB"], r"--tagret.*fewbits compress --help"),
    "no such command": (lambda r, m: ["compres", r], "compres"),
    "no recipe given": (lambda r, m: ["compress"], "Missing argument"),
    "no command": (lambda r, m: [], "a command is missing; see 'fewbits --help'"),
    "no data command": (lambda r, m: ["data"], "a command is missing; see 'fewbits data --help'"),
    "no number": (lambda r, m: ["compress", r, "--max-drop", "few"], "--max-drop.*few"),
    "negative drop": (lambda r, m: ["compress", r, "--max-drop", "-1"], "max_drop is at least 0, got -1"),
    "no size": (lambda r, m: ["compress", r, "--target", "many"], "'many' is not a size"),
    "no such recipe": (lambda r, m: ["compress", "dmo"], "did you mean 'demo'"),
    "a folder as recipe": (lambda r, m: ["compress", m], "is a folder; a recipe is a YAML file"),
    "a file of bytes as recipe": (lambda r, m: ["compress", m / "net.few"], "not text in UTF-8"),
    "recipe without network": (
        lambda r, m: ["compress", _file(m, "r.yaml", b"schema: 2\ntarget: 3 KB\n"), "--out", m],
        "names no network and no data",
    ),
    "set without value": (lambda r, m: ["compress", r, "--set", "rounds"], "write it as key=value"),
    "set to nonsense": (lambda r, m: ["compress", r, "--set", "rounds=["], r"'\[' is not a YAML value"),
    "set of no key": (lambda r, m: ["compress", r, "--set", "train.epocs=3"], "did you mean 'epochs'"),
    "set of no part": (lambda r, m: ["compress", r, "--set", "trian.epochs=3"], "did you mean 'train'"),
    "set to a wrong type": (
        lambda r, m: ["compress", r, "--set", "rounds=many"],
        "rounds is a whole number, got 'many'",
    ),
    "two ways to steer": (lambda r, m: ["compress", r, "--set", "assign.lam=1"], r"either assign\.lam or a budget"),
    "unknown network": (lambda r, m: ["compress", r, "--set", "network.name=lenet-9", "--out", m], "lenet-300-100"),
    "network that does not fit": (
        lambda r, m: ["compress", r, "--set", "network.options.inputs=784", "--out", m],
        r"digits has inputs of shape \(1, 8, 8\), which LeNet300100 does not take",
    ),
    "wrong number of classes": (
        lambda r, m: ["compress", r, "--set", "network.options.classes=7", "--out", m],
        "10 classes.*7 outputs; set network.options.classes",
    ),
    "untrained": (lambda r, m: ["compress", r, "--set", "pretrain=null", "--out", m], "the network is untrained"),
    "no weights": (
        lambda r, m: ["compress", r, "--set", "network.weights=no.safetensors", "--out", m],
        "no weight file at no.safetensors",
    ),
    "damaged weights": (
        lambda r, m: ["compress", r, "--set", f"network.weights={_file(m, 'w', b'nonsense')}", "--out", m],
        "not a sound .safetensors file",
    ),
    "unknown data": (lambda r, m: ["compress", r, "--set", "data.name=digit", "--out", m], "did you mean 'digits'"),
    "folder without data": (
        lambda r, m: ["compress", r, "--set", f"data={{name: mnist, folder: {_empty(m)}}}", "--out", m],
        "no mnist in .*fewbits data fetch mnist",
    ),
    "a file as folder": (
        lambda r, m: ["compress", r, "--out", m / "report.json"],
        r"report\.json is a file; a folder has to go there",
    ),
    "a folder below a file": (
        lambda r, m: ["compress", r, "--out", m / "report.json" / "out"],
        r"report\.json is a file; a folder has to go there",
    ),
    "a folder as file": (lambda r, m: ["compress", r, "--out", _blocked(m)], "net.few is a folder; a file has to"),
    "foreign state": (
        lambda r, m: ["compress", r, "--out", _file(m, "unfinished.state", b"nonsense").parent],
        "unfinished.state is not a checkpoint of this version; delete it",
    ),
    "figures to nowhere": (lambda r, m: ["compress", r, "--json", m / "no" / "f.json"], "--json.*there is no folder"),
    "figures to a folder": (lambda r, m: ["compress", r, "--json", m], "--json.*it is a folder"),
    "inspect nothing": (lambda r, m: ["inspect", m / "no.few"], "cannot read .*No such file"),
    "inspect a folder": (lambda r, m: ["inspect", m], "cannot read .*Is a directory"),
    "inspect a part": (lambda r, m: ["inspect", _cut(m, -40)], "truncated: it should have"),
    "inspect an empty file": (lambda r, m: ["inspect", _cut(m, 0)], "the file is empty"),
    "inspect another file": (lambda r, m: ["inspect", m / "report.json"], "this is not a .few file"),
    "verify a damaged file": (lambda r, m: ["verify", _flipped(m), "--recipe", r], "checksum|damaged"),
    "verify a part": (lambda r, m: ["verify", _cut(m, 500), "--recipe", r], "and has 500"),
    "verify with another recipe": (
        lambda r, m: ["verify", m / "net.few", "--recipe", r, "--set", "network={name: digits-net}"],
        r"layers\.1",
    ),
    "verify beside no report": (
        lambda r, m: ["verify", _file(m, "report.json", b"[]").parent / "net.few", "--recipe", r],
        r"report\.json is neither a result file.* nor a report",
    ),
    "explain nothing": (lambda r, m: ["explain", r, "--net", m / "no.few"], "cannot read"),
    "explain by no rules": (
        lambda r, m: ["explain", r, "--net", m / "net.few", "--rules", "plsu"],
        "did you mean 'plus'",
    ),
    "explain with no vocabulary": (
        lambda r, m: ["explain", r, "--net", m / "net.few", "--vocabulary", m / "no.txt"],
        r"the vocabulary .*no\.txt cannot be read",
    ),
    "explain with what is no vocabulary": (
        lambda r, m: ["explain", r, "--net", m / "net.few", "--vocabulary", m / "report.json"],
        'is neither {"token": number} nor a list of tokens',
    ),
    "explain with other weights": (
        lambda r, m: ["explain", r, "--net", m / "net.few", "--weights", m / "no.safetensors"],
        "no weight file",
    ),
    "report of text": (lambda r, m: ["report", r], "is not JSON"),
    "report of nothing": (lambda r, m: ["report", m / "no.json"], "cannot be read"),
    "report to nowhere": (
        lambda r, m: ["report", m / "report.json", "--out", m / "no" / "p.html"],
        "cannot write",
    ),
    "fetch the unknown": (lambda r, m: ["data", "fetch", "imagenet"], "no data set is called 'imagenet'"),
    "fetch what comes along": (lambda r, m: ["data", "fetch", "digits"], "nothing to fetch"),
    "demo of the unknown": (lambda r, m: ["demo", "--data", "imagenet"], "no demo for imagenet"),
    "demo without weights": (lambda r, m: ["demo", "--data", "cifar10", "--model", "vgg16-bn"], "give --weights"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name: str, recipe: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, expected = MISTAKES[name]
    monkeypatch.chdir(made)
    args = build(recipe, made)
    before = snapshot(made)
    ran = fewbits(*args)
    assert ran.code == 2, ran
    (sentence,) = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert ran.err.endswith(sentence + "\n"), "it is the last word"
    assert "Traceback" not in ran.err + ran.out
    assert re.search(expected, sentence), sentence
    assert len(sentence) < 400
    if "missing; see" not in sentence:
        assert ran.out == "", "help goes out, and nothing else"
    assert snapshot(made) == before, "something was written or lost"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("assign.options={min_kept: 120%}", "min_kept is a share"),
        ("assign.options={flor: 1}", "assign.options of ecqx: no 'flor'"),
    ],
)
def test_a_refused_option_is_found_before_anything_is_trained(
    recipe: Path, tmp_path: Path, change: str, expected: str
) -> None:
    ran = fewbits("compress", recipe, "--out", tmp_path / "new", "--set", change)
    assert ran.code == 2
    assert expected in ran.err
    assert "training on" not in ran.err


# -- Ctrl-C ---------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_final_write_keeps_the_old_file_and_the_state(
    recipe: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was computed; the new file is about to get its name."""
    old = (made / "net.few").read_bytes()
    command = ["compress", recipe, "--out", made, "--set", "rounds=4", "--target", "11 KB"]
    real = os.replace

    def replace(source: str, target: str) -> None:
        if str(target).endswith("net.few"):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        ran = fewbits(*command)
    assert ran.code == 130
    assert ran.err.splitlines()[-1].startswith(f"interrupted; what was reached is kept in {made / outputs.STATE}")
    assert (made / "net.few").read_bytes() == old
    assert sorted(os.listdir(made)) == sorted([*FILES, outputs.STATE, outputs.UNFINISHED])

    again = fewbits(*command)
    assert again.code == 0
    assert f"going on with the unfinished run in {made}" in again.err
    assert "training on" not in again.err
    assert sorted(os.listdir(made)) == FILES
    assert (
        json.loads((made / "report.json").read_text())["file_bytes"] == len((made / "net.few").read_bytes()) <= 11_000
    )


def test_ctrl_c_before_the_first_round_says_that_nothing_was_kept(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "pretrain", stop)
    ran = fewbits("compress", recipe, "--out", tmp_path)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "interrupted before there was anything to keep; the same command starts anew"
    assert os.listdir(tmp_path) == []


def test_ctrl_c_before_the_first_round_keeps_the_trained_network_for_this_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    command = ["compress", recipe, "--out", tmp_path, "--set", "rounds=1"]
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "compress", stop)
        ran = fewbits(*command)
    assert ran.code == 130
    assert f"kept in {tmp_path / outputs.UNFINISHED}, and the same command goes on" in ran.err
    assert os.listdir(tmp_path) == [outputs.UNFINISHED]

    monkeypatch.setattr(jobs, "compress", stop)
    assert "training on" not in fewbits(*command).err
    assert "training on" in fewbits(*command, "--set", "seed=1").err, "another network was taken for this one"
    (tmp_path / outputs.UNFINISHED).write_bytes(b"damaged")
    assert "training on" in fewbits(*command).err


def test_the_state_of_another_recipe_is_refused_before_training(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Compressed, "save", stop)
    assert fewbits("compress", recipe, "--out", tmp_path, "--set", "rounds=3").code == 130
    before = snapshot(tmp_path)
    ran = fewbits("compress", recipe, "--out", tmp_path, "--set", "rounds=4")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        f"error: {tmp_path / outputs.STATE} belongs to another recipe, network or data; delete it to start anew"
    ]
    assert snapshot(tmp_path) == before


def test_a_run_that_could_only_fail_again_leaves_no_state(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewbits.errors import BudgetError
    from fewbits.pipeline.stages import _hold as hold

    def fail(*args: object) -> None:
        raise BudgetError("the file stays too large")

    monkeypatch.setattr(hold, "finish", fail)
    ran = fewbits("compress", recipe, "--out", tmp_path, "--set", "rounds=3")
    assert ran.code == 2
    assert os.listdir(tmp_path) == []


def test_a_launcher_whose_processes_do_not_meet_is_noticed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = fewbits("compress", recipe, "--out", tmp_path)
    assert ran.code == 2
    assert "set ACCELERATE_USE_CPU=true" in ran.err


def test_normalisations_of_every_kind_come_back_from_the_float_file(tmp_path: Path) -> None:
    """Speech and activity have negative means; a tiny deviation is written with an exponent."""
    from fewbits import zoo
    from fewbits.data import Normalisation

    network = torch.nn.Linear(2, 2)
    given = Normalisation((-0.25, 3e-7, 12.0), (1e-6, 2.5, 1e20))
    outputs.save_float(network, tmp_path / "w.safetensors", given)
    found = zoo.normalisation(zoo.load_weights(torch.nn.Linear(2, 2), tmp_path / "w.safetensors"))
    assert found is not None
    assert (found.mean, found.std) == (given.mean, given.std)


def test_a_second_training_of_a_stage_has_its_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    update = progress._lines("compress")
    for training in ("pilot run of", "training"):
        for done in range(1, 101):
            update(done, 100, training)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == ["pilot run of"] * 11 + ["training"] * 11


def piped(out: int, *args: object) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, whose output goes to a file that is open."""
    argv = [sys.executable, "-m", "fewbits", *map(str, args)]
    return subprocess.run(argv, stdout=out, stderr=subprocess.PIPE, text=True, check=False)


def test_without_a_reader_everything_is_written(recipe: Path, tmp_path: Path) -> None:
    """As in ``fewbits ... | head``, whose end comes before that of the command."""
    out, unread = os.pipe()
    os.close(out)
    figures = tmp_path / "figures.json"
    ran = piped(unread, "compress", recipe, "--out", tmp_path / "out", "--set", "rounds=1", "--json", figures)
    os.close(unread)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert json.loads(figures.read_text()) == json.loads((tmp_path / "out/report.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_a_full_disk_is_one_sentence(made: Path) -> None:
    with open("/dev/full", "w") as full:
        ran = piped(full.fileno(), "inspect", made / "net.few")
    assert ran.returncode == 2
    assert ran.stderr == "error: what was to be shown cannot be written: No space left on device\n"
