"""The page of many tasks: its pictures hold what it is told, and it says where there is too much to draw."""

from __future__ import annotations

import dataclasses
import re

import pytest

from fewbits.report import TaskTest, TaskView, tasks_page
from fewbits.report._task_pictures import graph, matrices

NAMES = ("cars", "birds", "<b>flowers</b>")
USERS = {(0, 0): ("cars", "birds"), (0, 2): (NAMES[2],), (1, 1): NAMES}
FULL = TaskView(
    "net.few", NAMES, 2, 3, USERS, ((2, 2, 1), (2, 2, 1), (1, 1, 2)), {"accuracy": ("91 %", "92 %", "93 %")},
    similarity=(((0, 0.5, 0.25), (0.5, 0, 0.75), (0.25, 0.75, 0)),) * 2,
    drops={(0, 0): {"cars": 12.0, "birds": -3.0}}, relevance={(1, 1): dict.fromkeys(NAMES, 1.0)},
    times=("after cars", "after birds", "after flowers"), scores=((90, 10, 10), (80, 90, 10), (70, 80, 90)),
    learnt=(0, 1, 2), forgetting=("Backward transfer is -15.00.",), transfer=((0, 1, -2), (3, 0, 4), (5, 6, 0)),
    tests=(TaskTest("similarity", 0.25, 0.4321, 6),),
)  # fmt: skip


def test_the_page_says_what_it_is_told() -> None:
    html = tasks_page(FULL)
    assert len(re.findall("<img", html)) == 7
    assert "1 segments are private, 2 are shared, and 3 are of no task" in html
    for words in ("91 %", "Backward transfer is -15.00.", "+0.25", "0.432", "&lt;b&gt;flowers&lt;/b&gt;"):
        assert words in html
    assert "<b>flowers" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "Frames" in html


def test_what_is_not_known_is_left_out() -> None:
    html = tasks_page(TaskView("net.few", NAMES, 2, 3, USERS, FULL.shared))
    assert len(re.findall("<img", html)) == 2
    assert "forgotten" not in html
    assert "at once" in tasks_page(dataclasses.replace(FULL, learnt=()))


def test_a_page_of_very_many_is_made_without_drawing_them() -> None:
    names = tuple(f"t{i}" for i in range(401))
    many = TaskView("net.few", names, 1, 500, {(0, 0): names}, ((1,) * 401,) * 401)
    html = tasks_page(many)
    assert html.count("too many for a picture") == 2
    assert "<img" not in html


def test_the_graph_has_a_dot_for_each_task_in_a_segment_and_a_line_for_each_step() -> None:
    (axes,) = graph(USERS, NAMES, 2, 3).axes
    dots = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert len(dots) == 6
    assert len(lines) == 3
    assert len(axes.patches) == 6


@pytest.mark.parametrize("signed", [False, True])
def test_matrices_hold_their_numbers(signed: bool) -> None:
    fig = matrices(
        [("one", [[1.0, None], [-2.4, 0.0]]), ("two", [[1.0, 2.0], [3.0, 4.0]])], ["a", "b"], ["c", "d"],
        form="{:+.0f}", scale="points", signed=signed, framed=[(0, 1)],
    )  # fmt: skip
    one, two, *_ = fig.axes
    assert [text.get_text() for text in one.texts] == ["+1", "-2", "0"]
    assert len(two.texts) == 4
    (image,) = one.get_images()
    low, high = image.get_clim()
    assert (low, high) == ((-4.0, 4.0) if signed else (-2.4, 4.0))
    assert len(one.patches) == 1
    wide = matrices([("w", [[1.0] * 30])], ["a"], [str(i) for i in range(30)], form="{:.0f}", scale="x")
    assert not wide.axes[0].texts, "no room"
