"""Prices on machines, against published figures and sums by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made import convolution, product

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.hardware import Known, Layer, Machine, machine_names, machine_of, price

PUBLISHED = json.loads((Path(__file__).parent / "published" / "eyeriss_v2.json").read_text())

# Sparseloop's artifact, fig15_stc_related_setup/ref_outputs: M, K, N; cycles and microjoules, dense and 2:4.
STC = [
    (128, 1152, 1024, 147_456, 248.15, 173.42),
    (512, 1024, 256, 131_072, 225.79, 132.61),
    (512, 128, 1024, 65_536, 110.63, 79.80),
    (512, 256, 1024, 131_072, 187.70, 126.03),
]


def two_of_four(layer: Layer, density: float) -> Layer:
    mask = (torch.arange(layer.inputs) % 4 < 2).repeat(layer.outputs, 1)
    mask &= torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 2 * density
    nonzero = int(mask.sum())
    return replace(layer, mask=mask, nonzero=nonzero, products=float(nonzero * layer.positions))


@pytest.mark.parametrize(("outputs", "inputs", "positions", "cycles", "dense", "sparse"), STC)
def test_stc_cycles_and_energy(
    outputs: int, inputs: int, positions: int, cycles: int, dense: float, sparse: float
) -> None:
    layer = product(outputs, inputs, positions)
    found = price([layer], machine_of("stc"))
    assert found.cycles == cycles
    assert found.joules == pytest.approx(dense * 1e-6, rel=0.2)  # ours is below: its cut moves the least
    for density in (0.5, 1 / 3, 0.25):
        found = price([two_of_four(layer, density)], machine_of("stc"))
        assert found.cycles == cycles // 2
        assert found.joules == pytest.approx(sparse * 1e-6, rel=0.2)


# Sparseloop's artifact, table7_eyeriss_setup/dense_outputs: AlexNet's convolutions, four images, in microjoules.
TABLE_7 = [
    (convolution(96, 3, 11, 231, 56, stride=4), 2137.49),
    (convolution(256, 48, 5, 32, 28), 4402.46),
    (convolution(384, 256, 3, 15, 13), 2927.08),
    (convolution(384, 192, 3, 15, 13), 2259.79),
    (convolution(256, 192, 3, 15, 13), 1506.53),
]


@pytest.mark.parametrize(("layer", "energy"), TABLE_7)
def test_eyeriss_energy(layer: Layer, energy: float) -> None:
    found = price([layer], machine_of("eyeriss"), batch=4).joules
    assert found is not None
    assert 0.88 * energy < 4e6 * found < energy  # the least that it takes


def test_eie_frames_a_second() -> None:
    """Han et al. 2016: 18,800 frames a second on AlexNet's fully connected layers, at the shares of its table III."""
    shares = [(4096, 9216, 0.09, 0.351), (4096, 4096, 0.09, 0.353), (1000, 4096, 0.25, 0.375)]
    layers = [
        replace(layer, nonzero=weights * layer.macs, input_density=inputs, products=weights * inputs * layer.macs,
                weights_known=Known.DENSITY, inputs_known=Known.DENSITY)
        for outputs, columns, weights, inputs in shares
        for layer in (product(outputs, columns, 1),)
    ]  # fmt: skip
    found = price(layers, machine_of("eie"))
    assert 1 / found.seconds == pytest.approx(18_800, rel=0.05)
    assert found.joules is None
    assert found.unpriced == ("multipliers", "sram")
    # Zeros that end long runs are stored, and take a cycle like weights.
    assert found.layers[0].compute_cycles > 1.25 * found.layers[0].products / 64


def test_eyeriss_v2_inferences_a_second() -> None:
    """Its measured elements' cycles are the products; 1470.6 inferences a second on the chip (Chen et al. 2019)."""
    layers = [replace(product(512, 512, 16), products=float(cycles)) for cycles in PUBLISHED["cycles"].values()]
    speed = 1 / price(layers, machine_of("eyeriss-v2")).seconds
    assert 1470.6 < speed < 1.1 * 1470.6


