"""One client of the small private program, its keys, and the program; keys are made once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fewbits.private.client import Client
from fewbits.private.handler import Handler
from fewbits.private.keys import Keys, generate
from private_programs import OUTPUTS, SAMPLE, small_program


@pytest.fixture(scope="session")
def program() -> Any:
    pytest.importorskip("tenseal.sealapi")
    return small_program()


@pytest.fixture(scope="session")
def keys(program: Any) -> Keys:
    return generate(program.profile)


@pytest.fixture(scope="session")
def others(program: Any) -> Keys:
    return generate(program.profile)


@pytest.fixture(scope="session")
def client(keys: Keys) -> Client:
    return Client(keys.secret)


@pytest.fixture(scope="session")
def sample() -> np.ndarray:
    return np.asarray(SAMPLE)


@pytest.fixture(scope="session")
def plain() -> np.ndarray:
    """What the network itself gives."""
    return np.asarray(OUTPUTS)


@pytest.fixture
def handler(program: Any) -> Handler:
    return Handler(program)
