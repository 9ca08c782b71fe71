"""The job behind ``assign: {method: int8}``: calibrate, train if asked to, freeze, write, read back, compare."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, fx, nn

from fewbits import codec
from fewbits.channel_masks import channels_of
from fewbits.errors import RecipeError
from fewbits.int8.form import affine_plan, calibrate, hold_affine, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.pipeline.restore import network_of, restore
from fewbits.plan import Plan
from fewbits.recipe import Recipe
from fewbits.recipe.training import Finetuning
from fewbits.report.method import method_of
from fewbits.report.report import Report
from fewbits.report.sizes import float_bytes, general_purpose, tensor_rows
from fewbits.train.kept import KeptTraining
from fewbits.train.loop import Callback, batches_of, endless, fit, optimizer_of, total_steps
from fewbits.train.objectives import objective_of
from fewbits.weights import layers, parameters_of

CALIBRATION = 16  # batches, unless assign.options.calibrate says otherwise


def quantize(
    model: nn.Module,
    train: Any,
    *,
    evaluate: Callable[[nn.Module], float] | None,
    recipe: Recipe,
    progress: Callable[[int, int, str], None] | None,
    accelerator: Accelerator,
    full: nn.Module | None = None,
    teacher: nn.Module | None = None,
    state_file: Path | None = None,
) -> tuple[Plan, bytes, Report]:
    """INT8 weights and activations: see :func:`fewbits.compress`, whose arguments these are.

    ``full`` is the network that the user gave, if ``model`` is what channel pruning left of it.

    With ``train.epochs: 0`` the network is only calibrated (post-training quantization).
    """
    begin = time.perf_counter()
    settings = recipe.train
    batches = _calibration(recipe)
    original = model.to(accelerator.device).eval()
    full = original if full is None else copy.deepcopy(full).to(accelerator.device).eval()
    before = evaluate(full) if evaluate else None
    net = integer_form(original, RangedQuantizer)
    calibrate(net, _inputs(train, batches, accelerator.device))
    hold_affine(net)
    steps = 0
    if settings.epochs:
        listened = full if teacher is None else copy.deepcopy(teacher).to(accelerator.device)
        kept = KeptTraining(
            state_file, recipe.model_dump_json(), accelerator, times=recipe.rounds,
            callback=_Told(progress, recipe.rounds), agree=partial(_agree, net, accelerator),
        )  # fmt: skip
        steps = _train(net, listened, train, settings, kept, accelerator)
    plan = affine_plan(net, channels=channels_of(original), floats=getattr(torch, recipe.floats))
    name = recipe.network.name if recipe.network else type(model).__name__
    data = codec.encode(plan, header={"model": name}, profile=recipe.coding)
    frozen = network_of(plan, full)
    after = evaluate(frozen) if evaluate else None
    decoded, _ = restore(data, full)
    inputs = next(_inputs(train, 1, accelerator.device))[:64]
    with torch.no_grad():
        identical = torch.equal(frozen(inputs), decoded(inputs))
    sizes = {row.name: row.coded_bytes for row in codec.inspect(data).tensors}
    rows = tensor_rows(plan, sizes)
    drop = None if before is None or after is None else before - after
    report = Report(
        model=name,
        data=recipe.data.name if recipe.data else "",
        method=method_of(recipe),
        tensors=rows,
        file_bytes=len(data),
        float_bytes=float_bytes({n: t for n, t in full.state_dict().items() if not n.endswith("_tracked")}),
        parameters=parameters_of(full),
        floats_bytes=len(data) - sum(row.bytes for row in rows),
        others=general_purpose(full.state_dict(), plan),
        accuracy_before=before,
        accuracy_after=after,
        identical=identical,
        max_drop=recipe.max_drop,
        met=None if recipe.max_drop is None or drop is None else drop <= recipe.max_drop,
        seed=recipe.seed,
        steps=steps,
        seconds=time.perf_counter() - begin,
        recipe=recipe.model_dump(by_alias=True, exclude_defaults=True),
    )
    return plan, data, report


def _calibration(recipe: Recipe) -> int:
    options = dict(recipe.assign.options)
    batches = options.pop("calibrate", CALIBRATION)
    if options:
        raise RecipeError(f"assign.options of int8: unknown option {next(iter(options))!r} (it has: calibrate)")
    if not isinstance(batches, int) or batches < 1:
        raise RecipeError(f"assign.options.calibrate is a number of batches from 1 on, got {batches!r}")
    return batches


def _inputs(train: Any, batches: int, device: torch.device) -> Iterator[Tensor]:
    for inputs, _ in islice(endless(train), min(batches, batches_of(train))):  # of the first epoch
        yield inputs.to(device)


@torch.no_grad()
def _agree(net: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the mean of the ranges, which each has from its own batches."""
    if accelerator.num_processes > 1:
        for module in net.modules():
            if isinstance(module, RangedQuantizer):
                for end in (module.low, module.high):
                    end.copy_(accelerator.reduce(end.detach(), reduction="mean"))


class _Told(Callback):
    """Reports progress."""

    def __init__(self, progress: Any, rounds: int) -> None:
        self.progress, self.rounds = progress, rounds

    def after_update(self, done: int, total: int, loss: float) -> None:
        if self.progress is not None and done * self.rounds // total > (done - 1) * self.rounds // total:
            self.progress(done, total, f"loss {loss:.3f}")


def _train(
    net: fx.GraphModule,
    teacher: nn.Module,
    train: Any,
    settings: Finetuning,
    kept: KeptTraining,
    accelerator: Accelerator,
) -> int:
    ranges = [m for m in net.modules() if isinstance(m, RangedQuantizer)]
    ends = []
    if settings.learn:
        for module in ranges:
            module.learn()
            ends += [(end, float(module.high.detach() - module.low.detach())) for end in (module.low, module.high)]
    weights = [layer.parametrizations.weight.original for layer in layers(net).values()]  # type: ignore[union-attr]
    taken = {id(p) for p in (*weights, *(end for end, _ in ends))}
    others = [p for p in net.parameters() if id(p) not in taken and p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": others, "lr": settings.lr_floats or settings.lr, "weight_decay": 0.0},
    ]
    for end, size in ends:
        if end.requires_grad:
            groups.append({"params": [end], "lr": settings.lr_step_size * size, "weight_decay": 0.0})
    objective, optimizer = objective_of(settings, teacher), optimizer_of(groups, settings)
    start = kept.begin(net, optimizer)
    fit(net, train, objective, optimizer, settings, callback=kept, accelerator=accelerator, start=start)
    return total_steps(train, settings)
