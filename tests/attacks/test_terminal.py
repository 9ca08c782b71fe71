"""Names and words of a stranger's file neither control a terminal nor reorder what it shows, nor are they HTML."""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch
from rich.console import Console

from fewbits import cli
from fewbits.codec import encode
from fewbits.errors import visible
from fewbits.plan import Clustered, Dense, Plan
from fewbits.report import Report, RestRow, TensorRow, page, render

EVIL = {
    "colours": "\x1b[31mred\x1b[0m",
    "clears the screen": "\x1b[2J\x1b[H",
    "sets the title": "\x1b]0;title\x07",
    "one byte for an escape and a bracket": "\x9b31m",
    "goes back": "weight\r\b\b\b",
    "a new line": "weight\nsha256 0000",
    "other ends of lines": "a\x0bb\x0cc\x85d\u2028e\u2029f",
    "reorders": "a\u202eb\u2066c\u200fd",
    "has no width": "a\u200bb\ufeffc\u00add",
    "deletes": "a\x7fb",
    "means nothing": "a\ue000b\U000e0041c",
}
MARKUP = "[red]x[/red][link=http://a.example]y[/link] :smile: <b>&amp;<script>alert(1)</script>"


def fewbits(*args: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["fewbits", *map(str, args)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def safe(shown: str) -> bool:
    return shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", EVIL)
def test_escapes_name_each_character(kind: str) -> None:
    shown = visible(EVIL[kind])
    assert shown.isprintable()
    assert shown.encode().decode("unicode_escape") == EVIL[kind]
    assert visible("läyer.weight 重み") == "läyer.weight 重み"


def test_inspect_shows_escapes(tmp_path: Path) -> None:
    names = [*EVIL.values(), MARKUP]
    levels = torch.tensor([0, 1], dtype=torch.int16)
    plan = {f"{i}{name}": Clustered(levels, 4, step=0.5) for i, name in enumerate(names)}
    aliases = {"other\x1b[31m": "tied"}
    data = encode(
        Plan(plan | {"tied": Dense(torch.ones(2))}, None, aliases), header={"model": "\x1b[2J", "\x9b": "\u202e"}
    )
    (tmp_path / "evil.few").write_bytes(data)
    code, out, err = fewbits("inspect", tmp_path / "evil.few", "--json", tmp_path / "found.json")
    assert code == 0, err
    assert safe(out)
    assert safe(err)
    for name in names:
        assert visible(name) in out
    assert "tied = other\\x1b[31m" in out
    lines = out.splitlines()
    assert len([line for line in lines if line.startswith("sha256")]) == 1
    rows = [line for line in lines if " clustered " in line]
    assert len(rows) == len(names)
    assert len({row.index(" clustered ") for row in rows}) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [tensor["name"] for tensor in found["tensors"]] == [*plan, "tied"]
    assert (tmp_path / "found.json").read_text().isascii()


def test_every_command_that_fails_on_a_name_shows_escapes(tmp_path: Path) -> None:
    name = "\x1b[2J\u202e\n[red]"
    data = encode(Plan({name: Dense(torch.ones(2))}, None), header={"model": name})
    (tmp_path / "evil.few").write_bytes(data)
    for words in (
        ("verify", tmp_path / "evil.few", "--recipe", "ecq-4bit"),
        ("export", tmp_path / "evil.few", "--to", "onnx"),
        ("export", tmp_path / "evil.few", "--to", "nnc", "--out", tmp_path / "x.nnc"),
        ("inspect", tmp_path / name),
    ):
        _, out, err = fewbits(*words)
        assert safe(out), words
        assert safe(err), words


def test_thousands_of_tensors_are_shown_in_a_moment(tmp_path: Path) -> None:
    tensor = Dense(torch.ones(2))
    (tmp_path / "many.few").write_bytes(encode(Plan({f"t{i}": tensor for i in range(4000)})))
    started = time.process_time()
    assert fewbits("inspect", tmp_path / "many.few")[1].count("constant") == 4000
    assert time.process_time() - started < 3


def test_reports_of_strangers() -> None:
    evil = MARKUP + "".join(EVIL.values())
    row = TensorRow(evil, (2,), 2, 4, 0.5, 3, 1.0)
    rest = RestRow(evil, (2,), 2, 8, evil)
    report = Report(
        *(evil, evil, evil, (row,), 100, 1000, 90, {evil: 200}),
        *(90.0, 89.0, evil),
        recipe={evil: evil},
        versions={evil: evil},
        rest=(rest,),
    )
    shown = io.StringIO()
    render(report, Console(file=shown, width=100, markup=False, highlight=False))
    assert safe(shown.getvalue())
    html = page(report)
    assert all(c.isprintable() or c in "\n\t" for c in html)
    assert "<script>alert" not in html
