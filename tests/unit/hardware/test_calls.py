"""Products of any network, in attention, recurrent layers and free; against hand counts and PyTorch's counter."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import network, networks
from fewbits.errors import UnsupportedError
from fewbits.hardware import Known, count, layers, machine_of, price
from fewbits.plan import Clustered, Plan
from fewbits.task.batches import Inputs


def by_pytorch(model: nn.Module, *args: Any, **named: Any) -> int:
    """Multiplications that PyTorch's own counter finds, with attention by its parts."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(*args, **named)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return int(counter.get_total_flops()) // 2


class Attention(nn.Module):
    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        found: Tensor = self.attention(x, memory, memory, need_weights=False)[0]
        return found


def test_attention_by_hand() -> None:
    model = Attention()
    inputs = Inputs((torch.randn(1, 5, 8), torch.randn(1, 3, 8)), {})
    found = {layer.name: layer for layer in layers(model, inputs)}
    rows = "attention.in_proj_weight"
    queries, rest, out = (found[name] for name in (f"{rows}[0:8]", f"{rows}[8:24]", "attention.out_proj.weight"))
    assert (queries.macs, rest.macs, out.macs) == (64 * 5, 128 * 3, 64 * 5)
    scores, mixed = (layer for layer in found.values() if not layer.stored)
    assert (scores.groups, scores.positions, scores.reduction, scores.outputs) == (2, 5, 4, 2 * 3)
    assert (scores.macs, mixed.macs) == (2 * 5 * 4 * 3, 2 * 5 * 3 * 4)
    assert scores.name == "attention: 2 x [5, 4] @ [4, 3]"
    assert count(model, inputs).weights == 3 * 64 + 64, "values are no weights"
    assert count(model, inputs).macs == by_pytorch(model, *inputs.args)


@pytest.mark.parametrize(
    ("kind", "gates", "options"),
    [
        (nn.LSTM, 4, {}), (nn.GRU, 3, {}), (nn.RNN, 1, {}), (nn.LSTM, 4, {"bidirectional": True, "num_layers": 2}),
        (nn.LSTM, 4, {"proj_size": 3}),
    ],
)  # fmt: skip
def test_recurrent_layers_multiply_at_every_step(kind: Any, gates: int, options: dict[str, Any]) -> None:
    model = nn.Sequential(kind(4, 5, batch_first=True, **options))
    found = count(model, torch.zeros(1, 7, 4))
    weights = [p for name, p in model.named_parameters() if "weight" in name]
    assert found.macs == 7 * sum(w.numel() for w in weights)
    assert {layer.name for layer in found.layers} == {n for n, p in model.named_parameters() if p.dim() > 1}
    if not options:
        assert found.macs == 7 * gates * 5 * (4 + 5)


@pytest.mark.parametrize(
    "label", ["transformers/gpt2", "transformers/t5-encoder", "own/transformer-encoder", "own/u-net"]
)
def test_multiplications_are_those_of_pytorchs_counter(label: str) -> None:
    row = network(label)
    if row.library != "own" and find_spec(row.library) is None:
        pytest.skip(f"{row.library} is not installed")
    same_as_pytorch(row)


@pytest.mark.long
@pytest.mark.parametrize("label", [row.label for row in networks()])
def test_every_network_of_the_list_is_counted_and_priced(label: str) -> None:
    row = network(label)
    if row.library != "own" and find_spec(row.library) is None:
        pytest.skip(f"{row.library} is not installed")
    same_as_pytorch(row)


def same_as_pytorch(row: Any) -> None:
    model, inputs = row.build(), row.inputs(1)
    given = inputs[""] if "" in inputs else Inputs((), inputs)
    found = count(model, given)
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())  # it counts nothing there
    args, named = ((given,), {}) if "" in inputs else ((), inputs)
    if not recurrent:
        assert found.macs == by_pytorch(model, *args, **named)
    priced = price(layers(model, given), machine_of("eyeriss-v2"))
    assert priced.macs == found.macs
    assert 0 < priced.seconds < 10


@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 2, "padding": 1}, {"stride": 2, "output_padding": 1}])
def test_a_transposed_convolution_is_the_product_that_makes_it_up(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    module = nn.ConvTranspose2d(4, 6, 3, **options)
    inputs = torch.randn(2, 4, 3, 5).relu()
    levels = torch.randint(-1, 2, module.weight.shape).short()
    (layer,) = layers(nn.Sequential(module), inputs, Plan({"0.weight": Clustered(levels, 2, step=1.0)}))
    assert layer.macs == count(nn.Sequential(module), (4, 3, 5)).macs == module.weight.numel() * 15
    met = 0
    for sample, channel, y, x in product(range(2), range(4), range(3), range(5)):
        met += int(inputs[sample, channel, y, x] != 0) * int(levels[channel].count_nonzero())
    assert layer.products * 2 == met
    assert layer.nonzero == int(levels.count_nonzero())


def test_zeros_of_real_values_are_counted_in_both_factors() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() @ (-x).relu().mT

    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 5)
    (layer,) = layers(Product(), x)
    assert (layer.groups, layer.positions, layer.reduction, layer.stored) == (2, 4, 5, False)
    assert layer.products * 3 == int(((x > 0).double() @ (x < 0).double().mT).sum())
    assert layer.inputs_known is Known.COUNTED

    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(0, 1)[1:]
            return rows @ rows.T

    with pytest.raises(UnsupportedError, match="5 positions are not the same number for each of 2 samples; give one"):
        layers(Mixed(), torch.randn(2, 3, 2))


def test_values_take_room_as_inputs_do_and_are_no_weights() -> None:
    machine = machine_of("eyeriss-v2")
    found = layers(Attention(), Inputs((torch.randn(1, 5, 8), torch.randn(1, 3, 8)), {}))
    priced = {p.name: p for p in price(found, machine).layers}
    (values,) = (layer for layer in found if layer.name == "attention: 2 x [5, 4] @ [4, 3]")
    assert priced[values.name].weight_bytes == values.weights * machine.numbers.input_bits.value / 8


def test_a_functional_call_of_a_layers_weight_has_its_name() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.conv = nn.Linear(4, 3), nn.Conv1d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.conv1d(x, self.conv.weight, stride=2), self.layer.weight)

    found = count(Functional(), (2, 10))
    assert [(layer.name, layer.uses) for layer in found.layers] == [("conv.weight", 4), ("layer.weight", 2)]


def test_the_network_is_left_as_it_was() -> None:
    model = Attention().train()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises(UnsupportedError, match="does not take a sample"):
        count(model, (3,))
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()


class Several(nn.Linear):
    """A layer of PyTorch's that takes and gives what that does not."""

    def forward(self, x: Any) -> Any:
        return (super().forward(x[0]),) if isinstance(x, list) else (super().forward(x),)


@pytest.mark.parametrize(("wrap", "words"), [(list, "is given no tensor"), (None, "gives no tensor")])
def test_layers_that_others_changed_are_named(wrap: Any, words: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Several(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.odd([x] if wrap else x)[0]

    with pytest.raises(UnsupportedError, match=f"multiplications of odd: .* (?:{words}); derive it"):
        count(Net(), (3,))