def test_tpu_peak_and_ridge() -> None:
    """Jouppi et al. 2017: 92 tera-operations a second; below some 1,350 positions weights come too slowly."""
    machine = machine_of("tpu-v1")
    large, small = (product(2048, 2048, positions) for positions in (6000, 400))
    found = price([large], machine)
    assert 2 * large.macs / found.seconds == pytest.approx(92e12, rel=0.12)
    assert found.layers[0].bound == "multipliers"
    found = price([small], machine)
    assert found.layers[0].bound == "dram"
    assert found.seconds == pytest.approx(2048**2 / 34e9, rel=1e-3)
    assert machine.array.multipliers / machine.bytes_per_cycle(machine.outer) == pytest.approx(1350, rel=1e-3)


def made(**changes: Any) -> Machine:
    """A machine of round numbers, changed."""

    def one(value: float) -> dict[str, Any]:
        return {"value": value, "source": "us"}

    slow = {"bandwidth_bytes_per_cycle": one(2)}
    values = {
        "name": "round", "about": "round numbers", "clock_mhz": one(1),
        "array": {"dataflow": "lanes", "lanes": one(4), "mac_pj": one(2), "operands_pj_per_mac": one(1)},
        "numbers": {"weight_bits": one(8), "input_bits": one(8), "partial_bits": one(32), "index_bits": one(4)},
        "memories": [
            {"name": "far", "read_pj_per_bit": one(10), "write_pj_per_bit": one(20), **slow},
            {"name": "near", "size_kib": one(1024), "read_pj_per_bit": one(1), "write_pj_per_bit": one(3)},
        ],
        "sources": {"us": "made up"},
    }  # fmt: skip
    for path, value in changes.items():
        place: Any = values
        *parents, last = path.split("__")
        for part in parents:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value
    return machine_of(values)


def test_a_layer_by_hand() -> None:
    layer = product(4, 8, 2)  # 32 weights, 16 inputs, 8 outputs, 64 multiplications
    found = price([layer], made())
    (row,) = found.layers
    assert (row.compute_cycles, row.cycles, row.bound, row.stall_cycles) == (16, 28, "far", 12)  # 56 bytes, 2 a cycle
    assert row.bytes == {"far": 56, "near": 2 * 56}
    far = (32 + 16) * 8 * 10 + 8 * 8 * 20
    near = (32 + 16) * 8 * (3 + 1) + 8 * 8 * (3 + 1)
    assert row.energy_pj == {"multipliers": 64 * 3, "far": far, "near": near}
    assert found.joules == pytest.approx((64 * 3 + far + near) * 1e-12)
    assert found.seconds == pytest.approx(28e-6)
    assert found.unpriced == ()


@pytest.mark.parametrize(
    ("weights", "inputs", "computed", "gated"),
    [
        ("compute", "compute", 64, 0),
        ("gate", "compute", 16, 48),
        ("compute", "gate", 32, 32),
        ("gate", "gate", 8, 56),
        ("skip", "compute", 16, 0),
        ("skip", "gate", 8, 8),
        ("gate", "skip", 8, 24),
        ("skip", "skip", 8, 0),
    ],
)
def test_zeros_are_computed_gated_or_skipped(weights: str, inputs: str, computed: int, gated: int) -> None:
    """A quarter of the weights and half of the inputs are not zero, independently: 8, 8, 24 and 24 of 64."""
    layer = replace(product(4, 8, 2), nonzero=8, input_density=0.5, products=8.0)
    machine = made(array__zero_weights=weights, array__zero_inputs=inputs,
                   array__gated_mac_pj={"value": 0.5, "source": "us"})  # fmt: skip
    (row,) = price([layer], machine).layers
    assert row.energy_pj["multipliers"] == computed * 3 + gated * 0.5
    assert row.compute_cycles == (computed + gated) / 4


def test_formats_make_traffic_smaller_and_a_decoder_has_its_price() -> None:
    layer = replace(product(4, 8, 2), nonzero=8, entropy_bits=1.0, products=16.0)
    plain, coded = price([layer], made()), price([layer], made(formats={"far": "entropy-coded"}))
    assert (plain.layers[0].weight_bytes, coded.layers[0].weight_bytes) == (32, 4)
    assert plain.bytes_by_memory["far"] - coded.bytes_by_memory["far"] == 28
    assert plain.bytes_by_memory["near"] == coded.bytes_by_memory["near"], "decoded at the edge of the outer memory"
    decoder = {"pj_per_weight": {"value": 5, "source": "us"}, "weights_per_cycle": {"value": 0.5, "source": "us"}}
    slow = price([layer], made(formats={"far": "entropy-coded"}, decoder=decoder))
    assert slow.energy_by_part["decoder"] == 32 * 5
    assert (slow.layers[0].bound, slow.cycles) == ("decoder", 64)
    unknown = price([layer], made(decoder={"weights_per_cycle": {"value": 8, "source": "us"}}))
    assert unknown.unpriced == ("decoder",)


