"""Networks that were fine-tuned from one, in one file: differences to a base against files of their own and rivals.

Float networks, the base and files lie in ``work``, so that a stopped experiment goes on with the next row.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from math import lgamma, log
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

import fewbits as fb
from benchmarks import task_data
from benchmarks.unit import Place, Row, Unit
from fewbits import codec, zoo
from fewbits.data import DataSet, digits
from fewbits.data.dataset import Split
from fewbits.plan import Clustered, Plan
from fewbits.report.sizes import float_bytes
from fewbits.task import accuracy
from fewbits.weights import select

WEIGHTS = "cifar10_resnet20.safetensors"
HEAD = "linear"
"""Of the zoo's ResNets: the base that is trained for all tasks has none, as each task has classes of its own."""
ANGLES = (-90, -60, -45, -30, -15, 15, 30, 45, 60, 90)
"""By which digits are turned: ten tasks, of a network that was trained on upright ones."""


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: bytes of a task's file and its test accuracy, or those of all tasks together."""
    method = unit.labels["method"]
    if method in TOGETHER:
        return [
            unit.labels
            | {"model": unit.options["network"], "data": unit.options["data"]}
            | TOGETHER[method](unit, place)
        ]
    job = Task(unit, place, unit.labels["task"])
    begin = time.perf_counter()
    size, network = METHODS[method](job)
    return [
        unit.labels | {
            "model": unit.options["network"], "data": unit.options["data"], "split": job.final, "bytes": size,
            "float_bytes": job.float_bytes, "ratio": job.float_bytes / size, "accuracy": job.accuracy(network),
            "baseline_accuracy": job.accuracy(job.float_network()), "samples": len(job.data.train),
            "target": unit.options["target"] if method.startswith("difference") else None,
            "epochs": unit.options["epochs"], "float_epochs": unit.options["float_epochs"],
            "seconds": time.perf_counter() - begin,
        }
    ]  # fmt: skip


class Task:
    """A task's data, its float network, and what is made of that."""

    def __init__(self, unit: Unit, place: Place, number: int) -> None:
        self.unit, self.place, self.options, self.number = unit, place, unit.options, number
        self.folder = place.work / "families" / f"{self.options['data']}-{self.options['samples']}-{unit.seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tasks = tasks_of(self.options, place, unit.seed)
        self.data = self.tasks[number]
        self.final = "validation" if place.validation else "test"

    def network(self) -> nn.Module:
        return pretrained(self.unit, self.place)

    def float_network(self) -> nn.Module:
        """Fine-tuned from the shared network, once."""
        file = self.folder / f"float{self.number}.safetensors"
        if not file.exists():
            made = self.tuned(self.network())
            save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, file)
        net = self.network()
        net.load_state_dict(load_file(file))
        return net.eval()

    def tuned(self, network: nn.Module) -> nn.Module:
        """Trained for the task, without compression."""
        return fb.train(
            network, self.batches("train"), seed=self.unit.seed, progress=None, epochs=self.options["float_epochs"],
            lr=self.options["float_lr"],
        )  # fmt: skip

    def batches(self, name: str) -> DataLoader[Any]:
        train = name == "train"
        return self.data.loader(
            name,
            self.options["batch"] if train else 250,
            shuffle=train,
            augment=train and self.options["data"] != "digits",
            seed=self.unit.seed,
        )

    def accuracy(self, network: nn.Module) -> float:
        return accuracy(network, self.batches(self.final))

    @property
    def validation(self) -> Callable[[nn.Module], float]:
        batches = list(self.batches("validation"))
        return lambda network: accuracy(network, batches)

    @property
    def float_bytes(self) -> int:
        counted = {n: t for n, t in self.network().state_dict().items() if "num_batches" not in n}
        return float_bytes(counted)

    def recipe(self, **changes: Any) -> Row:
        options = self.options
        train = options["train"] | {"epochs": options["epochs"], "lr": options["lr"]}
        given = {"train": train, "seed": self.unit.seed}
        return options["recipe"] | given | changes


LOADED: dict[tuple[Any, ...], list[DataSet]] = {}
"""Tasks of this process: a data set takes longer to load than many a row."""


def tasks_of(options: Row, place: Place, seed: int) -> list[DataSet]:
    """Ten tasks with the normalisation of the shared network, and so many training samples each."""
    key = (place.data, options["data"], options["samples"], seed)
    if key not in LOADED:
        found = turned() if options["data"] == "digits" else classes(options, place, seed)
        few = options["samples"]
        LOADED[key] = [
            made if few is None else dataclasses.replace(made, train=made.train.hold_out(few)[1]) for made in found
        ]
    return LOADED[key]


