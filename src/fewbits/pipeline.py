"""The main job: a trained network in, a small file that decodes out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from fewbits import assign, checkpoint, codec
from fewbits import recipe as recipes
from fewbits.assign import State, Weights, with_curvatures
from fewbits.attach import attach, load_plan, merge_statistics, plan_of
from fewbits.channels import channel_stage, stage_file
from fewbits.errors import BudgetError, DataError, RecipeError
from fewbits.measure import RelevanceScorer, Scorer, control, curvature, mean_curvature
from fewbits.measure.relevance import Lens, rules_of, trace
from fewbits.plan import Plan
from fewbits.pruners import pruner_of
from fewbits.recipe import Recipe
from fewbits.report.report import Report, Round, float_bytes, general_purpose, tensor_rows
from fewbits.search import Fixed, Steering, TowardSize, WithinDrop
from fewbits.train.hold import AssignerAt, Holding, finetuning_groups
from fewbits.train.loop import fit, optimizer_of
from fewbits.train.objectives import Objective, distillation, task
from fewbits.weights import parameters_of, select

Evaluate = Callable[[nn.Module], float]
"""``evaluate(model) -> percent``; on validation data, because choices are made with it."""

CURVATURE_BATCHES = 16  # of which the layers' curvature is taken, for assign.options.scale: marginal

Progress = Callable[[int, int, str], None]
"""``progress(steps done, steps in total, one line of text)``."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed network: its plan, its file, and the report about both."""

    plan: Plan
    data: bytes
    report: Report

    def save(self, path: str | Path) -> None:
        """Write the file: beside the target first, then renamed into place.

        Raises:
            FileError: it cannot be written; a file that was there stays intact.
        """
        codec.write(path, self.data)

    def into(self, model: nn.Module) -> nn.Module:
        """Give ``model`` (of the same class) the compressed tensors, and return it in evaluation mode."""
        load_plan(model, self.plan)
        return model.eval()


def compress(
    model: nn.Module,
    train: Any,
    *,
    evaluate: Evaluate | None = None,
    recipe: Recipe | str | Path = "ecqx-4bit",
    target: str | int | None = None,
    max_drop: float | None = None,
    state_file: str | Path | None = None,
    keep_state: bool = False,
    progress: Progress | None = None,
    accelerator: Accelerator | None = None,
) -> Compressed:
    """Make a trained classifier as small as a budget asks for. The model given is not changed.

    Args:
        model: a float network: one input tensor, ``[n, classes]`` scores.
        train: batches of ``(inputs, class indices)`` with a length: a ``DataLoader`` or a list.
        evaluate: accuracy in percent of a network, on validation data. Needed for ``max_drop``, and for the
            accuracies in the report.
        recipe: a :class:`~fewbits.recipe.Recipe`, a YAML file, or the name of one that comes with fewbits.
        target: bytes of the file, for example ``"200 KB"``; overrides the recipe's.
        max_drop: points of accuracy that may be lost; overrides the recipe's.
        state_file: where the state is kept at every round. If the file exists, the run goes on from there (this
            needs a ``train`` whose order is reproducible, as fewbits' own loaders are). Removed at the end.
        keep_state: leave the state file at the end; whoever asks for this removes it once the result is safe.
        progress: called after every round.
        accelerator: where to run; default: made from the environment.

    Raises:
        SelectionError, NonFiniteError, UnsupportedError: the network cannot be compressed; the message names
            the layer. DataError: no batches, or targets that do not fit. RecipeError: an impossible option.
        BudgetError: the target cannot be reached whatever is given up.
    """
    chosen = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    if target is not None or max_drop is not None:
        steer: dict[str, Any] = {"target": target, "max_drop": max_drop}
        chosen = chosen.updated(**steer, assign=chosen.assign.model_dump() | {"lam": None})
    with torch.random.fork_rng():
        torch.manual_seed(chosen.seed)
        place = Path(state_file) if state_file is not None else None
        accelerator = accelerator or Accelerator()
        narrowed = channel_stage(model, train, chosen, place, progress=progress, accelerator=accelerator)
        torch.manual_seed(chosen.seed)
        run = _Run(narrowed, train, evaluate, chosen, place, progress, accelerator, full=model)
        compressed = run.go()
        if place is not None and not keep_state and run.accelerator.is_main_process:
            place.unlink(missing_ok=True)
            stage_file(place).unlink(missing_ok=True)
        return compressed


