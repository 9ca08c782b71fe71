"""The page about prices: its figures are those of the price, and its pictures hold every layer."""

from __future__ import annotations

import re

import pytest
from torch import nn

from fewbits.hardware import layers, machine_of, price
from fewbits.report import prices_page
from fewbits.report.priced import energies, roofline
from fewbits.report.words import si

NET = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(0, "s", "0 s"), (2.3e-3, "s", "2.3 ms"), (450_000, "B", "450 KB"), (0.9999, "J", "1 J"),
     (0.99994e-6, "J", "1 uJ"), (1e-12, "J", "0.001 nJ"), (3.2e12, "B", "3.2e+03 GB"), (999, "B", "999 B")],
)  # fmt: skip
def test_numbers_with_prefixes(value: float, unit: str, words: str) -> None:
    assert si(value, unit) == words


def test_the_page_says_what_the_price_says() -> None:
    machine, slow = machine_of("eyeriss"), machine_of("tpu-v1")
    now, before = (price(layers(NET, (1, 8, 8), input_density=d), machine) for d in (0.5, 1.0))
    other = price(layers(NET, (1, 8, 8)), slow)
    html = prices_page("net.few", [(machine, now, before), (slow, other, None)])
    assert si(now.seconds, "s") in html
    assert si(now.joules or 0, "J") in html
    assert si(before.joules or 0, "J") in html
    assert "does not fit" in html
    assert len(re.findall("<img", html)) == 3, "no energy of the second machine"
    assert all(f">{layer.name}<" in html for layer in now.layers)
    assert "leaves out what the machine has no figures of: multipliers" in html
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_pictures_hold_every_layer() -> None:
    machine = machine_of("systolic-32")
    now, before = price(layers(NET, (1, 8, 8)), machine), price(layers(NET, (1, 8, 8)), machine)
    (bars,) = energies(now, before).axes
    assert len(bars.patches) == 2 * len(now.layers) * len(now.energy_by_part)
    mine = bars.patches[: len(bars.patches) // 2]
    assert sum(patch.get_width() for patch in mine) == pytest.approx(1e6 * (now.joules or 0))
    (roof,) = roofline(machine, now, before).axes
    dense, compressed, peak, bandwidth = roof.get_lines()
    assert len(dense.get_xdata()) == len(compressed.get_xdata()) == len(now.layers)
    assert set(peak.get_ydata()) == {1024}
    x, y = bandwidth.get_data()
    assert y[0] / x[0] == pytest.approx(10)
    for x_at, y_at in zip(*compressed.get_data(), strict=True):  # dense layers lie under both lines
        assert y_at <= min(1024, 10 * x_at) * (1 + 1e-9)
