"""Encrypted inference: dense and pruned networks at equal parameters, programs taking turns, CPU time of one thread."""

import time
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.unit import Place, Row, Unit
from fewbits.assign import grouped
from fewbits.data import load
from fewbits.private import Evaluator, Profile, Program, compile_network, context, diagonals_of
from fewbits.private.counts import ciphertext_bytes, key_bytes, total
from fewbits.private.price import calibrate, predicted

BATCH, CALIBRATION = 128, 256


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def mlp(widths: list[int], squares: int) -> nn.Module:
    """784 inputs, hidden layers of these widths, ten classes; only behind the first ``squares`` of them is a square."""
    layers: list[nn.Module] = [nn.Flatten()]
    for place, (inputs, outputs) in enumerate(zip([784, *widths], [*widths, 10], strict=True)):
        layers.append(nn.Linear(inputs, outputs))
        if place < min(squares, len(widths)):
            layers.append(Square())
    return nn.Sequential(*layers)


def lenet(widths: list[int], squares: int) -> nn.Module:
    """LeNet-5 with 6 and 16 maps, squares and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), Square(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), Square(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), Square(), nn.Linear(120, 84), Square(), nn.Linear(84, 10),
    )  # fmt: skip


NETWORKS = {"mlp": mlp, "lenet-5": lenet}


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each program; all have the same training and validation images, and answer the same test images."""
    asked = unit.options
    data = load("mnist", place.data)
    train = data.train.inputs.float() / 255, data.train.targets
    split = data.validation if place.validation else data.test
    test = split.inputs.float() / 255, split.targets
    torch.manual_seed(unit.seed)
    models = {}
    for squares in sorted({case["squares"] for case in asked["programs"]}, reverse=True):
        dense = NETWORKS[asked["network"]](asked.get("widths", []), squares)
        fit(dense, train, asked["epochs"])
        models[squares, False] = dense
        if any(case["squares"] == squares and case.get("pruned") for case in asked["programs"]):
            models[squares, True] = pruned(dense, train, asked)
    base = accuracy(models[max(s for s, _ in models), False], test)
    programs = compiled(models, asked["programs"], train[0][:CALIBRATION])
    clients = [Client(program) for program in programs]
    found = turns(programs, clients, [models[key(case)] for case in asked["programs"]], test, asked["encrypted"])
    rows = []
    for case, program, client, answers in zip(asked["programs"], programs, clients, found, strict=True):
        row = unit.labels | {
            "program": case["name"],
            "profile": case["profile"],
            "split": "validation" if place.validation else "test",
        }
        right = (torch.from_numpy(program.plain(test[0].numpy())).argmax(1) == test[1]).double().mean()
        rows.append(
            row | {"accuracy": 100 * float(right), "baseline_accuracy": base} | facts(program, client) | answers
        )
    return rows


def key(case: Row) -> tuple[int, bool]:
    """Which network a program is of."""
    return case["squares"], bool(case.get("pruned"))


def compiled(models: dict[tuple[int, bool], nn.Module], cases: list[Row], samples: Tensor) -> list[Program]:
    """Programs; those of pruned networks have the parameters of the dense one of as many squares and the profile."""
    dense: dict[tuple[int, str], Profile] = {}
    found = []
    for case in sorted(cases, key=lambda case: bool(case.get("pruned"))):
        like = dense.get((case["squares"], case["profile"])) if case.get("pruned") else None
        program = compile_network(models[key(case)], samples, profile=case["profile"], like=like)
        dense.setdefault((case["squares"], case["profile"]), program.profile)
        found.append((cases.index(case), program))
    return [program for _, program in sorted(found, key=lambda pair: pair[0])]


def fit(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, lr: float = 1e-3, step: Any = None) -> None:
    """AdamW on cross-entropy with clipped gradients; ``step(share)`` gives a further loss, and acts after each step."""
    inputs, targets = data
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    steps = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * lr, total_steps=max(1, epochs * steps))
    for epoch in range(epochs):
        order = torch.randperm(len(inputs))
        for place in range(steps):
            batch = order[place * BATCH : (place + 1) * BATCH]
            loss = cross_entropy(model(inputs[batch]), targets[batch])
            after = None
            if step is not None:
                more, after = step((epoch * steps + place) / (epochs * steps))
                loss = loss + more
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if after is not None:
                after()


