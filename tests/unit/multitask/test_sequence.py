"""One task after the other: what is forgotten, and what keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError
from fewbits.multitask import (
    EWC,
    KEEPING,
    Keeping,
    OverTime,
    PackNet,
    Replay,
    ScoredTraining,
    SegmentNet,
    Tasks,
    branched_paths,
    keeping_of,
    train_in_sequence,
    train_tasks,
)
from fewbits.recipe.training import Training
from fewbits.task import Classification
from fewbits.train import KeptTraining, Store
from tests.task_networks import CLASSES, NAMES, loaders, net, paths

TRAINING = Training(epochs=2, lr=2e-2, weight_decay=1e-2)
X = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(7))


def one_layer() -> SegmentNet:
    """One linear map for all tasks, whose classes lie in another order in each: they contradict each other."""
    torch.manual_seed(0)
    heads = {name: nn.Identity() for name in NAMES}
    return SegmentNet(lambda layer: nn.Linear(36, CLASSES), branched_paths(NAMES, 1, [0]), heads, stem=nn.Flatten())


def forgetting(keeping: Keeping, made: SegmentNet | None = None, **options: Any) -> OverTime:
    made = one_layer() if made is None else made
    training = Training(epochs=8, lr=3e-2)
    data = loaders(batches=6)
    return train_in_sequence(
        made, data, training, seed=0, evaluate=loaders(batches=6, seed=1), keeping=keeping, **options
    )


@given(st.integers(1, 5), st.data())
def test_forgetting_and_backward_transfer_are_their_formulas(count: int, data: st.DataObject) -> None:
    names = tuple(f"t{i}" for i in range(count))
    score = st.floats(0, 100)
    r = [[data.draw(score) for _ in names] for _ in names]
    found = OverTime(names, tuple(map(tuple, r)), tuple(range(count)))
    total = 0.0
    for i in range(count - 1):
        total += r[count - 1][i] - r[i][i]
    assert found.backward_transfer == (pytest.approx(total / (count - 1), abs=1e-9) if count > 1 else None)
    worst = [max(r[t][i] for t in range(count)) - r[count - 1][i] for i in range(count)]
    assert found.forgetting == pytest.approx(sum(worst) / count, abs=1e-9)
    assert found.last == dict(zip(names, r[-1], strict=True))
    assert OverTime(names, tuple(map(tuple, r))).backward_transfer is None


def test_scores_of_other_tasks_are_no_matrix() -> None:
    for rows in ((), ((1.0,),)):
        with pytest.raises(DataError, match="2 tasks"):
            OverTime(("a", "b"), rows)


def test_a_plain_sequence_is_training_on_one_task_after_the_other() -> None:
    made, twin, data = net(), net(), loaders()
    found = train_in_sequence(made, data, TRAINING, seed=5, evaluate=data)
    aim = Tasks({name: Classification() for name in NAMES})
    for number, name in enumerate(NAMES):
        train_tasks(twin, {name: data[name]}, TRAINING, seed=5 + number)
        for column, other in enumerate(NAMES):
            right = [(twin.eval()(x, other).argmax(1) == y).float() for x, y in data[other]]
            assert found.scores[number][column] == pytest.approx(100 * float(torch.cat(right).mean()))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name
    assert list(aim.names) == list(found.tasks)
    assert found.learnt == (0, 1, 2)


def test_tasks_that_contradict_each_other_are_forgotten_and_kept() -> None:
    plain = forgetting(Keeping())
    assert plain.backward_transfer is not None
    assert plain.backward_transfer < -40, plain
    assert plain.scores[0][0] > 80
    for keeping in (Replay(96, batch=64), EWC(3000.0)):
        kept = forgetting(keeping)
        assert kept.backward_transfer is not None
        assert kept.backward_transfer > plain.backward_transfer + 15, (type(keeping), kept)
    packed = forgetting(PackNet())
    assert packed.backward_transfer == 0.0
    assert packed.scores[0][0] > 80


def by_hand(made: SegmentNet, name: str, data: list[tuple[Tensor, Tensor]], samples: int) -> dict[str, Tensor]:
    """The mean over samples of squared gradients, parameter by parameter."""
    x, y = (torch.cat(part)[:samples] for part in zip(*data, strict=True))
    made.eval()
    sums = {key: torch.zeros_like(p) for key, p in made.named_parameters()}
    for i in range(len(x)):
        made.zero_grad()
        F.cross_entropy(made(x[i : i + 1], name), y[i : i + 1]).backward()
        for key, p in made.named_parameters():
            if p.grad is not None:
                sums[key] += p.grad**2 / len(x)
    made.zero_grad()
    return sums


def test_ewc_is_its_formula() -> None:
    """The gradient of the penalty after two tasks is that of the paper's sum over tasks."""
    made, data, keeping = net(), loaders(), EWC(7.0, samples=20)
    aim = Tasks({name: Classification() for name in NAMES})
    assert keeping.penalty(made, aim) is None
    held = []
    for number, name in enumerate(NAMES[:2]):
        with torch.no_grad():
            for p in made.parameters():
                p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
        held.append((by_hand(made, name, data[name], 20), {k: p.detach().clone() for k, p in made.named_parameters()}))
        keeping.end(made, name, aim, data[name])
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(1.1)
    penalty = keeping.penalty(made, aim)
    assert penalty is not None
    penalty().backward()
    for key, p in made.named_parameters():
        wanted = 7.0 * sum(fisher[key] * (p.detach() - mean[key]) for fisher, mean in held)
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(grad, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"norm": "task", "shared_head": True}, {"shared_head": True}], ids=str)
def test_packnet_changes_no_bit_of_what_was_learnt(options: dict[str, Any]) -> None:
    made, data, keeping = net(**options), loaders(), PackNet()
    before: dict[str, Tensor] = {}

    class Looking(PackNet):
        def end(self, net: SegmentNet, task: str, aim: Any, batches: Any) -> None:
            super().end(net, task, aim, batches)
            with self.seen_as(net.eval(), task):
                before[task] = net(X, task)

    keeping = Looking()
    training = Training(epochs=2, lr=2e-2, weight_decay=1e-2, optimizer="sgd")
    found = train_in_sequence(made, data, training, seed=5, evaluate=data, keeping=keeping)
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made.eval()
    for name in NAMES:
        with keeping.seen_as(made, name):
            assert torch.equal(made(X, name), before[name]), name
    assert not torch.equal(made(X, NAMES[0]), before[NAMES[0]]), "later tasks did learn"
    for name, tensor in state.items():
        assert torch.equal(made.state_dict()[name], tensor), name
    assert found.backward_transfer == 0.0
    users = paths().users()
    for name, owner in keeping.state["owners"].items():
        place = (int(name.split(".")[1]), int(name.split(".")[2]))
        counts = [int((owner == NAMES.index(task) + 1).sum()) for task in users[place]]
        assert max(counts) - min(counts) <= 1, "each gets as many"
        assert sum(counts) == owner.numel(), "and all is shared out"
        assert {int(number) for number in owner.unique()} == {NAMES.index(task) + 1 for task in users[place]}


