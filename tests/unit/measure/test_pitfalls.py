"""What went wrong in engines before this one: each is right, or a sentence."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from fewbits.attach import attach, evaluating
from fewbits.errors import UnsupportedError
from fewbits.measure import relevance
from fewbits.measure.relevance import COMPOSITES, Propagated, Tape, propagate
from fewbits.plan import Clustered, Plan
from networks import sharp
from stand_ins import NewGELUActivation

EPSILON = sharp(COMPOSITES["epsilon"])


def relevance_of(model: nn.Module, x: Tensor, rules: Any = EPSILON, **options: Any) -> tuple[Propagated, Tensor]:
    """Relevance of the first score of each sample, and its start."""
    tape = Tape(model, account=bool(options.get("account")))
    with tape.watch():
        outputs = model(x)
    start = torch.zeros_like(outputs)
    start[:, 0] = outputs.detach()[:, 0]
    return propagate(outputs, start, rules, tape, inputs=True, **options), start


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def double(model: nn.Module) -> nn.Module:
    return model.double().eval()


class Gate(nn.Module):
    """Squeeze and excite, with a gate whose input is next to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.head = nn.Linear(6, 3), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * torch.sigmoid(1e-7 * self.up(F.relu(self.down(x)))))


def test_a_gate_near_zero_does_not_make_relevance_explode() -> None:
    torch.manual_seed(0)
    found, start = relevance_of(double(Gate()), drawn(4, 6))
    for r in found.weights.values():
        assert 0 < float(r.abs().sum()) <= 1e4 * float(start.abs().sum())


def test_the_input_counts_as_data_without_being_asked_for_a_gradient() -> None:
    """Else a normalisation of the input, or a product with it, is taken for a weight."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dense = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(self.norm(x) * x)

    torch.manual_seed(0)
    model = double(Net())
    with torch.no_grad():
        model.norm.bias.normal_()
    x = drawn(3, 4)
    found, start = relevance_of(model, x, account=True)
    assert float(found.inputs.sum()) + sum(found.biases.values()) == pytest.approx(float(start.sum()))
    assert not x.requires_grad


def test_a_frozen_network_keeps_its_biases() -> None:
    torch.manual_seed(0)
    model = double(nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2)))
    rules = sharp(COMPOSITES["plus"])
    free, _ = relevance_of(model, drawn(3, 2, 4), rules)
    frozen, _ = relevance_of(copy.deepcopy(model).requires_grad_(False), drawn(3, 2, 4), rules)
    torch.testing.assert_close(frozen.weights, free.weights, rtol=0, atol=0)


def test_what_was_broadcast_is_summed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.dense = nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(x + self.one(x))

    torch.manual_seed(0)
    found, start = relevance_of(double(Net()), drawn(3, 4), account=True)
    assert float(found.inputs.sum()) + sum(found.biases.values()) == pytest.approx(float(start.sum()))


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Twice.apply(x)


def test_a_function_of_the_users_own_is_unknown_until_it_is_named() -> None:
    torch.manual_seed(0)
    model = double(nn.Sequential(nn.Linear(4, 3), Doubling(), nn.Linear(3, 2)))
    with pytest.raises(UnsupportedError, match="TwiceBackward in 1;"):
        relevance_of(model, drawn(3, 4))
    plain = nn.Sequential(model[0], nn.Linear(3, 3, bias=False).double(), model[2])
    plain[1].weight.data = 2 * torch.eye(3, dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.long)
    expected = relevance(plain, [(drawn(3, 4), y)], rules=EPSILON).weights
    for key in ("Twice", "Doubling", Doubling):
        found = relevance(model, [(drawn(3, 4), y)], rules=EPSILON, operations={key: "linear"}).weights
        torch.testing.assert_close(found, {name: expected[name] for name in found})


@pytest.mark.parametrize("what", ["copy", "add", "scale", "clear", "square"])
def test_writing_to_a_part_of_a_tensor(what: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).clone()
            match what:
                case "copy":
                    y[:, :2] = x[:, :2]
                case "add":
                    y[:, :4] += x
                case "scale":
                    y[:, 1] *= 3
                case "clear":
                    y[:, 2].zero_()
                case "square":
                    y[:, 3].pow_(2)
            return self.last(y)

    torch.manual_seed(0)
    model = double(Net())
    if what == "square":
        with pytest.raises(UnsupportedError, match=r"rule for pow_ in place on a view; write it out of place$"):
            relevance_of(model, drawn(3, 4))
        return
    found, start = relevance_of(model, drawn(3, 4), account=True)
    assert float(found.inputs.sum()) + sum(found.biases.values()) == pytest.approx(float(start.sum()))


def test_a_weight_that_is_kept_between_forward_passes() -> None:
    """Its graph is as old as its first use."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).eval()
    levels = torch.randint(-3, 4, (3, 4), dtype=torch.int16)
    attach(model, Plan({"0.weight": Clustered(levels, 3, step=0.2)}))
    once, _ = relevance_of(model, drawn(3, 4).float())
    with evaluating(model), parametrize.cached():
        for _ in range(2):
            again, _ = relevance_of(model, drawn(3, 4).float())
            torch.testing.assert_close(again.weights, once.weights)
    assert once.weights["0.weight"].any()


