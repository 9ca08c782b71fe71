"""What a page shows of learning rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewbits.errors import DataError
from fewbits.report import load_results, results_page
from fewbits.report._learning import angles, data, epochs, learning, noise, sparsity
from fewbits.report.results import Results

DAMAGE = {"pruned_0": 50, "pruned_50": 48, "pruned_80": 40, "pruned_90": 30, "pruned_95": 20}
NOISE = {"gaussian": 45, "salt_and_pepper": 44, "blurred": 46}


def row(rule: str, seed: int, **more: Any) -> dict[str, Any]:
    plain = {"model": "net", "data": "images", "method": rule, "rule": rule, "seed": seed, "noise": "none"}
    return plain | {"images": 100, "epochs": 5, "accuracy": 50.0 + seed} | DAMAGE | NOISE | more


ROWS = [
    *(row(rule, seed, images=images) for rule in ("backprop", "hebbian") for seed in (0, 1) for images in (100, 1000)),
    row("untrained", 0, epochs=None, accuracy=30.0),
    row("backprop", 0, epochs=20, curve=[[1, 20.0], [20, 52.0]]),
    row("backprop", 1, epochs=20, curve=[[1, 30.0], [20, 50.0]]),
    row("backprop", 0, noise="gaussian", gaussian=49),
]
LOOKS = {"backprop": 0, "hebbian": 1, "untrained": 2}


def drawn(figure: Any) -> dict[str, dict[str, list[float]]]:
    """Of each panel by its title, lines by colour: heights of their points."""
    return {
        axes.get_title(loc="left"): {line.get_color(): list(line.get_ydata()) for line in axes.get_lines()}
        for axes in figure.axes
    }


def test_the_way_is_the_mean_over_seeds_with_their_range() -> None:
    figure = epochs(ROWS, LOOKS)
    assert drawn(figure) == {"100 images": {"#0072B2": [25.0, 51.0]}}
    (band,) = figure.axes[0].collections
    heights = {float(y) for _, y in band.get_paths()[0].vertices}
    assert heights == {20.0, 30.0, 50.0, 52.0}


def test_over_data_a_panel_for_each_budget_and_what_is_untrained_in_each() -> None:
    (panel,) = drawn(data(ROWS, LOOKS)).items()
    assert panel == ("5 epochs", {"#0072B2": [50.5, 50.5], "#D55E00": [50.5, 50.5], "#009E73": [30.0]})


def test_sparsity_and_noise_are_of_the_trainings_that_most_rules_have() -> None:
    shown = drawn(sparsity(ROWS, LOOKS))
    assert list(shown) == ["100 images, 5 epochs", "1,000 images, 5 epochs"]
    assert shown["1,000 images, 5 epochs"]["#0072B2"] == [50, 48, 40, 30, 20]
    spoiled = drawn(noise(ROWS, LOOKS))
    assert spoiled["100 images, 5 epochs, with gaussian noise"] == {"#0072B2": [50, 49, 44, 46]}
    assert spoiled["100 images, 5 epochs"]["#0072B2"] == [50, 45, 44, 46]


def test_angles_have_a_panel_for_each_layer() -> None:
    found = [row("fa", 0, angles={"first": [[0, 91.0], [1, 70.0]], "last": [[0, 0.5]]})]
    shown = drawn(angles(found, {"fa": 0}))
    assert shown["first"]["#0072B2"] == [91.0, 70.0]
    assert set(shown) == {"first", "last"}


def test_rows_without_rules_or_figures_have_no_pictures() -> None:
    assert learning([{"model": "net", "data": "images", "accuracy": 1.0}], "net") == []
    assert learning([{"rule": "backprop", "accuracy": 1.0}], "net") == []


@pytest.mark.parametrize("damaged", [{"curve": [[1]]}, {"curve": "x"}, {"angles": {"a": [[1, None]]}}])
def test_a_damaged_way_is_named(tmp_path: Path, damaged: dict[str, Any]) -> None:
    (tmp_path / "r.json").write_text(
        json.dumps({"benchmark": "b", "rows": [row("backprop", 0), row("a", 0) | damaged]})
    )
    with pytest.raises(DataError, match=rf"row 1: {next(iter(damaged))} must be pairs"):
        load_results(tmp_path / "r.json")


def test_a_page_holds_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"benchmark": "b", "rows": ROWS}))
    found = load_results(tmp_path / "r.json")
    assert isinstance(found, Results)
    page = results_page(found)
    for words in ("Accuracy over epochs", "over training images", "over sparsity", "on spoiled images"):
        assert f"{words} for learning rules on net on images" in page
    assert page.count("data:image/png") == 4
