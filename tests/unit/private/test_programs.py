"""Programs on plain numbers: the same arithmetic in slots, against torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from private_networks import Cubic, Residual, Square, mlp
from torch import nn

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.ops import fit
from fewbits.ops.swap import swap
from fewbits.private import SENTINEL, Profile, Program, compile_network
from fewbits.private.counts import total
from fewbits.private.form import Form
from fewbits.private.price import estimated, price_of
from fewbits.private.read import INPUT, read


def outputs(model: nn.Module, samples: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.double().eval()(samples.double()).numpy()


def check(model: nn.Module, samples: torch.Tensor, **options: object) -> Program:
    program = compile_network(model, samples, **options)  # type: ignore[arg-type]
    wanted = outputs(model, samples)
    np.testing.assert_allclose(program.plain(samples), wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    return program


def test_every_slot_of_an_answer_is_an_output_or_zero_or_the_sentinel() -> None:
    torch.manual_seed(0)
    program = check(mlp(20, 16, 12, 5), torch.randn(8, 20))
    slots = program.slots(torch.randn(4, 20))
    for row in slots:
        known = np.append(row[list(program.profile.output_slots)], [0.0, SENTINEL])
        assert np.abs(row[:, None] - known[None, :]).min(1).max() < 1e-9  # no partial sum, which tells of the weights
    assert (slots[:, program.profile.sentinel_slot] == SENTINEL).all()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 24), min_size=2, max_size=4),
    zeros=st.floats(0, 0.95),
    profile=st.sampled_from(["precise", "fast"]),
    seed=st.integers(0, 99),
)
def test_products_of_any_shape(sizes: list[int], zeros: float, profile: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = mlp(*sizes)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= torch.rand(layer.weight.shape) >= zeros
            layer.weight.data.view(-1)[0] = 0.5  # not all of them
    check(model, torch.randn(6, sizes[0]), profile=profile, error=1e3)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    size=st.integers(5, 8),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    pool=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolutions_of_any_shape(
    channels: tuple[int, int], size: int, kernel: int, stride: int, padding: int, pool: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    front = nn.Conv2d(*channels, kernel, stride, padding)
    layers: list[nn.Module] = [front, Square(), *([nn.AvgPool2d(2, 1, 1)] if pool else []), nn.Flatten()]
    samples = torch.randn(4, channels[0], size, size)
    width = nn.Sequential(*layers)(samples).shape[1]
    check(nn.Sequential(*layers, nn.Linear(width, 3)), samples, error=1e3)


@pytest.mark.parametrize("profile", ["precise", "fast"])
@pytest.mark.parametrize("power", [3, 4])
def test_polynomials_up_to_degree_four(power: int, profile: str) -> None:
    torch.manual_seed(1)
    program = check(Cubic(power), torch.randn(8, 6), profile=profile, error=1e3)
    assert program.counts.total() > 0


def test_residual_sums_strides_and_normalisation() -> None:
    torch.manual_seed(2)
    model = Residual()
    model(torch.randn(32, 1, 6, 6))  # statistics of its own
    check(model, torch.randn(8, 1, 6, 6), profile="fast", error=1e3)


class Linears(nn.Module):
    """Linear operations of many kinds, as modules and functions; what has a default keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.up, self.square = nn.ReflectionPad2d(1), nn.ConvTranspose2d(2, 3, 2, stride=2), Square()
        self.down, self.last = nn.Parameter(torch.randn(2, 3, 3, 3)), nn.Parameter(torch.randn(4, 32))
        self.left = nn.Parameter(torch.randn(3, 2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x if mask is None else x * mask
        x = self.square(nn.functional.conv2d(self.up(self.pad(x)), self.down, stride=2, padding=1))
        x = self.left @ nn.functional.linear(x.flatten(1), self.last).unflatten(1, (2, 2))
        return x.flatten(1).matmul(torch.ones(6, 2).to(self.last))


def test_linear_operations_of_many_kinds() -> None:
    torch.manual_seed(6)
    check(Linears(), torch.randn(8, 2, 2, 2), profile="fast", error=1e3)


class Between(nn.Module):
    """An operation between two small layers, and a square."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], width: int) -> None:
        super().__init__()
        self.first, self.run, self.last = nn.Linear(4, 4), run, nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.run(self.first(x))
        return self.last(h * h)


W = torch.arange(16.0).reshape(4, 4) / 16 - 0.4
OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "flip": lambda x: x.flip(1),
    "cumsum": lambda x: torch.cumsum(x, 1),
    "transposed": lambda x: x.view(-1, 2, 2).mT.flatten(1),
    "matrix on the left": lambda x: (W[:3, :2].to(x) @ x.unflatten(1, (2, 2))).flatten(1),
    "matmul": lambda x: x.matmul(W.to(x.dtype)),
    "einsum": lambda x: torch.einsum("nf,fg->ng", x, W.double()),
    "addmm": lambda x: torch.addmm(W[0].double(), x, W.double()),
    "expand": lambda x: x + x[:, :1].expand(-1, 4),
    "expand as": lambda x: x[:, 1:2].expand_as(x) - x,
    "by name": lambda x: torch.cat(tensors=[torch.flip(input=x, dims=(1,)), x], dim=1),
    "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x: x.split([1, 3], 1)[1].repeat(1, 2),
    "stack": lambda x: torch.stack([x, 2 * x], -1).mean(-1),
    "constants": lambda x: torch.cat([x, torch.ones_like(x), W[:1].to(x).expand(x.shape[0], -1)], 1),
    "gate": lambda x: x.view(-1, 2, 2) * x.view(-1, 2, 2).mean(2, keepdim=True),
    "unfold": lambda x: torch.nn.functional.unfold(x.view(-1, 1, 2, 2), 2).squeeze(2),
    "copy": lambda x: x.clone().detach().to(x.dtype).type_as(x).mul(2.0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_affine_in_a_sample_is_computed(name: str) -> None:
    torch.manual_seed(7)
    run, samples = OPERATIONS[name], torch.randn(8, 4, dtype=torch.float64)
    model = Between(run, run(samples).shape[-1])
    reading = read(model, (4,))
    values = {INPUT: samples}

    def value(form: Form) -> torch.Tensor:
        return sum((values[name] @ term.flatten(1) for name, term in form.terms.items()), form.bias.flatten())

    for node in reading.nodes:
        values[node.name] = value(node.form) * (value(node.form) if node.other is None else value(node.other))
    np.testing.assert_allclose(value(reading.output).detach(), outputs(model, samples).reshape(8, -1), atol=1e-12)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x - x.mean(0),
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x + x[[0]],
        lambda x: x.roll(1, 0),
        lambda x: x.view(2, -1).view(-1, 4),
        lambda x: x * x.sum(),
        lambda x: x + x.unsqueeze(1),
        lambda x: x * x.unsqueeze(1),
        lambda x: torch.cat([x, x]),
        lambda x: x.split(2)[0],
        lambda x: torch.matmul(torch.ones(64, 64, dtype=x.dtype), x),
    ],
)
def test_a_value_that_depends_on_other_samples_is_refused(run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(UnsupportedError, match=r"\w+: a sample's values depend on the batch that it is in"):
        read(Between(run, 4), (4,))


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.to(torch.int64).double(),
        lambda x: x.type_as(torch.ones(1, dtype=torch.int32)).double(),
        lambda x: x.type("torch.LongTensor").double(),
        lambda x: x.long().double(),
    ],
)
def test_whole_numbers_are_not_what_they_were_made_of(run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(UnsupportedError, match="cannot be computed on encrypted numbers"):
        read(Between(run, 4), (4,))


def test_a_product_of_two_values_as_matrices_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"matmul: it multiplies encrypted values with each other; they are"):
        read(Between(lambda x: x.view(-1, 2, 2) @ x.view(-1, 2, 2).mT, 2), (4,))


class Cancelled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x


def test_what_weights_of_zero_make_constant_is_refused() -> None:
    for place, message in ((0, r"1\.mul: all its weights are zero"), (2, "the output: all its weights are zero")):
        model = mlp(6, 6, 2)
        nn.init.zeros_(model[place].weight)
        with pytest.raises(UnsupportedError, match=message):
            compile_network(model, torch.randn(4, 6))
    model = nn.Sequential(nn.Linear(6, 6), Cancelled(), Square(), nn.Linear(6, 2))
    with pytest.raises(UnsupportedError, match=r"2\.mul: all its weights are zero"):
        compile_network(model, torch.randn(4, 6))


def test_a_swapped_activation_is_its_polynomial() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)).eval()
    swap(model, {"gelu": fit("gelu", kind="polynomial", degree=2, domain=(-3.0, 3.0))})
    samples = torch.randn(8, 6) / 3
    program = compile_network(model, samples)
    with torch.no_grad():
        wanted = model.float()(samples).numpy()
    np.testing.assert_allclose(program.plain(samples), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), r"1 \(ReLU\) cannot be computed.*put a square"),
        (nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)), r"1 \(GELU\).*swap gelu for a polynomial"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2), nn.Flatten()), r"1 \(MaxPool2d\).*average pooling"),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_name(model: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        compile_network(model, torch.randn(4, 4))


def test_what_is_too_large_is_refused_before_it_takes_memory() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), Square(), nn.Flatten(), nn.Linear(65536, 2))
    with pytest.raises(UnsupportedError, match=r"0: its matrix of 201,326,592 weights is more than 134,217,728"):
        compile_network(wide, torch.randn(2, 3, 32, 32))
    with pytest.raises(UnsupportedError, match=r"mul: its 20,000 numbers are more than a ciphertext's 16,384 slots"):
        compile_network(nn.Sequential(nn.Linear(4, 20000), Square(), nn.Linear(20000, 2)), torch.randn(2, 4))
    with pytest.raises(UnsupportedError, match="an input of 20,000 numbers"):
        compile_network(nn.Linear(20000, 2), torch.randn(2, 20000))


def test_a_network_too_deep_says_which_degrees_were_tried() -> None:
    torch.manual_seed(4)
    with pytest.raises(UnsupportedError, match=r"no parameters of 128 bits for 5 levels: degree 4096: 106 bits"):
        compile_network(mlp(4, 4, 4, 2), torch.randn(4, 4), degree=4096)


def test_a_profile_is_read_back_and_strange_ones_are_refused() -> None:
    program = compile_network(mlp(4, 3, 2), torch.randn(4, 4))
    values = program.profile.as_dict()
    assert Profile.from_dict(values) == program.profile
    for change, message in [
        ({"weights": []}, "no key 'weights'"),
        ({"rotations": [0, 1]}, "rotations increase"),
        ({"sentinel_slot": values["output_slots"][0]}, "a slot of its own"),
        ({"error": float("nan")}, "error is finite"),
        ({"shape": [0]}, "cannot be packed"),
    ]:
        with pytest.raises(RecipeError, match=message):
            Profile.from_dict(values | change)


def test_an_input_beyond_the_calibrated_range_is_refused_before_it_is_encrypted() -> None:
    program = compile_network(mlp(4, 3, 2), torch.ones(4, 4))
    program.profile.pack(2 * torch.ones(4))
    with pytest.raises(RecipeError, match=r"of magnitude 2\.5; this program takes 2 at most"):
        program.profile.pack(2.5 * torch.ones(4))


def test_seconds_are_estimated_by_the_counts() -> None:
    program = compile_network(mlp(12, 8, 3), torch.randn(8, 12))
    found = price_of(program, torch.randn(8, 12))
    times = estimated(program.profile.parameters)
    assert found.seconds == pytest.approx(sum(times[name] * count for name, count in program.counts.items()))
    assert sum(found.rotations_by_level) == found.rotations == total(program.counts, "rotate")
    assert found.precision_bits > 8  # 0.2 % of the largest output, at least