def test_a_weight_that_is_computed_has_its_relevance_where_it_enters_the_layer() -> None:
    torch.manual_seed(0)
    parts = nn.Linear(4, 3), nn.ReLU(), nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Flatten()
    plain = double(nn.Sequential(*parts))
    model = copy.deepcopy(plain)
    weight_norm(model[3])
    spectral_norm(model[0])
    plain[0].weight.data = model[0].weight.detach().clone()
    for rules in (EPSILON, sharp(COMPOSITES["paper"])):
        found, _ = relevance_of(model, drawn(3, 4), rules)
        expected, _ = relevance_of(plain, drawn(3, 4), rules)
        torch.testing.assert_close(found.weights, expected.weights)


def test_a_gelu_that_is_written_out_is_one_operation() -> None:
    torch.manual_seed(0)
    model = double(nn.Sequential(nn.Linear(4, 6), NewGELUActivation(), nn.Linear(6, 2)))
    found, _ = relevance_of(model, drawn(3, 4))
    model[1] = nn.GELU("tanh")
    expected, _ = relevance_of(model, drawn(3, 4))
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-6, atol=1e-9)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.head, self.reentrant = nn.Linear(4, 2), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.reentrant is None else x.requires_grad_()
        y = self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(y)


def test_checkpoints() -> None:
    torch.manual_seed(0)
    plain = double(Checkpointed(None))
    expected, _ = relevance_of(plain, drawn(3, 4))
    for reentrant in (False, True):
        model = double(Checkpointed(reentrant))
        model.load_state_dict(plain.state_dict())
        if reentrant:
            with pytest.raises(UnsupportedError, match="use_reentrant=False"):
                relevance_of(model, drawn(3, 4))
        else:
            found, _ = relevance_of(model, drawn(3, 4))
            torch.testing.assert_close(found.weights, expected.weights)


