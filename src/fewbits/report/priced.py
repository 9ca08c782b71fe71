"""One self-contained HTML page about what a network costs on machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fewbits.hardware import LayerPrice, Machine, Price
from fewbits.hardware.in_memory import peak as peak_of
from fewbits.report._document import document, picture, section, table
from fewbits.report._markup import Markup, el
from fewbits.report._style import FAINT, PALETTE, drawing, figure, log_axis
from fewbits.report.words import shorten_all, si

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Priced = tuple[Machine, Price, Price | None]
"""A machine, the compressed network on it, and the dense one if that fits."""


def prices_page(name: str, found: Sequence[Priced]) -> str:
    """A page that needs no network, no script and no other file.

    Args:
        name: of the file. found: at least one.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"What {name} costs"
    parts = [el("header", el("h1", title)), section("Machines", _summary(found))]
    for machine, now, before in found:
        blocks: list[Markup] = [el("p", machine.about)]
        if now.energy_by_part:
            blocks.append(picture(
                energies(now, before), f"energy of each layer on {machine.name}, by part",
                "Each layer's energy by part: above the compressed network, below the dense one.",
            ))  # fmt: skip
        blocks.append(picture(
            roofline(machine, now, before), f"roofline of {machine.name} with every layer on it",
            "Multiplications a cycle over multiplications for each byte of the outer memory. Zeros that are skipped "
            "count as done, so that layers lie above the multipliers' line.",
        ))  # fmt: skip
        blocks.append(_layers(now))
        if any(one.steps is not None for one in now.operations):
            blocks.append(_operations(now))
        if now.unpriced:
            blocks.append(el("p", f"Energy leaves out what the machine has no figures of: {', '.join(now.unpriced)}."))
        blocks.append(_sources(machine))
        parts.append(section(machine.name, *blocks))
    return document(title, *parts)


def _summary(found: Sequence[Priced]) -> Markup:
    rows = []
    for machine, now, before in found:
        outer = machine.outer.name
        cells = [machine.name]
        for one in (now, before):
            if one is None:
                cells += ["does not fit", "-", "-"]
                continue
            energy = "-" if one.joules is None else si(one.joules, "J")
            cells += [si(one.seconds, "s"), energy, si(one.bytes_by_memory[outer], "B")]
        rows.append(cells)
    headers = ["machine", "latency", "energy", "moved", "dense: latency", "dense: energy", "dense: moved"]
    return table(headers, rows, caption="Of one sample; moved: bytes that pass the outermost memory.")


def _layers(now: Price) -> Markup:
    outer = next(iter(now.bytes_by_memory))
    rows = [
        [
            layer.name, layer.bound, f"{layer.macs:,}", f"{layer.products:,.0f}", f"{layer.cycles:,.0f}",
            f"{layer.stall_cycles:,.0f}", si(layer.bytes[outer], "B"),
            si(sum(layer.energy_pj.values()) * 1e-12, "J") if layer.energy_pj else "-",
            str(layer.weights_known), str(layer.inputs_known),
        ]
        for layer in now.layers
    ]  # fmt: skip
    headers = ["layer", "bound by", "multiplications", "without a zero", "cycles", "waiting", "moved", "energy"]
    words = ["zeros of weights", "zeros of inputs"]
    return table([*headers, *words], rows, caption="Layer by layer.", words=["bound by", *words])


def _operations(now: Price) -> Markup:
    rows = [
        [
            one.name, one.form, f"{one.values:,}", "-" if one.steps is None else f"{one.steps:.1f}",
            "not priced" if one.cycles is None else f"{one.cycles:,.0f}",
            "not priced" if one.energy_pj is None else si(one.energy_pj * 1e-12, "J"),
            "not priced" if one.area_um2 is None else f"{one.area_um2:,.0f} um2",
        ]
        for one in now.operations
    ]  # fmt: skip
    headers = ["operation", "computed by", "values", "steps each", "cycles", "energy", "area"]
    caption = "Non-linear operations, in no sum above. Not priced: nothing that is known says what it takes there."
    return table(headers, rows, caption=caption, words=["computed by"])


def _sources(machine: Machine) -> Markup:
    rows = [[key, text] for key, text in machine.sources.items()]
    return table(["source", "what it is"], rows, caption="Where the constants come from.", words=["what it is"])


def energies(now: Price, before: Price | None) -> Figure:
    """Bars of each layer's energy by part, of the compressed network and of the dense one."""
    parts = list(now.energy_by_part)
    names = shorten_all([layer.name for layer in now.layers], 28)
    with drawing():
        fig = figure(8.0, 1.6 + 0.34 * len(names))
        axes = fig.add_subplot()
        for price, offset, alpha in ((now, -0.2, 1.0), (before, 0.2, 0.45)):
            if price is None:
                continue
            left = [0.0] * len(price.layers)
            for number, part in enumerate(parts):
                widths = [layer.energy_pj.get(part, 0.0) * 1e-6 for layer in price.layers]
                axes.barh(
                    [row + offset for row in range(len(widths))], widths, 0.36, left, color=PALETTE[number],
                    alpha=alpha, label=part if price is now else None,
                )  # fmt: skip
                left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("microjoules for one sample (pale: the dense network)")
        fig.legend(loc="outside upper center", ncols=4, frameon=False)
    return fig


def roofline(machine: Machine, now: Price, before: Price | None) -> Figure:
    """Every layer under what multipliers and the outer memory allow (Williams et al. 2009)."""
    outer, peak = machine.outer, peak_of(machine)
    speed = machine.bytes_per_cycle(outer)

    def at(layers: Sequence[LayerPrice]) -> tuple[list[float], list[float]]:
        kept = [x for x in layers if x.bytes[outer.name] and x.cycles]
        return [x.macs / x.bytes[outer.name] for x in kept], [x.macs / x.cycles for x in kept]

    with drawing():
        fig = figure(8.0, 4.6)
        axes = fig.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        across, up = [1.0], [float(peak)]
        for price, style, label in ((before, "o", "dense"), (now, "s", "compressed")):
            if price is None:
                continue
            x, y = at(price.layers)
            colour = FAINT if price is before else PALETTE[0]
            fill = "none" if price is before else colour
            axes.plot(x, y, style, color=colour, markerfacecolor=fill, label=label, zorder=3)
            across, up = across + x, up + y
        low, high = min(across) / 1.5, max(across) * 1.5
        axes.axhline(peak, color=PALETTE[1], linewidth=1.2, label=f"{peak:,.4g} multiplications a cycle")
        if speed:
            axes.plot([low, high], [low * speed, high * speed], color=PALETTE[2], linewidth=1.2,
                      label=f"{outer.name}: {speed:.3g} bytes a cycle")  # fmt: skip
        bottom, top = min(up) / 1.5, max(up) * 1.5
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, top)
        log_axis(axes.xaxis, low, high)
        log_axis(axes.yaxis, bottom, top)
        axes.set_xlabel(f"multiplications for each byte of {outer.name}")
        axes.set_ylabel("multiplications a cycle")
        fig.legend(loc="outside upper center", ncols=4, frameon=False)
    return fig