@pytest.mark.parametrize(
    ("bits", "serial", "width"), [(1, 1, 2), (2, 2, 2), (3, 3, 4), (4, 4, 4), (5, 5, 8), (8, 8, 8), (32, 8, 8)]
)
def test_fewer_bits_take_fewer_cycles_where_multipliers_are_serial_or_split(bits: int, serial: int, width: int) -> None:
    """64 multiplications on four lanes of 8 bits: bit by bit, in pairs of bits, or split into lanes of 4 or 2 bits."""
    layer = replace(product(4, 8, 2), bits=bits)
    one = price([layer], made()).layers[0]
    by_bit, by_pair, split = (
        price([layer], made(**{f"array__{key}": {"value": value, "source": "us"}})).layers[0]
        for key, value in (("serial_weight_bits", 1), ("serial_weight_bits", 2), ("splits_to_bits", 2))
    )
    assert one.compute_cycles == 16
    assert by_bit.compute_cycles == 16 * serial
    assert by_pair.compute_cycles == 16 * ((serial + 1) // 2)
    assert split.compute_cycles == 16 * width / 8
    assert one.energy_pj["multipliers"] == 64 * (2 + 1)
    assert by_bit.energy_pj["multipliers"] == 64 * (2 * serial / 8 + 1)
    assert split.energy_pj["multipliers"] == 64 * (2 * width / 8 + 1)


def test_a_batch_shares_weights() -> None:
    layer = product(4, 8, 2)
    one, four = price([layer], made()), price([layer], made(), batch=4)
    assert four.bytes_by_memory["far"] == 32 / 4 + 16 + 8
    assert four.energy_by_part["multipliers"] == one.energy_by_part["multipliers"]
    assert four.macs == one.macs == 64
    with pytest.raises(RecipeError, match="at least one sample, got 0"):
        price([layer], made(), batch=0)


def test_calls_add_up() -> None:
    layer = product(4, 8, 2)
    once, thrice = price([layer], made()), price([replace(layer, calls=3)], made())
    assert thrice.cycles == 3 * once.cycles
    assert thrice.joules == pytest.approx(3 * once.joules)  # type: ignore[operator]
    assert thrice.bytes_by_memory == {name: 3 * number for name, number in once.bytes_by_memory.items()}


@pytest.mark.parametrize("name", machine_names())
@pytest.mark.parametrize("layer", [convolution(8, 4, 3, 10, 8), convolution(6, 6, 3, 9, 4, stride=2, groups=6),
                                   product(10, 64, 1), product(3, 5, 7)])  # fmt: skip
def test_every_machine_prices_every_kind_of_layer(name: str, layer: Layer) -> None:
    if layer.kernel and not machine_of(name).convolutions:
        with pytest.raises(UnsupportedError, match=r"conv\.weight is a convolution, and eie runs matrix products only"):
            price([layer], machine_of(name))
        return
    found = price([layer], machine_of(name))
    assert found.seconds > 0
    assert found.layers[0].cycles >= found.layers[0].compute_cycles > 0
    assert 0 < found.layers[0].utilization <= 1
    assert json.loads(json.dumps(found.as_dict()))["machine"] == name


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(UnsupportedError, match=r"there is nothing to price"):
        price([], made())
    tiny = made(memories__1__size_kib={"value": 0.01, "source": "us"})
    with pytest.raises(
        UnsupportedError, match=r"^conv\.weight: the smallest part of it takes .* near of round holds"
    ) as e:
        price([convolution(8, 4, 3, 40, 38)], tiny)
    assert "\n" not in str(e.value)
    with pytest.raises(UnsupportedError, match=r"sram of eie holds 8,192\.0 KiB; the largest is 'fc\.weight'"):
        price([product(9000, 9000, 1)], machine_of("eie"))
    with pytest.raises(UnsupportedError, match=r"its inputs and outputs take .* unified-buffer of tpu-v1 holds"):
        price([product(2048, 2048, 10_000)], machine_of("tpu-v1"))