class _Run:
    def __init__(
        self,
        model: nn.Module,
        train: Any,
        evaluate: Evaluate | None,
        recipe: Recipe,
        state_file: Path | None,
        progress: Progress | None,
        accelerator: Accelerator,
        full: nn.Module,
    ) -> None:
        self.recipe, self.train, self.evaluate = recipe, train, evaluate
        self.state_file, self.progress, self.accelerator = state_file, progress, accelerator
        if recipe.max_drop is not None and evaluate is None:
            raise RecipeError("max_drop needs evaluate: a function that gives a network's accuracy in percent")
        self.original = copy.deepcopy(model).to(accelerator.device)
        self.original.eval()
        select(self.original, recipe.select.include, recipe.select.exclude)
        # What the user gave, against which everything is told; `original` may have lost channels.
        self.full = copy.deepcopy(full).to(accelerator.device).eval()
        self.plain = copy.deepcopy(self.original)  # candidates are loaded into this one
        self.model = copy.deepcopy(self.original)
        self.lens: Lens | None = trace(self.model) if self._measured == "relevance" else None
        self.before: float | None = None
        self.history: list[Round] = []
        self.best: tuple[Plan, float] | None = None
        self.steering: Steering

    @property
    def _measured(self) -> str | None:
        return self.recipe.measure.name if self.recipe.assign.method == "ecqx" else None

    def go(self) -> Compressed:
        begin = time.perf_counter()
        settings = self.recipe.train
        saved = self._saved()
        assigner_at = self._assigners()
        weights = select(self.model, self.recipe.select.include, self.recipe.select.exclude)
        pruner_at = pruner_of(self.recipe, parameters_of(self.original))
        if pruner_at is not None:  # a floor that the final sparsity does not allow is refused now, not half-way
            pruner_at(1.0).update(weights, None, pruner_at(1.0).init(weights))
        state = self._initial(assigner_at, weights, saved is None)
        plan, state = assigner_at(0.0, 0.0).update(weights, None, state)
        attach(self.model, plan, learn=settings.learn)
        holding = Holding(
            self.model, assigner_at, state, 0.0, scorer=self._scorer(), every=self.recipe.measure.every,
            settings=settings, accelerator=self.accelerator, on_round=self._round, rounds=self.recipe.rounds,
        )  # fmt: skip
        optimizer = optimizer_of(finetuning_groups(self.model, settings), settings)
        self.optimizer = optimizer
        if saved is None:
            self.before = self._agreed(self.evaluate(self.full)) if self.evaluate else None
            self.steering = self._steer()
            self._first(holding)
        else:
            self.before = saved["before"]
            self.steering = self._steer()
            self._resume(holding, optimizer, saved)
        if plan or self.recipe.channels is None:  # else channels are all there was to remove, and it is done
            fit(
                self.model, self.train, self._objective(), optimizer, settings,
                companion=holding, accelerator=self.accelerator, start=holding.steps,
            )  # fmt: skip
        return self._finish(holding, time.perf_counter() - begin)

    # -- parts chosen by the recipe ------------------------------------------------------------------

    def _assigners(self) -> AssignerAt:
        part = self.recipe.assign
        makers: dict[str, Callable[..., assign.Assigner]] = {
            "ecq": assign.ecq, "ecqx": assign.ecqx, "ternary": assign.ternary,
        }  # fmt: skip
        fixed = {} if part.method == "ternary" else {"bits": part.bits}
        pruner_at = pruner_of(self.recipe, parameters_of(self.original))

        def at(lam: float, share: float) -> assign.Assigner:
            if part.method == "none":
                return assign.nothing() if pruner_at is None else pruner_at(share)
            quantizer = makers[part.method](lam=lam, **fixed, **part.options)
            return quantizer if pruner_at is None else assign.chain(pruner_at(share), quantizer)

        try:
            at(0.0, 0.0)
        except TypeError as error:
            raise RecipeError(f"assign.options of {part.method}: {error}") from None
        return at

    def _initial(self, assigner_at: AssignerAt, weights: Weights, afresh: bool) -> State:
        state = assigner_at(0.0, 0.0).init(weights)
        if self.recipe.assign.options.get("scale") != "marginal":
            return state
        if not afresh:  # the saved state, which takes this one's place, knows them
            return with_curvatures(state, dict.fromkeys(state.layers, 1.0))
        part = self.recipe.select
        measured = curvature(
            self.original,
            islice(self.train, CURVATURE_BATCHES),
            per="layer",
            include=part.include,
            exclude=part.exclude,
            seed=self.recipe.seed,
        )
        found = [mean_curvature(measured, select(self.original))]
        broadcast_object_list(found)
        return with_curvatures(state, {name: found[0][name] for name in state.layers})

    def _scorer(self) -> Scorer | None:
        part = self.recipe.measure
        if self._measured is None:
            return None
        if self.lens is None:
            return control(part.name, self.recipe.seed)
        rules = replace(rules_of(part.rules), precision=part.precision, absolute=part.absolute)
        return RelevanceScorer(self.model, self.lens, rules, start=part.start, on=part.on, samples=part.samples)

    def _objective(self) -> Objective:
        settings = self.recipe.train
        if settings.distill:
            return distillation(self.full, settings.distill, settings.temperature, settings.label_smoothing)
        return task(settings.label_smoothing)

    def _steer(self) -> Steering:
        r = self.recipe
        if r.max_drop is not None:
            assert self.before is not None
            return WithinDrop(self.before - r.max_drop, r.target_bytes)
        if r.target_bytes is not None:
            return TowardSize(r.target_bytes, r.train.arrive)
        if r.assign.method == "none":
            return Fixed(0.0)
        return Fixed(0.05 if r.assign.lam is None else r.assign.lam)

    # -- rounds ---------------------------------------------------------------------------------------

    def _candidate(self) -> Plan:
        """The plan that would be written if training ended here."""
        model = copy.deepcopy(self.model)
        if self.recipe.merge_normalisation:
            merge_statistics(model)
        return plan_of(model, floats=getattr(torch, self.recipe.floats))

    def _size_at(self, holding: Holding, base: Plan) -> Callable[[float], int]:
        known: dict[float, int] = {}

        def size_at(lam: float) -> int:
            if lam not in known:
                plan, _ = holding.plan_at(lam)
                known[lam] = len(self._encode(base.updated(plan)))
            return known[lam]

        return size_at

    def _encode(self, plan: Plan) -> bytes:
        return codec.encode(plan, header={"model": self._name}, profile=self.recipe.coding)

    @property
    def _name(self) -> str:
        return self.recipe.network.name if self.recipe.network else type(self.original).__name__

    def _accuracy(self, plan: Plan) -> float:
        assert self.evaluate is not None
        load_plan(self.plain, plan)
        return self._agreed(self.evaluate(self.plain))

    def _first(self, holding: Holding) -> None:
        base = self._candidate()
        size = len(self._encode(base))
        accuracy = self._accuracy(base) if self.steering.needs_accuracy else None
        lam = self.steering.next(0.0, size, accuracy, self._size_at(holding, base))
        self._note(holding, base, size, accuracy, 0)
        holding.take(self._agreed(lam))

    def _round(self, holding: Holding, done: int, total: int) -> None:
        base = self._candidate()
        size = len(self._encode(base))
        accuracy = self._accuracy(base) if self.steering.needs_accuracy else None
        self._note(holding, base, size, accuracy, done)
        if not holding.settled:
            size_at = self._size_at(holding, base)
            if done >= round(total * (1 - self.recipe.train.settle)) or done == total:
                holding.share = 1.0  # a schedule of pruning is over, to the weight
                holding.take(self._agreed(self.steering.final(size_at)))
                holding.settled = True
            else:
                holding.take(self._agreed(self.steering.next(done / total, size, accuracy, size_at)))
        if self.progress is not None:
            self.progress(done, total, self._line(holding))
        if self.state_file is not None and done < total:
            self._save(holding)

    def _note(self, holding: Holding, plan: Plan, size: int, accuracy: float | None, done: int) -> None:
        kept = [entry.kept for entry in plan.compressed.values()]
        zeros = 1 - sum(int(k.sum()) for k in kept) / max(1, sum(k.numel() for k in kept))
        self.history.append(Round(done, holding.lam, size, zeros, accuracy))
        if accuracy is None or self.before is None or self.recipe.max_drop is None:
            return
        prune = self.recipe.prune
        if prune is not None and prune.schedule != "one-shot" and holding.share < prune.end:
            return  # not yet as sparse as was asked for
        within = accuracy >= self.before - self.recipe.max_drop
        fits = self.recipe.target_bytes is None or size <= self.recipe.target_bytes
        if within and fits and (self.best is None or size < len(self._encode(self.best[0]))):
            self.best = plan, accuracy

    def _line(self, holding: Holding) -> str:
        last = self.history[-1]
        parts = [f"{last.bytes} bytes", f"{100 * last.zeros:.1f} % zeros", f"loss {holding.loss:.3f}"]
        if last.accuracy is not None:
            parts.append(f"{last.accuracy:.2f} %")
        return ", ".join(parts)

    # -- the end --------------------------------------------------------------------------------------

    def _finish(self, holding: Holding, seconds: float) -> Compressed:
        plan = self._within_target(holding)
        accuracy = self._accuracy(plan) if self.evaluate else None
        if self.best is not None:
            assert self.before is not None
            assert self.recipe.max_drop is not None
            assert accuracy is not None
            kept = accuracy >= self.before - self.recipe.max_drop
            if not kept or len(self._encode(self.best[0])) < len(self._encode(plan)):
                plan, accuracy = self.best
        data = self._encode(plan)
        summary = codec.inspect(data)
        sizes = {section.name: section.coded_bytes for section in summary.tensors}
        rows = tensor_rows(plan, sizes)
        original = {n: t for n, t in self.full.state_dict().items() if n in plan}
        report = Report(
            model=self._name,
            data=self.recipe.data.name if self.recipe.data else "",
            method=self._method(),
            tensors=rows,
            file_bytes=len(data),
            float_bytes=float_bytes(original),
            parameters=parameters_of(self.original),
            floats_bytes=len(data) - sum(row.bytes for row in rows),
            others=general_purpose(original, plan),
            accuracy_before=self.before,
            accuracy_after=accuracy,
            identical=self._identical(plan, data),
            target=self.recipe.target_bytes,
            max_drop=self.recipe.max_drop,
            met=self._met(len(data), accuracy),
            seed=self.recipe.seed,
            steps=holding.steps,
            seconds=seconds,
            history=tuple(self.history),
            recipe=self.recipe.model_dump(by_alias=True, exclude_defaults=True),
        )
        return Compressed(plan, data, report)

    def _method(self) -> str:
        parts = []
        prune, channels = self.recipe.prune, self.recipe.channels
        if channels is not None:
            parts.append(f"{channels.left:g} of {channels.over} by {channels.criterion}")
        if prune is not None:
            floor = f" with floor {prune.floor}" if prune.floor else ""
            parts.append(f"{prune.method} {prune.pattern or prune.sparsity}{floor}")
        method = self.recipe.assign.method
        if method == "ecqx" and self.recipe.measure.name != "relevance":
            parts.append(f"ecqx with {self.recipe.measure.name}")
        elif method != "none":
            parts.append(method)
        return " + ".join(parts)

    def _within_target(self, holding: Holding) -> Plan:
        """The plan as it stands; should settled floats have grown past the target, a slightly sparser one."""
        plan = self._candidate()
        target = self.recipe.target_bytes
        if target is None or isinstance(self.steering, WithinDrop):
            return plan
        goal = float(target)
        for _ in range(8):
            if len(self._encode(plan)) <= target:
                return plan
            goal *= 0.997
            self.steering = TowardSize(int(goal))
            holding.take(self._agreed(self.steering.final(self._size_at(holding, plan))))
            plan = self._candidate()
        raise BudgetError(f"the file stays above {target} bytes ({len(self._encode(plan))}); ask for a little more")

    def _met(self, size: int, accuracy: float | None) -> bool | None:
        target, drop = self.recipe.target_bytes, self.recipe.max_drop
        if target is None and drop is None:
            return None
        within = drop is None or (accuracy is not None and self.before is not None and accuracy >= self.before - drop)
        return within and (target is None or size <= target)

    @torch.no_grad()
    def _identical(self, plan: Plan, data: bytes) -> bool:
        """Decode the file and compare its network's outputs on real inputs with the compressed network's."""
        inputs = self._some_inputs()
        load_plan(self.plain, plan)
        expected = self.plain.eval()(inputs)
        decoded = copy.deepcopy(self.full)
        load_plan(decoded, codec.decode(data, like=decoded))
        return torch.equal(expected, decoded.eval()(inputs))

    def _some_inputs(self) -> Tensor:
        for inputs, _ in self.train:
            return inputs[:64].to(next(self.plain.parameters()).device)
        raise DataError("the training data is empty: the loader yields no batch")

    def _agreed(self, value: float) -> float:
        """The main process's number on every process: rounding must not lead to different plans."""
        found = [value]
        broadcast_object_list(found)
        return found[0]

    # -- interruption -----------------------------------------------------------------------------------

    def _saved(self) -> dict[str, Any] | None:
        """The state of an interrupted run, as the main process reads it; the others may not see its disk."""
        if self.state_file is None:
            return None
        main = self.accelerator.is_main_process
        found = [checkpoint.load(self.state_file, self.recipe.model_dump_json()) if main else None]
        broadcast_object_list(found)
        saved, processes = found[0], self.accelerator.num_processes
        if saved is not None and saved["processes"] != processes:
            raise DataError(
                f"{self.state_file} was begun with {saved['processes']} processes, now there are {processes}; "
                "use as many again, or delete it to start anew"
            )
        return saved

    def _save(self, holding: Holding) -> None:
        assert self.state_file is not None
        if not self.accelerator.is_main_process:
            return
        checkpoint.save(
            self.state_file,
            {
                "recipe": self.recipe.model_dump_json(),
                "processes": self.accelerator.num_processes,
                "before": self.before,
                "steps": holding.steps,
                "lam": holding.lam,
                "share": holding.share,
                "settled": holding.settled,
                "state": checkpoint.pack(holding.state),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "steering": vars(self.steering),
                "history": [vars(r) for r in self.history],
                "best": None if self.best is None else (self._encode(self.best[0]), self.best[1]),
                "random": torch.get_rng_state(),
                "scorer": holding.scorer.state() if holding.scorer is not None else None,
            },
        )

    def _resume(self, holding: Holding, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        holding.state = checkpoint.unpack(saved["state"])
        holding.steps, holding.share = saved["steps"], saved["share"]
        holding.lam, holding.settled = saved["lam"], saved["settled"]
        vars(self.steering).update(saved["steering"])
        self.history = [Round(**r) for r in saved["history"]]
        if saved["best"] is not None:
            data, accuracy = saved["best"]
            self.best = codec.decode(data, like=self.original), accuracy
        torch.set_rng_state(saved["random"])
        if holding.scorer is not None:
            holding.scorer.restore(saved["scorer"])


def load(path: str | Path, like: nn.Module) -> nn.Module:
    """Read a ``.few`` file into ``like``, an untrained network of the same class; returns it in evaluation mode.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or a file of another network (MismatchError).
    """
    load_plan(like, codec.decode(codec.read(path), like=like))
    return like.eval()