def pruned(dense: nn.Module, data: tuple[Tensor, Tensor], asked: Row) -> nn.Module:
    """A copy whose diagonals fall while it trains, under group lasso, until what is left learns alone."""
    model = NETWORKS[asked["network"]](asked.get("widths", []), sum(isinstance(m, Square) for m in dense))
    model.load_state_dict(dense.state_dict())
    found = diagonals_of(model, tuple(data[0].shape[1:]), degree=asked["degree"], profile="fast")
    groups, lines = found.groups, found.lines if asked.get("lines") else None
    weights = {
        name: dict(model.named_parameters())[name] for name in groups if name in asked["prune"] or not asked["prune"]
    }
    groups = {name: groups[name] for name in weights}
    sizes = {name: torch.bincount(number.flatten()).double().sqrt().float() for name, number in groups.items()}
    masks = {name: torch.ones_like(weight) for name, weight in weights.items()}
    state: dict[str, Any] = {"at": 0.0}

    def step(share: float) -> tuple[Any, Any]:
        target = asked["sparsity"] * min(1.0, 1 - (1 - min(1.0, share / 0.6)) ** 3)
        if share < 0.6 and target - state["at"] > 0.02:
            assigner = grouped(target, groups, lines=lines)
            given = {name: weight.detach() for name, weight in weights.items()}
            plan, _ = assigner.update(given, None, assigner.init(given))
            masks.update({name: entry.kept.float() for name, entry in plan.compressed.items()})
            state["at"] = target
        lasso: Any = 0.0
        for name, weight in weights.items() if share < 0.6 else ():
            power = torch.zeros(len(sizes[name])).index_add(0, groups[name].flatten(), weight.flatten() ** 2)
            lasso = lasso + asked["lasso"] * (sizes[name] * (power + 1e-12).sqrt()).sum()
        return lasso, after

    @torch.no_grad()
    def after() -> None:
        for name, weight in weights.items():
            weight.mul_(masks[name])

    after()
    fit(model, data, asked["pruned_epochs"], step=step)
    return model


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Percent."""
    return 100 * float((model.eval()(data[0]).argmax(1) == data[1]).double().mean())


class Client:
    """A secret key, and the evaluator that a server has: with public keys only."""

    def __init__(self, program: Program) -> None:
        import tenseal.sealapi as seal

        profile = program.profile
        self.seal, self.profile, self.context = seal, profile, context(profile.parameters)
        made = seal.KeyGenerator(self.context)
        galois, relinearise = seal.GaloisKeys(), seal.RelinKeys()
        made.create_galois_keys([profile.parameters.galois(step) for step in profile.rotations], galois)
        made.create_relin_keys(relinearise)
        self.evaluator = Evaluator(profile.parameters, galois, relinearise)
        self._encoder = seal.CKKSEncoder(self.context)
        self._encryptor = seal.Encryptor(self.context, made.secret_key())
        self._decryptor = seal.Decryptor(self.context, made.secret_key())

    def encrypt(self, sample: np.ndarray) -> list[Any]:
        found = []
        for part in self.profile.pack(sample):
            plain, cipher = self.seal.Plaintext(), self.seal.Ciphertext()
            self._encoder.encode(part.tolist(), self.profile.input_scale, plain)
            self._encryptor.encrypt_symmetric(plain, cipher)
            found.append(cipher)
        return found

    def decrypt(self, answer: list[Any]) -> tuple[np.ndarray, float]:
        plain = self.seal.Plaintext()
        self._decryptor.decrypt(answer[0], plain)
        return self.profile.unpack([np.array(self._encoder.decode_double(plain))])


def turns(
    programs: list[Program], clients: list[Client], models: list[nn.Module], test: tuple[Tensor, Tensor], count: int
) -> list[Row]:
    """What each program answers to the first ``count`` encrypted test images, one image after the other."""
    images = test[0][:count]
    with torch.no_grad():
        plain = [model.double()(images.double()).numpy() for model in models]
    seconds: list[list[float]] = [[] for _ in programs]
    answers: list[list[np.ndarray]] = [[] for _ in programs]
    for program, client in zip(programs, clients, strict=True):
        program.run(client.evaluator, client.encrypt(images[0].numpy()))  # encodes the weights
    for image in images.numpy():
        for place, (program, client) in enumerate(zip(programs, clients, strict=True)):
            given = client.encrypt(image)
            client.evaluator.counts.clear()
            start = time.process_time()
            found = program.run(client.evaluator, given)
            seconds[place].append(time.process_time() - start)
            outputs, sentinel = client.decrypt(found)
            assert program.profile.sound(sentinel)
            answers[place].append(outputs)
    return [
        {"milliseconds": 1000 * median(times)} | agreement(np.stack(outputs), wanted, program.profile.error)
        for times, outputs, wanted, program in zip(seconds, answers, plain, programs, strict=True)
    ]


def agreement(outputs: np.ndarray, wanted: np.ndarray, error: float) -> Row:
    """How far answers are off, and on how many images they decide otherwise; also where margins are twice the error."""
    alike = outputs.argmax(1) == wanted.argmax(1)
    ordered = np.sort(wanted, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * error
    return {
        "encrypted": len(outputs), "largest_error": float(np.abs(outputs - wanted).max()), "stated_error": error,
        "largest_output": float(np.abs(wanted).max()), "agree_percent": 100 * float(alike.mean()),
        "clear_samples": int(clear.sum()), "clear_disagree": int((clear & ~alike).sum()),
    }  # fmt: skip


def facts(program: Program, client: Client) -> Row:
    """What a program is made of; the evaluator's counts of its last run are those predicted."""
    parameters = program.profile.parameters
    return {
        "degree": parameters.degree, "prime_bits": [prime.bit_length() for prime in parameters.primes],
        "modulus_bits": parameters.bits, "rotations": total(program.counts, "rotate"),
        "products": total(program.counts, "multiply"), "keys": len(program.profile.rotations),
        "predicted_milliseconds": 1000 * predicted(program.counts, calibrate(parameters)),
        "counted_as_predicted": client.evaluator.counts == program.counts,
        "key_bytes": key_bytes(program.profile), "input_bytes": ciphertext_bytes(program.profile),
    }  # fmt: skip