def classes(options: Row, place: Place, seed: int) -> list[DataSet]:
    """Ten classes of CIFAR-100 each, as PaRT has them."""
    normalisation = zoo.normalisation(zoo.load_weights(zoo.build(options["network"], seed=0), place.weights / WEIGHTS))
    assert normalisation is not None
    whole = options | {"samples": None}  # of which so many are held out by class, as of all tasks
    return [made.normalised(normalisation) for made in task_data.tasks_of(whole, place.data, seed).values()]


def turned() -> list[DataSet]:
    """The digits by each angle, between pixels by straight lines."""
    whole, found = digits(), []
    for angle in ANGLES:
        turn = torch.tensor(angle * torch.pi / 180)
        matrix = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
        parts = {}
        for name in ("train", "validation", "test"):
            part = whole.split(name)
            placed = torch.cat([matrix, torch.zeros(2, 1)], 1).expand(len(part), 2, 3)
            grid = nn.functional.affine_grid(placed, list(part.inputs.shape), align_corners=False)
            parts[name] = Split(nn.functional.grid_sample(part.inputs, grid, align_corners=False), part.targets)
        found.append(dataclasses.replace(whole, **parts))
    return found


def pretrained(unit: Unit, place: Place) -> nn.Module:
    """The network that all were fine-tuned from: shared weights for CIFAR-10, or trained here on upright digits."""
    options = unit.options
    net = zoo.build(options["network"], seed=0)
    if options["data"] != "digits":
        zoo.load_weights(net, place.weights / WEIGHTS)
        return net.eval()
    file = place.work / "families" / f"upright-{unit.seed}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        loader = digits().loader("train", options["batch"], shuffle=True, seed=unit.seed)
        made = fb.train(net, loader, epochs=15, lr=2e-3, seed=unit.seed, progress=None)
        save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, file)
    net.load_state_dict(load_file(file))
    return net.eval()


# -- files of one task ---------------------------------------------------------------------------------------


def separate(job: Task) -> tuple[int, nn.Module]:
    """The smallest file of its own within half a point of the float network on validation data."""
    small = fb.compress(
        job.float_network(), job.batches("train"), evaluate=job.validation, recipe=job.recipe(pilots=0), max_drop=0.5,
        progress=None,
    )  # fmt: skip
    small.save(job.folder / f"separate{job.number}.few")
    return len(small.data), small.into(job.network())


def difference(job: Task, of: str) -> tuple[int, nn.Module]:
    """Differences of ``target`` bytes to a base, from which the network is fine-tuned first."""
    base = (job.folder / base_file(job.unit, job.place, of)).read_bytes()
    origin = codec.base_of(base)
    net = job.network()
    state = net.state_dict()
    net.load_state_dict(state | {n: t for n, t in origin.tensors.items() if t.shape == state[n].shape}, strict=False)
    if of == "joint":
        head = load_file(job.folder / "head.safetensors")
        rows = slice(10 * job.number, 10 * job.number + 10)
        net.load_state_dict({name: tensor[rows] for name, tensor in head.items()}, strict=False)
    tuned = job.tuned(net)  # a difference that begins at zero has no step of its own
    recipe = job.recipe(significand=job.options["significand"])
    small = fb.compress(
        tuned, job.batches("train"), base=base, recipe=recipe, target=job.options["target"], progress=None
    )
    small.save(job.folder / f"{named(of, job.options)}{job.number}.few")
    return len(small.data), small.into(job.network())


def named(of: str, options: Row) -> str:
    """What files of differences are called by: their base, and their size."""
    return f"{of}-{options['target']}-"


def base_file(unit: Unit, place: Place, of: str) -> str:
    """The base: the shared network as it is, or after a training for all tasks at once, without a head."""
    job = Task(unit, place, 0)
    name = f"base-{of}.few"
    if (job.folder / name).exists():
        return name
    options = unit.options
    if of == "joint":
        net = wide(unit, place)
        loader = together(job.tasks, options["batch"], unit.seed)
        recipe = job.recipe(train=options["train"] | {"epochs": options["base_epochs"], "lr": options["base_lr"]})
        small = fb.compress(net, loader, recipe=recipe, target=options["base_target"], progress=None)
        whole = small.plan
        head = {n: entry.values().contiguous() for n, entry in whole.items() if n.startswith(HEAD)}
        save_file(head, job.folder / "head.safetensors")
        data = codec.encode(
            Plan({n: e for n, e in whole.items() if n not in head}), header={"model": options["network"]}
        )
    else:
        upright, recipe = None, options["recipe"] | {"train": None}
        if options["data"] == "digits":  # CIFAR-10 is none of the tasks' data
            upright = digits().loader("train", options["batch"], shuffle=True, seed=unit.seed)
            recipe = job.recipe(train=options["train"] | {"epochs": options["base_epochs"], "lr": options["base_lr"]})
        small = fb.compress(
            pretrained(unit, place), upright, recipe=recipe, target=options["base_target"], progress=None
        )
        data = small.data
    (job.folder / name).write_bytes(data)
    return name


