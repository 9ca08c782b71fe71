"""What each process of ``test_two_processes.py`` does: compress, and leave what it saw in a folder."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fewbits as fb
from fewbits import cli
from fewbits.assign.selection import Shards, chosen, smallest
from fewbits.data import digits
from fewbits.recipe import make
from fewbits.recipe.training import Training
from fewbits.task import accuracy
from fewbits.train import pretrain

torch.set_num_threads(1)


def network() -> nn.Module:
    """With normalisation, whose statistics differ between processes, and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 10),
    )


def main(out: Path) -> None:
    accelerator = Accelerator()
    rank = accelerator.process_index
    data = digits()
    torch.manual_seed(0)
    model = network()
    pretrain(model, data.loader("train", 32, shuffle=True), Training(epochs=4, lr=1e-2), seed=0)
    trained = torch.cat([t.double().flatten() for t in model.state_dict().values()])

    positions: list[int] = []
    loader = data.loader("train", 32, shuffle=True, seed=1)
    fetch = type(loader.dataset).__getitems__

    def watched(self: Any, wanted: list[int]) -> Any:
        if self is loader.dataset:
            positions.extend(wanted)
        return fetch(self, wanted)

    type(loader.dataset).__getitems__ = watched  # type: ignore[attr-defined, method-assign]
    common: dict[str, Any] = {"rounds": 4, "assign": {"options": {"zero_floor": 0.5, "step_rule": "rate"}}}
    small = fb.compress(
        model,
        loader,
        evaluate=lambda net: accuracy(net, data.loader("validation", 256)),
        recipe=make(common | {"train": {"epochs": 2, "lr": 5e-3, "learn": True, "clip": 5.0}, "max_drop": 4.0}),
    )
    small.save(out / f"steered-{rank}.few")

    inputs, targets = data.train.inputs, data.train.targets
    batches = [(inputs[i : i + 100], targets[i : i + 100]) for i in range(0, 500, 100)]  # an odd number
    listed = fb.compress(
        model, batches, recipe=make(common | {"train": {"epochs": 2}, "measure": {"samples": 8}, "target": "900 B"})
    )
    listed.save(out / f"listed-{rank}.few")

    prune = {"sparsity": 0.8, "schedule": "cubic", "min_kept": 10}
    train = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}
    few = fb.compress(model, batches, recipe=make({"prune": prune, "assign": {"method": "none"}, "train": train}))
    few.save(out / f"pruned-{rank}.few")

    channels = {"macs": 0.5, "train": {"epochs": 2}, "samples": 200}
    less = fb.compress(model, batches, recipe=make({"channels": channels, "assign": {"method": "none"}}))
    less.save(out / f"narrowed-{rank}.few")

    integers = make({"assign": {"method": "int8"}, "train": {"epochs": 2, "lr": 1e-3}, "rounds": 4})
    whole = fb.compress(model, batches, recipe=integers)
    whole.save(out / f"integers-{rank}.few")

    own = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(own.parameters(), 1e-3)
    with fb.compressing(own, make(common), target="900 B", steps=8, optimizer=optimizer) as job:
        wrapped = DistributedDataParallel(own)
        for x, y in [*batches[rank::2][:2]] * 4:
            nn.functional.cross_entropy(wrapped(x), y).backward()
            job.after_backward(y)
            optimizer.step()
            optimizer.zero_grad()
            job.after_step()
        job.finish().save(out / f"own_loop-{rank}.few")

    def interrupt(done: int, total: int, line: str) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        fb.compress(model, batches, recipe=integers, state_file=out / "integers.state", progress=interrupt)
    accelerator.wait_for_everyone()
    kept = (out / "integers.state").exists()
    accelerator.wait_for_everyone()
    gone_on = fb.compress(model, batches, recipe=integers, state_file=out / "integers.state")
    gone_on.save(out / f"gone_on-{rank}.few")

    # Each process has half of every tensor; together they find the mask that one would find.
    weights = [torch.randn(n, generator=torch.Generator().manual_seed(n)).mul(8).round() for n in (1000, 37)]
    halves = [w.tensor_split(2)[rank] for w in weights]
    cuts = smallest(halves, 700, limits=[690, 30], shards=Shards.over(accelerator))
    pruned = [chosen(half, cut).int().tolist() for half, cut in zip(halves, cuts, strict=True)]

    (out / f"{rank}.json").write_text(
        json.dumps(
            {
                "processes": accelerator.num_processes,
                "trained": trained.sum().item(),
                "before": small.report.accuracy_before,
                "after": small.report.accuracy_after,
                "met": small.report.met,
                "identical": small.report.identical,
                "steps": small.report.steps,
                "listed_steps": listed.report.steps,
                "positions": sorted({p for p in positions if p < len(data.train)}),
                "samples": len(data.train),
                "pruned": pruned,
                "kept": kept,
            }
        )
    )
    sys.argv = ["fewbits", "compress", str(out / "recipe.yaml"), "--out", str(out / "job")]
    cli.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