def test_a_compiled_region_is_named() -> None:
    model = double(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    compiled = nn.Sequential(torch.compile(model, backend="aot_eager"))
    with pytest.raises(UnsupportedError, match=r"compiled region.*_orig_mod"):
        relevance_of(compiled, drawn(3, 4))


def test_tied_and_reused_weights_have_the_sum() -> None:
    class Net(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            if tied:
                self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(F.relu(self.first(F.relu(self.first(x))))))

    torch.manual_seed(0)
    model, x = double(Net(True)), drawn(3, 4)
    found, _ = relevance_of(model, x)
    model(x)[:, 0].sum().backward()
    expected = (model.first.weight * model.first.weight.grad).detach()
    torch.testing.assert_close(found.weights["first.weight"], expected)
    torch.testing.assert_close(found.weights["second.weight"], expected)


def test_only_what_relevance_arrives_at_needs_a_rule() -> None:
    """The powers of a normalisation lead to a scale; one on the way of the data does not."""

    class Net(nn.Module):
        def __init__(self, square: bool) -> None:
            super().__init__()
            self.dense, self.head, self.square = nn.Linear(4, 4), nn.Linear(4, 2), square

        def forward(self, x: Tensor) -> Tensor:
            x = self.dense(x)
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            return self.head(x.pow(2) if self.square else x)

    torch.manual_seed(0)
    assert relevance_of(double(Net(False)), drawn(3, 4))[0].inputs.any()
    with pytest.raises(UnsupportedError, match="PowBackward0"):
        relevance_of(double(Net(True)), drawn(3, 4))


UNKNOWN = {
    "hypot": (lambda x: torch.hypot(x, 2 * x), True),
    "logaddexp": (lambda x: torch.logaddexp(x, x), False),
    "exp": (torch.exp, False),
    "square": (lambda x: x**2, False),
    "sin": (torch.sin, False),
    "logsumexp": (lambda x: torch.logsumexp(x, -1, keepdim=True).expand_as(x), False),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_probe_lets_through_what_is_homogeneous(name: str) -> None:
    function, homogeneous = UNKNOWN[name]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(function(self.dense(x)))

    torch.manual_seed(0)
    model, batch = double(Net()), [(drawn(3, 4), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(UnsupportedError):
        relevance(model, batch)
    if not homogeneous:
        with pytest.raises(UnsupportedError):
            relevance(model, batch, probe=True)
        return
    found = relevance(model, batch, rules=EPSILON, probe=True)
    model.zero_grad()
    model(batch[0][0])[:, 0].sum().backward()
    expected = model.dense.weight.detach() * model.dense.weight.grad / 3
    torch.testing.assert_close(found.weights["dense.weight"], expected)


def test_a_function_says_what_each_input_gets() -> None:
    class Powers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x) * x

    def halves(c: Tensor, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return c * output / inputs[0] / 2

    torch.manual_seed(0)
    model = double(nn.Sequential(nn.Linear(4, 3, bias=False), Powers(), nn.Linear(3, 2, bias=False)))
    batch = [(drawn(3, 4), torch.zeros(3, dtype=torch.long))]
    found = relevance(model, batch, rules=EPSILON, operations={Powers: halves}, inputs=True)
    assert float(found.inputs.sum()) / 3 == pytest.approx(float(found.weights["2.weight"].sum()) / 2)
    with pytest.raises(UnsupportedError, match=r"wrong has to give one tensor .* each of the 1 inputs"):
        relevance(model, batch, operations={Powers: wrong})
    scaled = relevance(model, batch, operations={Powers: "scale"})
    assert not scaled.weights["0.weight"].any()


def wrong(c: Tensor, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[Tensor, Tensor]:
    return c, c


def test_half_precision_on_the_way() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 3)).eval()
    x = drawn(8, 16).float()
    rules = dataclasses.replace(COMPOSITES["epsilon"])
    exact, _ = relevance_of(model, x, rules)
    tape = Tape(model)
    with tape.watch(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(x)
    start = torch.zeros_like(outputs)
    start[:, 0] = outputs.detach()[:, 0]
    rough = propagate(outputs, start, rules, tape)
    for name, r in exact.weights.items():
        assert rough.weights[name].dtype == torch.float32
        assert float((rough.weights[name] - r).norm() / r.norm()) < 0.05


class Ragged(nn.Module):
    """Sequences of several lengths; torch writes the padded result by parts."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.lstm, self.head, self.packed = nn.LSTM(4, 5, batch_first=True, num_layers=2), nn.Linear(5, 2), packed

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([3, 2, 1])
        if self.packed:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            y, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        else:
            y = self.lstm(x)[0] * (torch.arange(3) < lengths[:, None])[..., None]
        return self.head(y.sum(1))


def test_packed_sequences_are_those_of_their_lengths() -> None:
    torch.manual_seed(0)
    plain, packed = double(Ragged(False)), double(Ragged(True))
    packed.load_state_dict(plain.state_dict())
    expected, _ = relevance_of(plain, drawn(3, 3, 4))
    found, _ = relevance_of(packed, drawn(3, 3, 4))
    torch.testing.assert_close(found.weights, expected.weights)
    torch.testing.assert_close(found.inputs, expected.inputs)


def test_a_wrapper_for_several_processes_changes_nothing() -> None:
    torch.manual_seed(0)
    model = double(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    expected, start = relevance_of(model, drawn(3, 4))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped, tape = nn.parallel.DistributedDataParallel(model), Tape(model)
        with tape.watch():
            outputs = wrapped(drawn(3, 4))
        outputs.square().sum().backward(retain_graph=True)  # the step's own, which came before
        found = propagate(outputs, start, EPSILON, tape)
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(found.weights, expected.weights)