def wide(unit: Unit, place: Place) -> nn.Module:
    """The shared network with a head for a hundred classes."""
    net, like = zoo.build(unit.options["network"], seed=0, classes=100), pretrained(unit, place).state_dict()
    net.load_state_dict({n: t for n, t in like.items() if not n.startswith(HEAD)}, strict=False)
    return net.eval()


def together(tasks: list[DataSet], batch: int, seed: int) -> DataLoader[Any]:
    """The training samples of all tasks, each class with a number of its own."""
    inputs = torch.cat([made.train.inputs for made in tasks])
    targets = torch.cat([made.train.targets + 10 * number for number, made in enumerate(tasks)])
    classes = tuple(name for made in tasks for name in made.classes)
    whole = dataclasses.replace(tasks[0], train=Split(inputs, targets), classes=classes)
    return whole.loader("train", batch, shuffle=True, augment=True, seed=seed)


def one_bit(job: Task) -> tuple[int, nn.Module]:
    """BitDelta (arXiv 2402.10193) without its distillation: the signs of differences, and their mean size by tensor.

    To the float base, which is not counted; all that is no matrix is kept in float16.
    """
    net, base = job.float_network(), pretrained(job.unit, job.place).state_dict()
    matrices, size = set(select(net)), 0
    state = net.state_dict()
    for name, tensor in state.items():
        if name in matrices:
            delta = tensor - base[name]
            state[name] = base[name] + delta.abs().mean() * delta.sign()
            size += -(-delta.numel() // 8) + 4
        elif tensor.is_floating_point():
            state[name] = tensor.half().float()
            size += 2 * tensor.numel()
    net.load_state_dict(state)
    return size, net


def pruned(job: Task) -> tuple[int, nn.Module]:
    """A task vector of which the largest differences are left, as a file of this library; nothing is trained."""
    base = (job.folder / base_file(job.unit, job.place, "shared")).read_bytes()
    small = fb.compress(
        job.float_network(), None, base=base, progress=None,
        recipe={"assign": {"method": "none"}, "prune": {"method": "global-magnitude", "sparsity": 0.95}, "train": None},
    )  # fmt: skip
    return len(small.data), small.into(job.network())


METHODS: dict[str, Callable[[Task], tuple[int, nn.Module]]] = {
    "separate": separate,
    "difference to a joint base": lambda job: difference(job, "joint"),
    "difference to the shared network": lambda job: difference(job, "shared"),
    "one bit": one_bit,
    "pruned differences": pruned,
}


# -- all tasks in one file -----------------------------------------------------------------------------------


def packed(unit: Unit, place: Place, of: str) -> Row:
    """The base and ten files of differences as one file, and what is read of it for one task."""
    job = Task(unit, place, 0)
    files = {"base": job.folder / base_file(unit, place, of)}
    files |= {f"task{i}": path for i, path in enumerate(_differences(job, of))}
    size = fb.family(files, out := job.folder / f"{named(of, unit.options)}family.few")
    from fewbits.multitask import members_in

    members = members_in(out)
    mean = _mean(path.stat().st_size for path in _separate(job))
    return {
        "bytes": size, "base_bytes": members[0].bytes, "difference_bytes": _mean(m.bytes for m in members[1:]),
        "bytes_read": _mean(m.read for m in members[1:]), "of_mean": size / mean, "tasks": len(job.tasks),
        "target": unit.options["target"],
    }  # fmt: skip


def zipped(unit: Unit, place: Place) -> Row:
    """The ten float networks under zstd -19, each with the shared network as its dictionary."""
    job = Task(unit, place, 0)
    dictionary = zstandard.ZstdCompressionDict(
        _raw(pretrained(unit, place).state_dict()), zstandard.DICT_TYPE_RAWCONTENT
    )
    sizes = []
    for number in range(len(job.tasks)):
        raw = _raw(Task(unit, place, number).float_network().state_dict())
        sizes.append(len(zstandard.ZstdCompressor(level=19, dict_data=dictionary).compress(raw)))
    own = len(zstandard.ZstdCompressor(level=19).compress(_raw(pretrained(unit, place).state_dict())))
    mean = _mean(path.stat().st_size for path in _separate(job))
    return {"bytes": own + sum(sizes), "base_bytes": own, "difference_bytes": _mean(sizes), "tasks": len(sizes),
            "of_mean": (own + sum(sizes)) / mean}  # fmt: skip


def apart(unit: Unit, place: Place) -> Row:
    """The ten files of their own, and under one zstd."""
    job = Task(unit, place, 0)
    sizes = [path.stat().st_size for path in _separate(job)]
    together = zstandard.ZstdCompressor(level=19).compress(b"".join(path.read_bytes() for path in _separate(job)))
    return {"bytes": sum(sizes), "mean_bytes": _mean(sizes), "of_mean": sum(sizes) / _mean(sizes), "tasks": len(sizes),
            "zstd_bytes": len(together)}  # fmt: skip


def itself(unit: Unit, place: Place) -> Row:
    """A network as a difference to its own file."""
    job = Task(unit, place, 0)
    base = (job.folder / base_file(unit, place, "shared")).read_bytes()
    net = pretrained(unit, place)
    net.load_state_dict(codec.base_of(base).tensors, strict=False)
    recipe = unit.options["recipe"] | {"train": None, "assign": {"method": "ecq"}}
    return {"bytes": len(fb.compress(net, base=base, recipe=recipe, progress=None).data), "base_bytes": len(base)}


def context(unit: Unit, place: Place) -> Row:
    """What knowing the base's levels could save of the flags and signs of differences: ideal adaptive code lengths.

    Flags say which differences are zero; contexts are the magnitude of the base's level, limited to 3, and its sign.
    """
    job, of = Task(unit, place, 0), unit.options["of"]
    base = codec.base_of((job.folder / base_file(unit, place, of)).read_bytes())
    bits = dict.fromkeys(("flag_bits", "flag_bits_in_context", "sign_bits", "sign_bits_in_context"), 0.0)
    for path in _differences(job, of):
        data = path.read_bytes()
        plan = codec.decode(data, codec.shapes(data, base=base), base=base)
        for name, entry in plan.clustered.items():
            below = base.plan[name] if entry.base is not None else None
            if not isinstance(below, Clustered):
                continue
            levels, under = entry.levels.flatten(), below.levels.flatten()
            flags, size = levels != 0, under.abs().clamp_max(3)
            bits["flag_bits"] += _ideal(flags, torch.zeros_like(size))
            bits["flag_bits_in_context"] += _ideal(flags, size)
            signs, side = levels[flags] < 0, under[flags].sign()
            bits["sign_bits"] += _ideal(signs, torch.zeros_like(side))
            bits["sign_bits_in_context"] += _ideal(signs, side)
    return bits | {"of": of}


def _ideal(flags: Tensor, contexts: Tensor) -> float:
    """Bits of an adaptive code that counts in each context (Krichevsky and Trofimov 1981)."""
    total = 0.0
    for value in contexts.unique():
        here = flags[contexts == value]
        ones, all_ = int(here.sum()), here.numel()
        total += lgamma(all_ + 1) + 2 * lgamma(0.5) - lgamma(ones + 0.5) - lgamma(all_ - ones + 0.5)
    return total / log(2)


TOGETHER: dict[str, Callable[[Unit, Place], Row]] = {
    "separate files": apart,
    "a joint base and differences": lambda unit, place: packed(unit, place, "joint"),
    "the shared network and differences": lambda unit, place: packed(unit, place, "shared"),
    "zstd with a dictionary": zipped,
    "itself": itself,
    "context": context,
}


def _separate(job: Task) -> list[Path]:
    return _files(job, "separate", separate)


def _differences(job: Task, of: str) -> list[Path]:
    return _files(job, named(of, job.options), lambda task: difference(task, of))


def _files(job: Task, name: str, make: Callable[[Task], Any]) -> list[Path]:
    """A file of each task; those of rows that another machine measured are made here."""
    paths = [job.folder / f"{name}{number}.few" for number in range(len(job.tasks))]
    for number, path in enumerate(paths):
        if not path.exists():
            make(Task(job.unit, job.place, number))
    return paths


def _raw(state: dict[str, Tensor]) -> bytes:
    return b"".join(t.float().numpy().tobytes() for n, t in state.items() if "num_batches" not in n)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
