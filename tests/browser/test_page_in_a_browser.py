"""The page in a real browser: it loads, complains about nothing, shows its pictures, and fits a phone."""

from __future__ import annotations

import dataclasses
import html
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from fewbits.plan import Clustered, Dense, Plan
from fewbits.report import Report, Round, TaskView, explain, page, tasks_page, write_page
from fewbits.report.sizes import float_bytes, general_purpose, tensor_rows

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason=f"none of these browsers is installed: {', '.join(BROWSERS)}"),
]

# Holds the page in a frame as wide as a phone, and writes what it measured there into its own body.
PROBE = """<!DOCTYPE html><body>
<iframe id="frame" style="width:{width}px;height:800px;border:0" srcdoc="{page}"></iframe>
<script>document.getElementById("frame").onload = function () {{
  const inner = this.contentDocument, root = inner.documentElement, images = [...inner.images];
  document.body.textContent = "scroll=" + root.scrollWidth + " images=" + images.length +
    " smallest=" + Math.min(...images.map(i => i.naturalWidth)) +
    " shown=" + Math.min(...images.map(i => i.getBoundingClientRect().width));
}};</script></body>"""


@pytest.fixture(scope="module")
def document() -> str:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    entries: dict[str, Clustered | Dense] = {name: Dense(t) for name, t in net.state_dict().items()}
    for name in ("0.weight", "3.weight"):
        levels = (net.get_parameter(name).detach() * 20).round().clamp(-7, 7).to(torch.int16)
        entries[name] = Clustered(levels, 4, step=0.05)
    plan = Plan(entries)
    long = "a_tensor_name_without_any_place_to_break_it." * 3
    rows = tensor_rows(plan, {"0.weight": 31, "3.weight": 77})
    report = Report(
        model="<b>tiny</b>", data="noise", method="ecqx",
        tensors=(*rows, *(dataclasses.replace(row, name=long) for row in rows)),
        file_bytes=400, float_bytes=float_bytes(dict(net.state_dict())), floats_bytes=184,
        others=general_purpose(dict(net.state_dict()), plan), accuracy_before=91.0, accuracy_after=90.0,
        identical=True, target=500, met=True,
        history=(Round(1, 0.1, 900, 0.1, 91.0), Round(2, 0.2, 400, 0.2, 90.0)),
        recipe={"a_long_recipe_value": "x" * 300}, versions={"fewbits": "0.1.0"},
    )  # fmt: skip
    images, targets = torch.rand(9, 1, 6, 6), torch.arange(9) % 3
    found = explain(net, net, plan, [(images, targets)], images, targets)
    result = {"model": "tiny", "data": "noise", "method": "ecqx", "seed": 0, "accuracy": 90.0, "bytes": 400}
    return page(report, found, [result])


def browse(tmp_path: Path, file: Path, *options: str) -> tuple[str, list[str]]:
    """What the browser prints, and the messages on its console."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--enable-logging=stderr", "--virtual-time-budget=5000",
            f"--user-data-dir={tmp_path / 'profile'}", *options, file.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
def test_it_loads_without_a_complaint_and_shows_its_pictures(tmp_path: Path, document: str) -> None:
    write_page(tmp_path / "page.html", document)
    shot = tmp_path / "page.png"
    _, console = browse(tmp_path, tmp_path / "page.html", f"--screenshot={shot}", "--window-size=1200,2400")
    assert console == []
    image = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    assert image.size == (1200, 2400)
    colours = {colour: count for count, colour in image.getcolors(1 << 24) or []}
    assert colours.get((0xD5, 0x5E, 0x00), 0) > 200  # the line of accuracies: a colour that no style sheet has
    assert len(colours) > 500


def many_tasks() -> str:
    names = (*(f"task{i}" for i in range(9)), "a-task-with-a-name-that-is-much-too-long-for-any-picture-of-it")
    users = {(layer, module): names[module::4] for layer in range(4) for module in range(4)}
    matrix = tuple(tuple(range(10)) for _ in names)
    return tasks_page(TaskView(
        "net.few", names, 4, 6, users, matrix, similarity=(matrix,) * 4,
        drops={place: dict.fromkeys(own, 3.0) for place, own in users.items()}, times=names, scores=matrix,
        learnt=tuple(range(10)), transfer=matrix,
    ))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pictures", "width"), [("compression", 8, 360), ("compression", 8, 1000), ("tasks", 6, 360)]
)
def test_it_never_scrolls_sideways(tmp_path: Path, document: str, kind: str, pictures: int, width: int) -> None:
    document = document if kind == "compression" else many_tasks()
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(document)), encoding="utf-8")
    dom, console = browse(tmp_path, probe, "--dump-dom", "--window-size=1400,900")
    assert console == []
    measured = dict(re.findall(r"(\w+)=([\d.]+)", dom))
    assert int(measured["scroll"]) == width
    assert int(measured["images"]) == document.count("<img ") == pictures
    assert int(measured["smallest"]) > 500
    assert float(measured["shown"]) > 250


@pytest.mark.slow
def test_the_console_is_really_watched(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<script>throw new Error('seen')</script>", encoding="utf-8")
    _, console = browse(tmp_path, bad, "--dump-dom")
    assert any("seen" in line for line in console)