def test_packnet_keeps_the_largest_of_what_is_free() -> None:
    made, keeping = one_layer(), PackNet(0.25)
    sizes: list[Tensor] = []

    class Stopping(KeptTraining):
        def after_update(self, done: int, total: int, loss: float) -> None:
            sizes.append(made.segment(0, 0).weight.detach().abs().clone())  # type: ignore[operator, union-attr]
            super().after_update(done, total, loss)
            sizes.append(made.segment(0, 0).weight.detach().abs().clone())  # type: ignore[operator, union-attr]

    kept = Stopping(Store(None, "", Accelerator()), "x", callback=keeping.begin(made, "cars", NAMES))
    train_tasks(made, {"cars": loaders()["cars"]}, Training(epochs=2, lr=1e-2), seed=0, kept=kept)
    (owner,) = keeping.state["owners"].values()
    pruned = 2 * 3  # half of six steps, with two looks at each
    assert int((owner == 1).sum()) == round(0.25 * 108)
    assert sizes[pruned - 2][owner == 1].min() >= sizes[pruned - 2][owner == 0].max()
    assert not sizes[pruned - 1][owner == 0].any()
    assert not sizes[-1][owner == 0].any()
    assert not torch.equal(sizes[-1], sizes[pruned - 1]), "the others go on learning"


class Stopped(Exception):  # noqa: N818 - it is none
    pass


