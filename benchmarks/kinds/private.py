"""Encrypted inference: dense and smaller networks and other libraries, taking turns, CPU time of one thread."""

import copy
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.kinds.private_networks import Images, Pairs, accuracy, images, trained
from benchmarks.kinds.private_runners import Orion, Own, Runner, TenSeal
from benchmarks.kinds.private_smaller import narrowed, predicted_of, pruned
from benchmarks.unit import Place, Row, Unit
from fewbits.errors import RecipeError
from fewbits.private import Profile, Program, compile_network

CALIBRATION = 256
OTHERS = ("tenseal", "orion")


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each program; all have the same training and validation images, and answer the same test images.

    A case of ``programs`` has ``squares``, and these if it is another than the dense program of its ``profile``:
    ``maps``, the share of the dense network's predicted time that fewer maps may take; ``pruned``, fewer diagonals;
    ``by``, another library; ``encrypted``, how many images it answers if those are fewer.
    """
    asked = unit.options
    if any(case.get("by") == "orion" for case in asked["programs"]) and "orion" not in place.more:
        raise RecipeError("the program of Orion asks for --more orion=PYTHON, an interpreter that has orion-fhe")
    data = images(place)
    model_of = Models(asked, data, unit.seed)
    cases = asked["programs"]
    models = [model_of(case) for case in cases]
    base = model_of.baseline()
    programs = compiled(models, cases, data.train[0][:CALIBRATION])
    given = list(zip(cases, models, programs, strict=True))
    runners = [runner(case, model, program, data, place) for case, model, program in given]
    try:
        answers = turns(runners, [case.get("encrypted", asked["encrypted"]) for case in cases], data.test[0])
    finally:
        for one in runners:
            if isinstance(one, Orion):
                one.close()
    rows = []
    for (case, model, program), one, (seconds, outputs) in zip(given, runners, answers, strict=True):
        row = unit.labels | {"program": case["name"], "profile": case["profile"], "split": data.split}
        row |= {"accuracy": right(model, program, data.test), "baseline_accuracy": base} | one.facts()
        error = None if program is None else program.profile.error
        row |= {"milliseconds": 1000 * median(seconds)} | agreement(outputs, plain(model, data.test[0]), error)
        rows.append(row)
    return rows


class Models:
    """The networks of cases, each trained once.

    Args:
        asked: the unit's options. data: to train with. seed: of each training.
    """

    def __init__(self, asked: Row, data: Images, seed: int) -> None:
        self.asked, self.data, self.seed = asked, data, seed
        self.squares = max(case["squares"] for case in asked["programs"])
        self._known: dict[tuple[int, float | None, bool], nn.Module] = {}

    def __call__(self, case: Row) -> nn.Module:
        return self._of(case["squares"], case.get("maps"), bool(case.get("pruned")))

    def baseline(self) -> float:
        """Accuracy of the dense network with the most squares, in percent."""
        return accuracy(self._of(self.squares, None, False), self.data.test)

    def _of(self, squares: int, maps: float | None, fewer: bool) -> nn.Module:
        key = squares, maps, fewer
        if key not in self._known:
            self._known[key] = self._made(squares, maps, fewer).eval()
        return self._known[key]

    def _made(self, squares: int, maps: float | None, fewer: bool) -> nn.Module:
        if fewer:
            start = self._of(squares, maps, False)
            torch.manual_seed(self.seed)
            return pruned(start, self.data, self.asked)
        if maps is None:
            return trained(self.asked, squares, self.data, self.seed)
        whole = predicted_of(self._of(self.squares, None, False), self.data.train[0][:CALIBRATION])
        start = self._of(squares, None, False)
        torch.manual_seed(self.seed)
        return narrowed(start, self.data, maps * whole.milliseconds, self.asked)


def compiled(models: list[nn.Module], cases: list[Row], samples: Tensor) -> list[Program | None]:
    """Programs, ``None`` for other libraries; those with fewer diagonals have the parameters of the ones before."""
    dense: dict[tuple[int, float | None, str], Profile] = {}
    found: list[Program | None] = [None] * len(cases)
    for place in sorted(range(len(cases)), key=lambda place: bool(cases[place].get("pruned"))):
        case = cases[place]
        if case.get("by") in OTHERS:
            continue
        key = case["squares"], case.get("maps"), case["profile"]
        like = dense.get(key) if case.get("pruned") else None
        found[place] = program = compile_network(models[place], samples, profile=case["profile"], like=like)
        dense.setdefault(key, program.profile)
    return found


def runner(case: Row, model: nn.Module, program: Program | None, data: Images, place: Place) -> Runner:
    """Who answers for a case."""
    if program is not None:
        return Own(program)
    if case["by"] == "tenseal":
        return TenSeal(model)
    return Orion(place.more["orion"], model, data.train[0][:CALIBRATION].numpy(), place.work / "orion")


def turns(
    runners: list[Runner], counts: list[int], images: Tensor
) -> list[tuple[list[float], np.ndarray]]:  # fmt: skip
    """CPU seconds and outputs of each runner for its first encrypted images, one image after the other."""
    found: list[tuple[list[float], list[np.ndarray]]] = [([], []) for _ in runners]
    for one, count in zip(runners, counts, strict=True):
        if count > 2:
            one.answer(images[0].numpy())  # encodes the weights
    for number, image in enumerate(images[: max(counts)].numpy()):
        for one, count, (seconds, outputs) in zip(runners, counts, found, strict=True):
            if number < count:
                answer, taken = one.answer(image)
                seconds.append(taken)
                outputs.append(answer)
    return [(seconds, np.stack(outputs)) for seconds, outputs in found]


@torch.no_grad()
def plain(model: nn.Module, images: Tensor) -> np.ndarray:
    """Outputs of a network in float64 arithmetic."""
    return np.asarray(copy.deepcopy(model).double()(images.double()).numpy())


def right(model: nn.Module, program: Program | None, test: Pairs) -> float:
    """Accuracy of the plain program, in percent; of the network itself, if another library computes it."""
    if program is None:
        return accuracy(model, test)
    return 100 * float((torch.from_numpy(program.plain(test[0].numpy())).argmax(1) == test[1]).double().mean())


def agreement(outputs: np.ndarray, wanted: np.ndarray, error: float | None) -> Row:
    """How far answers are off, and on how many images they decide otherwise; also where margins are twice the error."""
    wanted = wanted[: len(outputs)]
    alike = outputs.argmax(1) == wanted.argmax(1)
    row = {
        "encrypted": len(outputs), "largest_error": float(np.abs(outputs - wanted).max()),
        "largest_output": float(np.abs(wanted).max()), "agree_percent": 100 * float(alike.mean()),
    }  # fmt: skip
    if error is None:
        return row
    ordered = np.sort(wanted, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * error
    counted = {"clear_samples": int(clear.sum()), "clear_disagree": int((clear & ~alike).sum())}
    return row | {"stated_error": error} | counted
