"""Exact programs: what is decrypted equals the integer network's outputs, and what would not is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from private_networks import Residual, Square, mlp
from torch import nn

from fewbits.errors import RecipeError, UnsupportedError, WrongKeyError
from fewbits.private.exact import ExactKeys, ExactProgram, IntegerNetwork, compile_exact, integer_network
from fewbits.private.plain import Plain
from fewbits.private.read import INPUT
from fewbits.private.steps import execute


class Whole(Plain):
    """Slots of Python integers, which never overflow."""

    def multiply(self, value: np.ndarray, vector: np.ndarray, scale: float) -> np.ndarray:
        return value * np.array([int(x) for x in vector], dtype=object)


def in_plain(program: ExactProgram, integers: np.ndarray) -> np.ndarray:
    packed = program.packed(integers).astype(object)
    return program.outputs(execute(program.steps, Whole(), {INPUT: packed})[program.steps[-1].target])


def by_hand(network: IntegerNetwork, integers: list[int]) -> list[int]:
    value = integers
    for layer in network.layers:
        rows = [[int(w) for w in row] for row in layer.matrix]
        value = [
            sum(w * x for w, x in zip(row, value, strict=True)) + int(b)
            for row, b in zip(rows, layer.bias, strict=True)
        ]
        value = [x**2 for x in value] if layer.squared else value
    return value


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 14), min_size=2, max_size=4),
    bits=st.integers(2, 6),
    input_bits=st.integers(2, 5),
    signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_slots_hold_what_the_integer_network_computes(
    sizes: list[int], bits: int, input_bits: int, signed: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    samples = torch.randn(4, sizes[0]) if signed else torch.rand(4, sizes[0])
    network = integer_network(mlp(*sizes), samples, bits=bits, input_bits=input_bits)
    integers = network.integers(samples)
    program = compile_exact(network)
    for one, wanted in zip(integers, network(integers), strict=True):
        assert by_hand(network, one.tolist()) == wanted.tolist() == in_plain(program, one).tolist()
    assert program.parameters.bits > max(abs(end) for end in network.ranges()[-1][1:]).bit_length()


def test_no_input_leaves_the_ranges_and_some_reach_the_first_ones() -> None:
    torch.manual_seed(1)
    network = integer_network(mlp(3, 2, 2), torch.rand(8, 3), bits=3, input_bits=2)
    every = [by_hand(network, list(point)) for point in product(range(4), repeat=3)]
    (_, low, high), (_, least, most) = network.ranges()
    firsts = network.layers[0].matrix @ np.array(list(product(range(4), repeat=3))).T + network.layers[0].bias[:, None]
    assert high == max(int(x) ** 2 for x in firsts.ravel())
    assert low <= min(int(x) ** 2 for x in firsts.ravel())
    assert least <= min(map(min, every)) <= max(map(max, every)) <= most


def test_weights_on_a_grid_are_taken_as_they_are() -> None:
    levels = torch.randint(-5, 6, (4, 6))
    levels[0, 0] = 5
    model = nn.Sequential(nn.Linear(6, 4), Square(), nn.Linear(4, 2))
    model[0].weight.data = 0.0371 * levels
    network = integer_network(model, torch.rand(4, 6), bits=6)
    assert network.layers[0].matrix.tolist() == levels.tolist()
    samples = torch.rand(50, 6)
    with torch.no_grad():
        wanted = model(samples)
    grid = integer_network(model, samples, bits=10, input_bits=10)
    found = grid(grid.integers(samples)).astype(float) * grid.scale
    np.testing.assert_allclose(found, wanted.numpy(), atol=0.02 * float(wanted.abs().max()))


def test_decrypted_answers_equal_the_integers() -> None:
    pytest.importorskip("tenseal")
    torch.manual_seed(2)
    samples = torch.rand(3, 24)
    network = integer_network(mlp(24, 12, 3), samples, bits=9)
    program = compile_exact(network)
    assert len(program.parameters.moduli) == 2  # joined by the Chinese remainder theorem
    keys, others = program.keys(), ExactKeys(program.parameters, ())
    for one in (network.integers(samples)[0], np.full(24, network.most)):
        answers = program.run(keys, keys.encrypt(program.packed(one)))
        assert program.outputs(keys.decrypt(answers)).tolist() == by_hand(network, one.tolist())
        assert keys.budget(answers) > 0
    assert keys.evaluators[0].counts["square"] == 2
    with pytest.raises(WrongKeyError, match="no noise budget"):
        others.decrypt(answers)


def test_what_is_not_exact_is_refused() -> None:
    deep = integer_network(mlp(8, 8, 8, 8, 8, 2), torch.rand(4, 8), bits=12, input_bits=12)
    with pytest.raises(UnsupportedError, match=r"the output: its integers have up to \d+ bits.*1\.mul \d+.*fewer bits"):
        compile_exact(deep)
    with pytest.raises(UnsupportedError, match=r"exact programs are chains, and it reads"):
        integer_network(Residual().eval(), torch.rand(4, 1, 6, 6))
    zero = mlp(4, 3, 2)
    zero[0].weight.data.zero_()
    with pytest.raises(UnsupportedError, match=r"1\.mul: all its weights are zero"):
        integer_network(zero, torch.rand(4, 4))
    with pytest.raises(RecipeError, match=r"2\.\.12 bits"):
        integer_network(mlp(4, 2), torch.rand(4, 4), bits=1)
    with pytest.raises(RecipeError, match="samples have a sign"):
        integer_network(mlp(4, 2), torch.randn(4, 4), input_bits=1)
    network = integer_network(mlp(4, 2), torch.rand(4, 4))
    with pytest.raises(RecipeError, match=r"outside 0\.\.0\.\d+.*clamp"):
        network.integers(2 * torch.ones(1, 4))
