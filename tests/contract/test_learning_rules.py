"""What every learning rule promises, whatever it does. A rule that joins the registry is tested here, too."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from fewbits.assign import Assigner, ecq, ecqx, global_magnitude
from fewbits.attach import MaskedWeight, attach, background, held
from fewbits.measure.relevance import rules_of
from fewbits.measure.scorer import RelevanceScorer
from fewbits.recipe.training import Finetuning, Training
from fewbits.task import accuracy
from fewbits.train import Callback, KeptTraining, Store, fit, plain
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.learning import settled
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.rules import RULES, Rule, rule_of
from fewbits.weights import select
from learning import batch_of, convolutional, dense

OPTIONS: dict[str, dict[str, Any]] = {
    "difference-target-propagation": {"warm_up": 2},
    "direct-difference-target-propagation": {"warm_up": 2},
    "predictive-coding": {"steps": 5},
    "equilibrium-propagation": {"steps": 4},
    "forward-gradient": {"directions": 4},
}
"""Options with which the tests are short; those of the rules themselves elsewhere."""

NAMES = list(RULES)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 1, 8, 8, generator=GENERATOR)
CLASSES = torch.arange(24) % 3
BATCHES = [(IMAGES[i : i + 8], CLASSES[i : i + 8]) for i in range(0, 24, 8)]


def made(name: str, **options: Any) -> Rule:
    return rule_of(name, {**OPTIONS.get(name, {}), **options})


def trained(
    name: str,
    network: nn.Module,
    batches: list[Any] = BATCHES,
    *,
    callback: Callback | None = None,
    epochs: float = 2,
    precision: str = "float32",
    lr: float = 1e-2,
) -> nn.Module:
    own = {} if RULES[name].own_steps else {"lr": lr}
    settings = settled(Training(epochs=epochs, precision=precision, rule={"name": name}, **own))  # type: ignore[arg-type]
    set_seed(0)
    optimizer = optimizer_of(parameter_groups(network, settings), settings)
    start = callback.begin(network, optimizer) if isinstance(callback, KeptTraining) else 0
    fit(network, batches, plain(), optimizer, settings, callback=callback, start=start, rule=made(name))
    return network


def network(make: Callable[[], nn.Module] = convolutional) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_they_learn(name: str) -> None:
    first, again = (trained(name, network()).state_dict() for _ in range(2))
    assert_equal(first, again)
    moved = [key for key, value in network().state_dict().items() if not torch.equal(first[key], value)]
    assert {"0.weight", "5.weight"} & set(moved)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    """Beyond rounding; of one step, since noise that a rule draws goes with places."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    found = []
    for at in (torch.arange(24), order):
        net = network(lambda: nn.Sequential(*(m for m in convolutional() if not isinstance(m, nn.Dropout)))).double()
        rule = made(name, **({"warm_up": 0} if "warm_up" in OPTIONS.get(name, {}) else {}))
        torch.manual_seed(2)
        rule.update(net, batch_of(net, IMAGES[at].double(), CLASSES[at]), rule.init(net))
        found.append({key: p.grad for key, p in net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert found[0]
    for key, slope in found[0].items():
        torch.testing.assert_close(found[1][key], slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_no_graph_and_no_gradient_is_left_outside(name: str) -> None:
    net, rule = network(), made(name)
    net[5].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in net.named_parameters()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in net.modules()]
    inputs = IMAGES.clone()
    state = rule.init(net)
    outputs, loss, state = rule.update(net, batch_of(net, inputs, CLASSES), state)
    assert inputs.grad is None
    assert torch.equal(inputs, IMAGES)
    assert net[5].bias.grad is None, "what is frozen gets no direction"
    for key, parameter in net.named_parameters():
        assert torch.equal(parameter, before[key]), "the optimizer steps, not the rule"
        assert parameter.grad is None or (not parameter.grad.requires_grad and parameter.grad.dtype == parameter.dtype)
    assert not any(buffer.requires_grad for buffer in net.buffers())
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in net.modules()]
    assert all(getattr(m, "track_running_stats", True) for m in net.modules())
    assert int(net[1].num_batches_tracked) == 1
    if name != "backprop":  # whose graph the loop's callback may ask for
        assert not loss.requires_grad
        assert not outputs.requires_grad
    assert outputs.shape == (24, 3)
    plain_data(state)


def assert_equal(mine: Any, other: Any) -> None:
    """Down to the last bit."""
    if isinstance(mine, Tensor):
        assert torch.equal(mine, other)
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            assert_equal(value, other[key])
    elif isinstance(mine, list | tuple):
        for a, b in zip(mine, other, strict=True):
            assert_equal(a, b)
    else:
        assert mine == other


def plain_data(value: Any) -> None:
    """A state that a checkpoint can hold."""
    payload = io.BytesIO()
    torch.save(value, payload)
    payload.seek(0)
    assert_equal(torch.load(payload, weights_only=True), value)
    _graphless(value)


def _graphless(value: Any) -> None:
    if isinstance(value, Tensor):
        assert not value.requires_grad
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _graphless(part)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_learns_and_keeps_float32_weights(name: str) -> None:
    net = trained(name, network(), precision="bfloat16", epochs=1)
    start = network().state_dict()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert not torch.equal(net[5].weight, start["5.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_training_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def after_update(self, done: int, total: int, loss: float) -> None:
            if done == 4:
                raise KeyboardInterrupt

    whole = trained(name, network()).state_dict()

    def store() -> Store:
        return Store(tmp_path / "state", name, Accelerator())

    with pytest.raises(KeyboardInterrupt):
        trained(name, network(), callback=KeptTraining(store(), "training", times=3, callback=Interrupt()))
    kept = KeptTraining(store(), "training", times=3)
    assert kept.saved["steps"] == 4
    assert_equal(trained(name, network(), callback=kept).state_dict(), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_toy_that_a_line_separates_is_learnt(name: str) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
    y = (x[:, 0] - x[:, 1] > 0).long()
    x[:, 0] += 4 * y - 2.0
    x = torch.cat([torch.zeros(64, 2), x], 1)  # room for the labels that Forward-Forward writes over inputs
    net = trained(name, network(lambda: dense((6, 8, 8, 2))), [(x, y)], epochs=60, lr=3e-2)
    assert accuracy(net, [(x, y)]) == 100.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("assigner", "settings"),
    [(global_magnitude(0.6), {}), (ecq(3, 0.0), {"learn": True})],
    ids=["pruned", "clustered"],
)
def test_a_plan_that_is_held_stays_while_its_network_learns(
    name: str, assigner: Assigner, settings: dict[str, Any]
) -> None:
    net = network()
    weights = select(net)
    plan, state = assigner.update(weights, None, assigner.init(weights))
    attach(net, plan)
    finetuning = Finetuning(epochs=1, lr=1e-2, **settings)
    optimizer = optimizer_of(finetuning_groups(net, finetuning), finetuning)
    qat = QATCallback(
        net, lambda lam, share: assigner, state, 0.0, scorer=None, every=1, settings=finetuning,
        accelerator=Accelerator(), on_round=lambda *_: None, rounds=1, optimizer=optimizer,
    )  # fmt: skip
    before = {key: weight.detach().clone() for key, weight in background(net).items()}
    fit(net, BATCHES, plain(), optimizer, finetuning, callback=qat, rule=made(name))
    assert any(not torch.equal(weight, before[key]) for key, weight in background(net).items())
    now = dict(net.named_modules())
    for key, holder in held(net).items():
        weight = now[key.removesuffix(".weight")].weight
        if isinstance(holder, MaskedWeight):
            assert not weight[~plan.compressed[key].kept].any(), "what is pruned stays so"
        else:
            assert len(weight.unique()) <= 7, "three bits have seven levels"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [None, 4])
def test_relevance_is_measured_whatever_the_rule(name: str, samples: int | None) -> None:
    """Rules without a graph of the whole network leave one forward pass to the measurement."""
    net, assigner = network(), ecqx(3, 0.01)
    weights = select(net)
    plan, state = assigner.update(weights, {n: w.abs() for n, w in weights.items()}, assigner.init(weights))
    attach(net, plan)
    finetuning = Finetuning(epochs=0.3, lr=1e-2)
    optimizer = optimizer_of(finetuning_groups(net, finetuning), finetuning)
    qat = QATCallback(
        net, lambda lam, share: assigner, state, 0.0, scorer=RelevanceScorer(net, rules_of("plus"), samples=samples),
        every=1, settings=finetuning, accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
    )  # fmt: skip
    fit(net, BATCHES, plain(), optimizer, finetuning, callback=qat, rule=made(name))
    assert qat._scores is not None
    assert all(bool(score.abs().sum() > 0) for score in qat._scores.values())


GLOBAL = ("backprop", "feedback-alignment", "direct-feedback-alignment", "sign-symmetry")
"""Rules that keep the graph of the whole network."""


class _Saved:
    """A tensor that autograd holds, counted while it does."""

    def __init__(self, tensor: Tensor, counts: dict[str, int]) -> None:
        self.tensor, self.counts = tensor, counts
        counts["now"] += tensor.numel()
        counts["most"] = max(counts["most"], counts["now"])

    def __del__(self) -> None:
        self.counts["now"] -= self.tensor.numel()


@pytest.mark.parametrize("name", NAMES)
def test_local_rules_hold_the_graph_of_one_block(name: str) -> None:
    """What autograd saves beside weights at most, of twelve layers of one width: all of it, or that of a few."""
    net = network(lambda: dense((16,) * 13))
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    counts = {"now": 0, "most": 0}

    def pack(tensor: Tensor) -> Any:
        return tensor if tensor.untyped_storage().data_ptr() in own else _Saved(tensor.detach(), counts)

    def unpack(saved: Any) -> Tensor:
        return saved.tensor if isinstance(saved, _Saved) else saved

    rule, x = made(name), torch.randn(64, 16)
    state = rule.init(net)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        rule.update(net, batch_of(net, x, torch.arange(64) % 16), state)
    layers = counts["most"] / x.numel()
    assert counts["now"] == 0
    assert layers > 12 if name in GLOBAL else layers < 7, layers  # a block, and a loss of its own on it


def test_every_copy_of_a_network_is_its_own() -> None:
    """A rule holds nothing of the network that it saw last."""
    for name in NAMES:
        rule, first = made(name), network()
        second = copy.deepcopy(first)
        state = rule.init(first)
        for net in (first, second):
            torch.manual_seed(4)
            rule.update(net, batch_of(net, IMAGES, CLASSES), copy.deepcopy(state))
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            assert a.grad is None or torch.equal(a.grad, b.grad), name
