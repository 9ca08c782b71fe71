"""Training under masks: momentum, weight decay, schedules, interruption, and repair without training."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import fewbits as fb
from fewbits.assign import Assigner, chain, ecq, feather, global_magnitude, rising
from fewbits.attach import attach, background, held, plan_of
from fewbits.channels.load import load_plan
from fewbits.errors import MismatchError, RecipeError
from fewbits.recipe import make
from fewbits.recipe.training import Finetuning
from fewbits.task import accuracy
from fewbits.train import fit, match_variance, plain, recalibrate
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.weights import select


def train_pruned(model: nn.Module, at, loader, settings: Finetuning, watch=lambda qat: None) -> QATCallback:
    weights = select(model)
    assigner = at(0.0, 0.0)
    plan, state = assigner.update(weights, None, assigner.init(weights))
    attach(model, plan)

    class Watched(QATCallback):
        def after_update(self, done: int, total: int, loss: float) -> None:
            super().after_update(done, total, loss)
            watch(self)

    qat = Watched(
        model, at, state, 0.0, scorer=None, every=1, settings=settings, accelerator=Accelerator(),
        on_round=lambda *_: None, rounds=1,
    )  # fmt: skip
    optimizer = optimizer_of(finetuning_groups(model, settings), settings)
    fit(model, loader, plain(), optimizer, settings, callback=qat)
    return qat


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("quantized", [False, True])
def test_momentum_and_decay_do_not_move_what_may_not_come_back(trained, handwriting, optimizer, quantized) -> None:
    """Sparsity rises half-way, so the weights that fall then still have momentum."""
    pruner = lambda share: global_magnitude(0.5 if share < 0.5 else 0.8)  # noqa: E731
    at = (lambda lam, share: chain(pruner(share), ecq(4, 0.0))) if quantized else (lambda lam, share: pruner(share))
    settings = Finetuning(epochs=2, optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 5e-3, weight_decay=0.1)
    moved = []

    def watch(qat: QATCallback) -> None:
        pairs = [(weight.detach(), qat.state[name].mask) for name, weight in qat.weights.items()]
        moved.append(max(float(weight[~mask].abs().max()) for weight, mask in pairs))

    qat = train_pruned(trained, at, handwriting.loader("train", 64, shuffle=True), settings, watch)
    assert len(moved) == qat.steps
    assert max(moved) == 0.0
    kept = torch.cat([entry.kept.flatten() for entry in plan_of(trained).compressed.values()])
    assert float((~kept).float().mean()) >= 0.8 - 1e-3
    if not quantized:
        assert int((~kept).sum()) == round(0.8 * kept.numel())


def test_without_the_mask_momentum_would_have_moved_them(trained, handwriting) -> None:
    """The test above can fail: a straight-through mask lets background weights move."""
    free = global_magnitude(0.8, regrow=True, straight_through=1.0)
    settings = Finetuning(epochs=1, optimizer="sgd", lr=0.05)
    train_pruned(trained, lambda lam, share: free, handwriting.loader("train", 64, shuffle=True), settings)
    for name, weight in background(trained).items():
        assert weight.detach()[~held(trained)[name].mask].abs().max() > 0


@pytest.mark.parametrize("method", ["global-magnitude", "lamp", "erk", "uniform", "feather", "n:m", "random"])
def test_every_method_prunes_exactly_and_decodes(trained, handwriting, method) -> None:
    prune = {"method": method} | ({"pattern": "2:4"} if method == "n:m" else {"sparsity": 0.8, "schedule": "cubic"})
    recipe = make(
        {
            "prune": prune,
            "assign": {"method": "none"},
            "train": {"epochs": 1, "lr": 0.02, "optimizer": "sgd"},
            "rounds": 2,
        }
    )
    small = fb.compress(trained, handwriting.loader("train", 64, shuffle=True), recipe=recipe)
    assert small.report.identical
    assert small.report.method == f"{method} {'2:4' if method == 'n:m' else 0.8}"
    zeros = sum(int((~entry.kept).sum()) for entry in small.plan.compressed.values())
    if method != "n:m":
        assert zeros == round(0.8 * small.report.weights)
        assert f"80.0 % of the pruned weights ({small.report.weights:,}), 79." in str(small.report)
    net = small.into(copy.deepcopy(trained))
    assert sum(int((w == 0).sum()) for w in select(net).values()) >= zeros


def test_an_impossible_floor_is_refused_before_the_first_step(trained, handwriting) -> None:
    """Although the schedule would get there only later."""
    prune = {"sparsity": 0.9, "min_kept": "10%", "schedule": "cubic"}
    recipe = make({"prune": prune, "assign": {"method": "none"}, "rounds": 100, "train": {"epochs": 1}})
    seen: list[int] = []
    with pytest.raises(RecipeError, match="lower the sparsity or min_kept"):
        fb.compress(
            trained,
            handwriting.loader("train", 64),
            recipe=recipe,
            progress=lambda done, total, line: seen.append(done),
        )
    assert seen == []


def test_sparsity_over_all_parameters_and_a_floor(trained, handwriting) -> None:
    recipe = make(
        {
            "prune": {"sparsity": 0.7, "over": "parameters", "min_kept": "2%"},
            "assign": {"method": "none"},
            "train": {"epochs": 0.1},
        }
    )
    small = fb.compress(trained, handwriting.loader("train", 64), recipe=recipe)
    parameters = sum(p.numel() for p in trained.parameters())
    zeros = {name: int((~entry.kept).sum()) for name, entry in small.plan.compressed.items()}
    assert sum(zeros.values()) == round(0.7 * parameters)
    least = int(0.02 * small.report.weights)
    for name, entry in small.plan.compressed.items():
        assert entry.kept.numel() - zeros[name] >= min(least, entry.kept.numel())


@pytest.mark.parametrize(
    "change",
    [
        {"assign": {"method": "none"}, "prune": {"sparsity": 0.8, "schedule": "cubic", "begin": 0.1, "end": 0.9}},
        {"assign": {"method": "none"}, "prune": {"sparsity": 0.8, "method": "feather", "schedule": "linear"}},
        {"assign": {"lam": 0.2, "bits": 4}, "prune": {"sparsity": 0.6, "schedule": "cubic", "regrow": True}},
    ],
)
def test_an_interrupted_schedule_goes_on_to_the_same_bytes(trained, handwriting, tmp_path, change) -> None:
    recipe = make({"train": {"epochs": 2, "lr": 2e-3}, "rounds": 5} | change)

    def run(**options) -> bytes:
        loader = handwriting.loader("train", 64, shuffle=True, seed=1)
        return fb.compress(trained, loader, recipe=recipe, **options).data

    def stop(done: int, total: int, line: str) -> None:
        if done >= 0.6 * total:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(state_file=state, progress=stop)
    assert state.exists()
    seen: list[int] = []
    resumed = run(state_file=state, progress=lambda done, total, line: seen.append(done))
    assert seen[0] > 0.4 * seen[-1], "it began anew"
    assert resumed == run()


def test_masks_follow_the_schedule(trained, handwriting) -> None:
    curve = rising("cubic", 0.0, 0.5)
    found = []

    def watch(qat: QATCallback) -> None:
        masks = [holder.mask for holder in held(qat.model).values()]
        zeros = sum(int((~m).sum()) for m in masks)
        found.append((zeros, round(0.8 * curve(qat.share) * sum(m.numel() for m in masks))))

    at = lambda lam, share: feather(0.8 * curve(share))  # noqa: E731
    train_pruned(trained, at, handwriting.loader("train", 64), Finetuning(epochs=1, settle=0.0), watch)
    assert [a for a, _ in found] == [b for _, b in found]
    assert found[0][0] < found[3][0] < found[-1][0]


def test_repair_without_training_helps_and_keeps_zeros(trained, handwriting) -> None:
    dense = copy.deepcopy(trained)
    assigner = global_magnitude(0.9)
    weights = select(trained)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    load_plan(trained, plan_of(trained).updated(plan))
    inputs = torch.cat([x for x, _ in handwriting.loader("train", 256)][:2])
    before = accuracy(trained, handwriting.loader("validation"))
    recalibrate(trained, [(inputs, inputs)], dense)
    match_variance(trained, dense, inputs)
    for name, entry in plan.items():
        assert not trained.get_parameter(name)[~entry.kept].any()
    # Each layer's outputs have the mean and the variance that they have in the float network, layer by layer.
    noted: dict[tuple[int, int], torch.Tensor] = {}
    for which, model in enumerate((dense, trained)):
        for index in (0, 5, 7):
            model[index].register_forward_hook(
                lambda m, i, out, key=(which, index): noted.__setitem__(key, out.detach().transpose(0, 1).flatten(1))
            )
        with torch.no_grad():
            model(inputs)
    for index in (0, 5, 7):
        wanted, found = noted[0, index].double(), noted[1, index].double()
        alive = found.var(1) > 0
        assert torch.allclose(found.var(1)[alive], wanted.var(1)[alive], rtol=1e-3)
        if index != 0:  # the convolution has no bias
            assert torch.allclose(found.mean(1), wanted.mean(1), atol=1e-3)
    assert accuracy(trained, handwriting.loader("validation")) > before


def test_normalised_layers_may_be_left_to_recalibration(trained) -> None:
    dense = copy.deepcopy(trained)
    with torch.no_grad():
        for index in (0, 5, 7):
            trained[index].weight.mul_(0.5)
    before = trained[0].weight.clone()
    match_variance(trained, dense, torch.randn(32, 1, 8, 8), normalised=False)
    assert torch.equal(trained[0].weight, before), "a normalisation stands behind it"
    assert not torch.equal(trained[7].weight, dense[7].weight * 0.5)


def test_shrinkage_one_changes_nothing_and_other_networks_are_refused(trained) -> None:
    dense, before = copy.deepcopy(trained), copy.deepcopy(trained.state_dict())
    with torch.no_grad():
        trained[5].weight.mul_(0.5)
    half = trained[5].weight.clone()
    inputs = torch.randn(16, 1, 8, 8)
    match_variance(trained, dense, inputs, shrinkage=1.0)
    assert torch.equal(trained[5].weight, half)
    match_variance(trained, dense, inputs)
    assert torch.allclose(trained[5].weight, before["5.weight"], atol=1e-6)
    assert torch.allclose(trained[5].bias, before["5.bias"], atol=1e-5)
    with pytest.raises(MismatchError, match="different layers"):
        match_variance(trained, nn.Sequential(nn.Linear(3, 3)), inputs)


def test_the_assigner_sees_zeros_where_nothing_may_come_back(trained, handwriting) -> None:
    """Momentum moves weights that have fallen; they are zero again before the next assignment looks at them."""
    seen: list[float] = []

    def at(lam: float, share: float) -> Assigner:
        plain_one = global_magnitude(0.5)

        def update(weights, scores, state):
            masks = {name: state[name].mask for name in weights}
            seen.extend(float(weights[n].detach()[~m].abs().max()) for n, m in masks.items() if m is not None)
            return plain_one.update(weights, scores, state)

        return Assigner(plain_one.init, update)

    settings = Finetuning(epochs=1, optimizer="sgd", lr=0.05, weight_decay=0.1)
    train_pruned(trained, at, handwriting.loader("train", 64), settings)
    assert len(seen) > 20
    assert max(seen) == 0.0