@pytest.mark.parametrize(
    "name", ["packnet", *(pytest.param(name, marks=pytest.mark.long) for name in list(KEEPING)[:-1])]
)
def test_an_interrupted_sequence_goes_on_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"samples": 8} if name in ("replay", "ewc") else {}
    whole, data = net(), loaders()
    wanted = train_in_sequence(whole, data, TRAINING, seed=5, evaluate=data, keeping=keeping_of(name, **options))
    seen, real = [0], KeptTraining.after_update

    def after_update(self: KeptTraining, done: int, total: int, loss: float) -> None:
        real(self, done, total, loss)
        seen[0] += 1
        if seen[0] in (5, 9, 12):  # before the smallest go, after, and behind the next task's
            raise Stopped

    monkeypatch.setattr(KeptTraining, "after_update", after_update)
    stops = 0
    while True:
        made, store = net(), Store(tmp_path / "state", "x", Accelerator())
        keeping = keeping_of(name, **options)
        try:
            found = train_in_sequence(made, data, TRAINING, seed=5, evaluate=data, keeping=keeping, store=store)
            break
        except Stopped:
            stops += 1
    assert stops == 3
    assert seen[0] < 3 * 6 + 3 * 6, "it went on, and did not begin anew"
    assert found == wanted
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[key]), key


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="no way of keeping is called 'ewcs'; did you mean 'ewc'"):
        keeping_of("ewcs")
    for make in (lambda: Replay(0), lambda: EWC(-1.0), lambda: PackNet(0.0), lambda: PackNet(prune_at=1.0)):
        with pytest.raises(RecipeError):
            make()
    with pytest.raises(RecipeError, match="give the same"):
        train_in_sequence(net(), loaders(), TRAINING, seed=0, evaluate=loaders(NAMES[:2]))


def test_tasks_in_parallel_are_scored_while_they_are_trained(tmp_path: Path) -> None:
    """The last row is what an evaluation gives afterwards, and evaluating changes no bit of the training."""
    aim, data = Tasks({name: Classification() for name in NAMES}), loaders()

    def kept(path: Path | None, kind: type[ScoredTraining] = ScoredTraining) -> ScoredTraining:
        return kind(Store(path, "x", Accelerator()), "tasks", aim, loaders(seed=1), points=3)

    made, twin, scored = net(), net(), kept(None)
    train_tasks(made, data, TRAINING, seed=5, kept=scored)
    train_tasks(twin, data, TRAINING, seed=5)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name
    found = scored.over_time
    assert len(found.scores) == 3
    assert found.learnt is None
    for name in NAMES:
        right = [(made.eval()(x, name).argmax(1) == y).float() for x, y in loaders(seed=1)[name]]
        assert found.last[name] == pytest.approx(100 * float(torch.cat(right).mean()))

    class Stopping(ScoredTraining):
        def after_update(self, done: int, total: int, loss: float) -> None:
            super().after_update(done, total, loss)
            if done == 12:
                raise Stopped

    again = net()
    with pytest.raises(Stopped):
        train_tasks(again, data, TRAINING, seed=5, kept=kept(tmp_path / "state", Stopping))
    last, again = kept(tmp_path / "state"), net()
    train_tasks(again, data, TRAINING, seed=5, kept=last)
    assert last.over_time == found


class Whole(nn.Module):
    """A block whose normalisation is of whole images, with a weight of three dimensions."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1 if layer == 0 else 4, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 6, 6])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


def test_packing_leaves_alone_what_is_frozen_and_normalisation() -> None:
    torch.manual_seed(0)
    heads = {name: nn.Sequential(nn.Flatten(), nn.Linear(144, CLASSES)) for name in NAMES}
    stem = nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
    made = SegmentNet(Whole, branched_paths(NAMES, 1, [0]), heads, stem=stem)
    frozen = stem.weight.clone()
    train_in_sequence(made, loaders(), TRAINING, seed=0, evaluate=loaders(), keeping=PackNet())
    assert torch.equal(stem.weight, frozen)
    (norm,) = [part for part in made.modules() if isinstance(part, nn.LayerNorm)]
    assert norm.weight.count_nonzero() == norm.weight.numel()


def test_a_task_that_comes_later_is_packed_beside_old_ones_that_stay_to_the_bit() -> None:
    made = net(branched_paths(NAMES[:2], 2, [0]), seed=1)
    before = [made.eval()(X, name).detach() for name in NAMES[:2]]
    made.add("flowers", made.path("cars"), nn.Linear(16, CLASSES))
    data = {"flowers": loaders()["flowers"]}
    train_in_sequence(made, data, TRAINING, seed=0, evaluate=data, keeping=PackNet(keep=0.5))
    for name, outputs in zip(NAMES, before, strict=False):
        assert torch.equal(made.eval()(X, name), outputs)
    with pytest.raises(RecipeError, match="task 'cars' uses is frozen: leave its data out"):
        train_tasks(made, loaders(), TRAINING, seed=0)


@pytest.mark.parametrize("rule", ["forward-gradient", "hebbian", "mono-forward"])
@pytest.mark.parametrize("keeping", [Replay(), EWC(), PackNet()])
def test_a_rule_that_does_not_follow_the_whole_loss_is_refused(rule: str, keeping: Keeping) -> None:
    training = Training.model_validate({"epochs": 1, "rule": rule})
    with pytest.raises(RecipeError, match=r"learns from outputs alone; .*: backprop, feedback-alignment"):
        train_in_sequence(net(), loaders(), training, seed=0, evaluate=loaders(), keeping=keeping)
