"""Exact encrypted inference: networks of integers in BFV, their accuracy and latency over bits."""

import time
from statistics import median

import numpy as np

from benchmarks.kinds.private import CALIBRATION
from benchmarks.kinds.private_networks import accuracy, images, trained
from benchmarks.unit import Place, Row, Unit
from fewbits.errors import UnsupportedError
from fewbits.private.exact import ExactProgram, compile_exact, integer_network


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each number of bits of weights; all are roundings of one network."""
    asked, data = unit.options, images(place)
    inputs, targets = data.test
    model = trained(asked | {"network": "mlp"}, asked["squares"], data, unit.seed)
    labels = unit.labels | {"scheme": "bfv", "split": data.split, "input_bits": asked["input_bits"]}
    labels |= {"baseline_accuracy": accuracy(model, data.test)}
    rows = []
    for bits in asked["bits"]:
        network = integer_network(model, data.train[0][:CALIBRATION], bits=bits, input_bits=asked["input_bits"])
        integers = network.integers(inputs)
        outputs = network(integers)
        right = np.array([row.argmax() for row in outputs]) == targets.numpy()
        _, low, high = network.ranges()[-1]
        row = labels | {"bits": bits, "accuracy": 100 * float(right.mean()), "output_bits": (high - low).bit_length()}
        try:
            program = compile_exact(network)
        except UnsupportedError as error:
            rows.append(row | {"refused": str(error)})
            continue
        rows.append(row | timed(program, integers[: asked["encrypted"]], outputs))
    return rows


def timed(program: ExactProgram, integers: np.ndarray, wanted: np.ndarray) -> Row:
    """CPU time of one thread for each sample, all plain moduli together, and on how many outputs answers are equal."""
    keys, seconds, equal, budget = program.keys(), [], 0, []
    program.run(keys, keys.encrypt(program.packed(integers[0])))  # encodes the weights
    for one, outputs in zip(integers, wanted, strict=False):
        given = keys.encrypt(program.packed(one))
        keys.evaluators[0].counts.clear()
        start = time.process_time()
        answers = program.run(keys, given)
        seconds.append(time.process_time() - start)
        equal += int((program.outputs(keys.decrypt(answers)) == outputs).all())
        budget.append(keys.budget(answers))
    ring, counts = program.parameters.ring, keys.evaluators[0].counts
    return {
        "milliseconds": 1000 * median(seconds), "encrypted": len(integers), "equal": equal, "degree": ring.degree,
        "prime_bits": [prime.bit_length() for prime in ring.primes], "modulus_bits": ring.bits,
        "plain_bits": [modulus.bit_length() for modulus in program.parameters.moduli], "budget_left": min(budget),
        "rotations": counts["rotate"], "products": counts["multiply"],
    }  # fmt: skip
