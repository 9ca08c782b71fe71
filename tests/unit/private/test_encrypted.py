"""Programs on real ciphertexts, at small degrees: answers, counts, keys and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from private_client import Client, answer
from private_networks import Cubic, mlp

from fewbits.errors import RecipeError
from fewbits.private import Evaluator, Parameters, Program, compile_network, context
from fewbits.private._primes import primes_of
from fewbits.private.counts import plaintexts
from fewbits.private.price import calibrate, price_of

seal = pytest.importorskip("tenseal.sealapi")


@pytest.fixture(scope="module")
def tiny() -> tuple[Program, Client, torch.Tensor]:
    torch.manual_seed(0)
    samples = torch.randn(16, 12)
    program = compile_network(mlp(12, 8, 3), samples, profile="fast")
    return program, Client(program.profile), samples


def test_an_encrypted_answer_is_the_plain_one(tiny: tuple[Program, Client, torch.Tensor]) -> None:
    program, client, samples = tiny
    evaluator = client.evaluator()
    plain = program.slots(samples[:4])
    for sample, slots in zip(samples[:4], plain, strict=True):
        evaluator.counts.clear()
        found = answer(program, client, evaluator, sample)
        outputs, sentinel = program.profile.unpack([found])
        assert np.abs(outputs - slots[list(program.profile.output_slots)]).max() <= program.profile.error
        assert np.abs(found - slots).max() <= 2 * program.profile.error  # nor is anything in the other slots
        assert program.profile.sound(sentinel)
        assert evaluator.counts == program.counts  # predicted from the steps' structure, counted call by call
    assert evaluator.encodings.made == plaintexts(program.steps)  # once for all samples


def test_another_key_is_told_by_the_sentinel(tiny: tuple[Program, Client, torch.Tensor]) -> None:
    program, client, samples = tiny
    other = Client(program.profile)
    found = program.run(client.evaluator(), [client.encrypt(program.profile.pack(samples[0])[0])])[0]
    assert not program.profile.sound(program.profile.unpack([other.decrypt(found)])[1])


def test_a_rotation_without_its_own_key_is_refused(tiny: tuple[Program, Client, torch.Tensor]) -> None:
    program, client, _ = tiny
    keys = seal.GaloisKeys()
    powers = [1 << bit for bit in range(12)]  # SEAL would put any rotation together from these
    seal.KeyGenerator(client.context, client.secret).create_galois_keys(
        [program.profile.parameters.galois(step) for step in powers], keys
    )
    with pytest.raises(RecipeError, match="no Galois key for rotations by 3"):
        Evaluator(program.profile.parameters, keys).require([3], False)
    with pytest.raises(RecipeError, match="no relinearisation key"):
        Evaluator(program.profile.parameters, client.galois).require([], True)


def test_strange_inputs_are_refused(tiny: tuple[Program, Client, torch.Tensor]) -> None:
    program, client, samples = tiny
    evaluator, slots = client.evaluator(), program.profile.pack(samples[0])[0]
    good = client.encrypt(slots)
    with pytest.raises(RecipeError, match="an input is 1 ciphertext, got 2"):
        program.run(evaluator, [good, good])
    with pytest.raises(RecipeError, match="an input has scale"):
        program.run(evaluator, [client.encrypt(slots, scale=2.0**20)])
    with pytest.raises(RecipeError, match="an input has level"):
        program.run(evaluator, [evaluator.drop(good, 0)])
    with pytest.raises(RecipeError, match="an input is not encrypted"):
        program.run(evaluator, [_Transparent(good)])


class _Transparent:
    """What SEAL itself makes none of: a ciphertext that anybody can read."""

    def __init__(self, cipher: Any) -> None:
        self._cipher = cipher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cipher, name)

    def is_transparent(self) -> bool:
        return True


@pytest.mark.long
@pytest.mark.parametrize("power", [3, 4])
def test_polynomials_of_degree_three_and_four(power: int) -> None:
    torch.manual_seed(power)
    samples = torch.rand(8, 6)
    program = compile_network(Cubic(power), samples)
    client = Client(program.profile)
    evaluator = client.evaluator()
    outputs, _ = program.profile.unpack([answer(program, client, evaluator, samples[0])])
    assert np.abs(outputs - program.plain(samples[:1])[0]).max() <= program.profile.error
    assert evaluator.counts == program.counts


def test_primes_are_those_that_seal_makes() -> None:
    bits = [30, 40, 30, 50]
    assert tuple(m.value() for m in seal.CoeffModulus.Create(2**13, bits)) == primes_of(2**13, bits)


def test_seal_checks_security_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.private.parameters.SECURITY", {2**12: 10**6})
    weak = Parameters.of_bits(2**12, (40, 40, 60))
    with pytest.raises(RecipeError, match="SEAL refuses"):
        context(weak)


def test_a_probe_times_every_operation_that_a_program_does(tiny: tuple[Program, Client, torch.Tensor]) -> None:
    program, _, samples = tiny
    times = calibrate(program.profile.parameters)
    assert set(program.counts) <= set(times)
    assert times["rotate", 1] > times["add", 1]
    assert price_of(program, samples, times).probed
