"""Pictures hold the figures they are made of."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import DataError, MissingExtraError
from fewbits.report import Explanation, Report, plots
from fewbits.report._pictures import displayed, scale
from fewbits.report._style import log_ticks, spread


def words(fig: object) -> str:
    import matplotlib.text

    return "\n".join(t.get_text() for t in fig.findobj(matplotlib.text.Text))  # type: ignore[attr-defined]


def test_accuracy_v_bytes_draws_means_and_seeds(rows: list[dict[str, object]]) -> None:
    fig = plots.accuracy_v_bytes(rows)
    (axes,) = fig.axes
    drawn = [line.get_xydata().tolist() for line in axes.lines]  # type: ignore[union-attr]
    assert [[2010, 84], [4010, 86]] in drawn  # ecqx: means over seeds 0, 1, 2
    assert [[2010, 83], [4010, 85]] in drawn  # ecq
    seeds = [[r["bytes"], r["accuracy"]] for r in rows if r["method"] == "ecq"]
    assert seeds in drawn
    assert axes.get_xscale() == "log"
    assert "ecqx" in words(fig)
    assert "float32 91.00 %" in words(fig)  # mean of the rows' own baselines
    assert "float32 95.50 %" in words(plots.accuracy_v_bytes(rows, baseline=95.5))
    assert "%" in axes.get_ylabel()
    assert "bytes" in axes.get_xlabel()


def test_quoted_points_are_dashed_and_leave_the_float_line_alone(rows: list[dict[str, object]]) -> None:
    quoted = [
        {"method": "published", "target": f"{size}", "seed": None, "accuracy": 70.0 + i, "baseline_accuracy": 50.0,
         "bytes": size, "source": "a paper"}
        for i, size in enumerate((900, 3000))
    ]  # fmt: skip
    fig = plots.accuracy_v_bytes([*rows, *quoted])
    assert "float32 91.00 %" in words(fig)
    (axes,) = fig.axes
    dashed = [x.get_xydata().tolist() for x in axes.lines if x.get_linestyle() == "--"]
    assert [[900, 70], [3000, 71]] in dashed
    assert len(dashed) == 2  # that, and the float network's


def test_rows_without_both_figures_are_left_out(rows: list[dict[str, object]]) -> None:
    partial = [
        *rows,
        {"method": "speed", "seconds": 3.0},
        {"method": "odd", "accuracy": float("nan"), "bytes": 10},
    ]
    assert "speed" not in words(plots.accuracy_v_bytes(partial))
    assert "odd" not in words(plots.accuracy_v_bytes(partial))
    with pytest.raises(DataError, match="nothing to draw"):
        plots.accuracy_v_bytes(partial[-2:])


def test_layers_has_a_bar_for_every_byte(report: Report) -> None:
    left, right = plots.layers(report).axes
    widths = [bar.get_width() for bar in left.patches]  # type: ignore[attr-defined]
    assert widths == [31, 77, 142]
    assert sum(widths) == report.file_bytes
    zeros = right.lines[-1].get_xdata()
    np.testing.assert_allclose(zeros, [100 * row.zeros for row in report.tensors])
    assert [t.get_text() for t in left.get_yticklabels()] == [
        "0.weight",
        "3.weight",
        "floats, header, checks",
    ]


def test_history_is_the_controllers_path(report: Report) -> None:
    top, middle, bottom = plots.history(report).axes
    assert top.lines[0].get_xydata().tolist() == [[60, 400], [120, 250]]  # type: ignore[union-attr]
    assert middle.lines[0].get_xydata().tolist() == [[60, 91.0]]  # type: ignore[union-attr]
    assert bottom.lines[0].get_ydata() == pytest.approx([1e-3, 2e-2])
    assert [axes.get_ylabel() for axes in (top, middle, bottom)] == [
        "file (bytes, log)",
        "accuracy (%)",
        "lambda (no unit)",
    ]
    with pytest.raises(DataError, match="no history"):
        plots.history(report.updated(history=()))


def test_scatter_shows_every_weight_that_logarithms_allow(explanation: Explanation) -> None:
    layer = explanation.layers[1]
    fig = plots.relevance_v_magnitude(explanation, layer.name)
    pairs = list(zip(layer.sampled.weight, layer.sampled.relevance, layer.sampled.kept, strict=True))
    (axes,) = fig.axes
    for line, kept in zip(axes.lines, (False, True), strict=True):
        expected = [(abs(w), abs(r)) for w, r, k in pairs if k == kept and w and r]
        drawn = np.asarray(line.get_xydata())
        np.testing.assert_allclose(drawn[:, 0], [w for w, _ in expected])
        above = [(y, r) for y, (_, r) in zip(drawn[:, 1], expected, strict=True) if y > drawn[:, 1].min()]
        assert above
        assert all(y == r for y, r in above)
    missing = sum(1 for w, r, _ in pairs if not (w and r))
    assert missing
    assert f"{missing} of the {len(pairs)} weights" in words(fig)
    assert f"rank correlation {layer.spearman:+.2f}" in words(fig)
    with pytest.raises(KeyError):
        plots.relevance_v_magnitude(explanation, "absent")


def test_kept_puts_each_share_on_its_row(explanation: Explanation) -> None:
    (axes,) = plots.kept(explanation).axes
    drawn = {tuple(map(tuple, np.asarray(line.get_xydata()).round(9))) for line in axes.lines}
    for field in ("weights_kept", "relevance_kept", "relevance_kept_by_magnitude", "relevance_kept_at_best"):
        assert tuple((round(100 * getattr(x, field), 9), row) for row, x in enumerate(explanation.layers)) in drawn


def test_layers_without_relevance_do_not_stop_the_picture(explanation: Explanation) -> None:
    none = dict.fromkeys(("relevance_kept", "relevance_kept_by_magnitude", "relevance_kept_at_best"))
    silent = dataclasses.replace(explanation.layers[0], **none)
    (axes,) = plots.kept(dataclasses.replace(explanation, layers=(silent,))).axes
    assert len(axes.lines) == 1  # the share of weights alone


def test_both_maps_of_an_image_have_one_symmetric_scale(explanation: Explanation) -> None:
    fig = plots.heatmaps(explanation)
    pictures = [axes.images[0] for axes in fig.findobj(mpl.axes.Axes) if axes.images]
    assert len(pictures) == 3 * len(explanation.maps)
    for number, heat in enumerate(explanation.maps):
        image, before, after = pictures[3 * number : 3 * number + 3]
        largest = float(max(heat.before.abs().max(), heat.after.abs().max()))
        assert before.get_clim() == after.get_clim() == (-largest, largest)
        np.testing.assert_array_equal(before.get_array(), heat.before)
        np.testing.assert_array_equal(after.get_array(), heat.after)
        np.testing.assert_array_equal(image.get_array(), displayed(heat.image))
        assert f"before: {heat.opinion_before.predicted}, {100 * heat.opinion_before.confidence:.0f} %" in words(fig)
        assert f"class {heat.target}, maps correlate {heat.correlation:+.2f}" in words(fig)
    with pytest.raises(DataError, match="no heat maps"):
        plots.heatmaps(dataclasses.replace(explanation, maps=()))


def test_maps_of_zeros_still_have_a_scale(explanation: Explanation) -> None:
    heat = explanation.maps[0]
    blank = dataclasses.replace(heat, before=heat.before * 0, after=heat.after * 0)
    assert scale(blank) == 1


def test_images_are_stretched_to_the_screen(explanation: Explanation) -> None:
    image = explanation.maps[0].image
    assert displayed(image).shape == (6, 6)
    assert displayed(image.expand(3, 6, 6)).shape == (6, 6, 3)
    for shown in (displayed(image), displayed(image * 7 - 3)):
        assert (shown.min(), shown.max()) == (0, 1)
    assert displayed(image * 0).max() == 0


def test_long_names_of_methods_stay_apart() -> None:
    """What tells them apart may be in the middle, where a name is cut."""
    name = "ecq, steps by the rate, {} epochs, gradual lambda, six significant bits"
    rows = [{"method": name.format(n), "accuracy": 90.0 + n / 10, "bytes": 1000 * n} for n in (2, 10, 20)]
    shown = [text.get_text() for text in plots.accuracy_v_bytes(rows).axes[0].texts]
    assert len(set(shown)) == len(rows)
    assert max(map(len, shown)) < 40


def test_a_figure_becomes_a_png(report: Report) -> None:
    png = plots.figure_png(plots.layers(report))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png == plots.figure_png(plots.layers(report))
    assert len(png) > 5000


def test_names_are_not_read_as_formulas(report: Report) -> None:
    row = dataclasses.replace(report.tensors[0], name=r"$\frac{a}$ _x_ $")
    plots.figure_png(plots.layers(report.updated(tensors=(row,))))  # mathtext would raise here


def test_the_callers_settings_stay(report: Report) -> None:
    mpl.rcParams["font.size"] = 17.5
    try:
        before = dict(mpl.rcParams)
        plots.figure_png(plots.layers(report))
        assert dict(mpl.rcParams) == before
    finally:
        mpl.rcParams["font.size"] = mpl.rcParamsDefault["font.size"]


@pytest.mark.long
def test_pyplot_is_never_loaded() -> None:
    code = (
        "import sys; from fewbits.report import plots; "
        "plots.figure_png(plots.accuracy_v_bytes([{'accuracy': 90, 'bytes': 1000}])); "
        "assert 'matplotlib' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_there_is_a_sentence(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"needs matplotlib: pip install 'fewbits\[report\]'"):
        plots.layers(report)


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.1, 10))
def test_labels_are_moved_apart_in_order(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [moved[i] for i in order]
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(placed))
    assert sum(moved) == pytest.approx(sum(positions), abs=1e-6 * max(1, len(positions)) * 100)


@given(st.floats(1e-12, 1e12), st.floats(1.02, 1e15))
def test_ticks_of_a_logarithmic_axis(low: float, span: float) -> None:
    ticks = log_ticks(low, low * span)
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-9) <= tick <= low * span * (1 + 1e-9) for tick in ticks)
