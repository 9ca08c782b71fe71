"""Networks in integers alone: torch and NumPy's int64 agree in every step, and what has no integers is named."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fewbits as fb
from fewbits import ops
from fewbits.data.digits import digits
from fewbits.deploy.onnx import to_onnx
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.int8.alone import alone_form, is_alone, program
from fewbits.int8.alone.tape import Tape, factors
from fewbits.int8.form import calibrate
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.ops._evaluate import Evaluator
from fewbits.ops.swap import swap

INTEGERS = {"kind": "integer", "bits": 8}
OPS = {"softmax": INTEGERS, "gelu": INTEGERS, "layer_norm": {"kind": "integer", "bits": 10}}
RECIPE: dict[str, Any] = {
    "schema": 2, "assign": {"method": "int8"}, "activations": {"alone": True}, "train": None, "ops": OPS,
}  # fmt: skip


class Rows(nn.Module):
    """Rows of a picture as tokens, through torch's own layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.emb, self.pos = nn.Linear(8, width), nn.Parameter(torch.randn(1, 8, width) / 9)
        self.block = nn.TransformerEncoderLayer(
            width, 2, 2 * width, activation="gelu", batch_first=True, norm_first=True, dropout=0.0
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.emb(x.flatten(1, 2)) + self.pos)
        found: Tensor = self.head(self.norm(x).mean(1))
        return found


class Causal(nn.Module):
    """Patches by a convolution, a class token, and attention by torch's fused function."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.Parameter(torch.randn(1, 1, 16) / 9)
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16, bias=False)
        self.scale, self.head = nn.Parameter(torch.rand(16)), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([x, self.cls.expand(len(x), -1, -1)], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(len(x), -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x - self.scale * self.out(found)
        answer: Tensor = self.head(F.relu(x[:, -1]) ** 2)
        return answer


class Plain(nn.Module):
    """Attention by products and a softmax, with a mask that leaves a row nothing."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=i > 0) for i in range(3))
        self.head = nn.Linear(8, 10)
        mask = torch.eye(8).bool()
        mask[3] = True
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        scores = self.q(x) @ self.k(x).mT / -math.sqrt(8)
        shares = scores.masked_fill(self.mask, -torch.inf).softmax(-1)
        x = F.gelu(torch.matmul(shares, self.v(x)) + (1 - x) * x)
        found: Tensor = self.head(x.sum(dim=1))
        return found


class Tokens(nn.Module):
    """A table of tokens, one of positions, and torch's own attention, whose shares are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(12, 16), nn.Embedding(8, 16)
        self.attention, self.norm, self.head = nn.MultiheadAttention(16, 4), nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))).transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(len(x))
        x = x + self.attention(x, x, x, attn_mask=mask)[0]
        found: Tensor = self.head(self.norm(F.gelu(x))[-1])
        return found


def approximations() -> dict[str, Any]:
    return {
        "softmax": ops.fit("softmax", bits=8), "gelu": ops.fit("gelu", (-6, 6), bits=8),
        "layer_norm": ops.fit("layer_norm", (-8, 8), bits=10),
    }  # fmt: skip


def made(kind: type[nn.Module], samples: int = 32) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network, its calibrated form, and inputs."""
    torch.manual_seed(0)
    net, x = kind().eval(), torch.randn(samples, 1, 8, 8)
    x = torch.randint(12, (samples, 8)) if kind is Tokens else x
    swap(net, approximations())
    form, _ = alone_form(net, RangedQuantizer, inputs=x)
    calibrate(form, [x])
    return net, form, x


class Strict(np.ndarray):
    """An array that refuses everything but whole numbers."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(i) if isinstance(i, np.ndarray) else i for i in inputs]
        assert all(np.asarray(i).dtype.kind in "ib" for i in plain), (ufunc, plain)
        found = getattr(ufunc, method)(*plain, **{n: v for n, v in kwargs.items() if n != "out"})
        assert np.asarray(found).dtype in (np.int64, np.bool_), ufunc
        return np.asarray(found).view(Strict)


@pytest.mark.parametrize("kind", [Rows, Causal, Plain, Tokens])
def test_torch_and_numpy_agree_in_every_step(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    _, form, x = made(kind)
    made_by_torch: list[np.ndarray] = []
    noted = Tape._noted

    def keep(self: Tape, numbers: Tensor, *args: Any) -> Any:
        made_by_torch.append(numbers.detach().numpy().copy())
        return noted(self, numbers, *args)

    found = program(form, x)
    monkeypatch.setattr(Tape, "_noted", keep)
    every = found.all(found.quantized(x.numpy()))
    for i in range(3):
        made_by_torch.clear()
        program(form, x[i : i + 1])
        assert len(made_by_torch) == len(every) > 10
        for torchs, numpys in zip(made_by_torch, every, strict=True):
            assert np.array_equal(torchs, numpys[i])


@pytest.mark.parametrize("kind", [Rows, Causal, Plain, Tokens])
def test_the_network_gives_what_the_program_gives(kind: type[nn.Module]) -> None:
    net, form, x = made(kind)
    found = program(form, x)
    outputs = found.floats(found(found.quantized(x.numpy())))
    with torch.no_grad():
        assert np.array_equal(outputs, form(x).numpy())
        exact = net(x)
    assert np.array_equal(outputs, form(x).detach().numpy())  # also where gradients are followed
    assert np.abs(outputs - exact.numpy()).max() < 0.15 * float(exact.abs().max())


def test_threads_and_copies_compute_the_same() -> None:
    _, form, x = made(Causal)
    with torch.no_grad():
        expected = form(x)
        assert torch.equal(copy.deepcopy(form)(x), expected)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(form, [x] * 8):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [Rows, Causal, Plain, Tokens])
def test_no_float_between_the_levels_of_inputs_and_outputs(kind: type[nn.Module]) -> None:
    _, form, x = made(kind)
    found = program(form, x)
    levels = found.quantized(x.numpy())
    assert all(value.dtype == np.int64 for value in found.all(levels.view(Strict)))
    assert np.array_equal(found(levels.view(Strict)), found(levels))
    for step in found.steps:
        for constant in step.constants.values():
            for one in constant if isinstance(constant, list) else [constant]:
                assert not isinstance(one, float)
                assert not isinstance(one, np.ndarray) or one.dtype in (np.int64, np.bool_)


def test_the_strict_array_notices_a_float() -> None:
    with pytest.raises(AssertionError):
        np.arange(3).view(Strict) / 2


@pytest.mark.parametrize(("name", "reach"), [("softmax", 2**20), ("layer_norm", 2**15 - 1), ("rms_norm", 2**15 - 1)])
def test_rows_equal_the_reference_on_a_hundred_thousand_vectors(name: str, reach: int) -> None:
    found = ops.fit(name, bits=8)
    rng = np.random.default_rng(0)
    sizes = reach ** rng.random((100_000, 1))  # of all magnitudes
    levels = (rng.uniform(-1, 1, (100_000, 6)) * sizes).astype(np.int64)
    epsilon = 0 if name == "softmax" else 7
    own = Evaluator(found).levels(torch.from_numpy(levels), epsilon=epsilon).numpy()
    assert np.array_equal(own, ops.reference(found, levels, epsilon=epsilon))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**31), min_size=2, max_size=2),
    st.lists(st.floats(-3e4, 3e4, allow_subnormal=False), min_size=2, max_size=2),
    st.floats(-1e9, 1e9),
)
def test_rescaling_rounds_the_exact_sum_once(values: list[int], reals: list[float], offset: float) -> None:
    whole, start, shift = factors(
        [torch.tensor(r, dtype=torch.float64) for r in reals], torch.tensor(offset, dtype=torch.float64)
    )
    steps: list[Any] = []
    tape = Tape(steps)
    given_ = [tape.given(torch.tensor([v])) for v in values]
    found = int(tape.rescale(given_, whole, start, shift, -(2**60), 2**60).numbers)
    exact = sum(Fraction(v) * int(w) for v, w in zip(values, whole, strict=True)) + int(start)
    assert found == math.floor(exact / 2**shift + Fraction(1, 2))
    # The factors have 30 bits of the largest of them.
    largest = max(map(abs, reals))
    assert all(abs(int(w) / 2**shift - r) <= largest * 2.0**-29 + 2.0**-47 for w, r in zip(whole, reals, strict=True))


def test_a_dead_place_saturates_instead_of_overflowing() -> None:
    _, form, x = made(Rows)
    for name, module in form.quantizers.alone.named_children():
        if "gelu" in name:
            with torch.no_grad():
                module.low.zero_()
                module.high.zero_()
    found = program(form, x)
    outputs = found.floats(found(found.quantized(x.numpy())))
    assert np.array_equal(outputs, form(x).detach().numpy())
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda self, x: self.head(torch.sigmoid(self.emb(x.flatten(1, 2))).mean(1)), "sigmoid.*ops: {sigmoid"),
        (lambda self, x: self.head(self.emb(x.flatten(1, 2)).cumsum(1)[:, -1]), r"network \(Rows\): cumsum"),
        (lambda self, x: self.head(self.emb(x.flatten(1, 2)).softmax(1)[:, -1]), "another dimension"),
        (lambda self, x: self.head(self.pos) * len(x), "depends on no input"),
        (lambda self, x: self.head(self.emb(x.flatten(1, 2))).mean(), "all dimensions"),
    ],
)
def test_what_has_no_integers_is_named(broken: Any, words: str) -> None:
    kind = type("Rows", (Rows,), {"forward": broken})
    with pytest.raises(UnsupportedError, match=words):
        made(kind)


def test_the_layer_that_calls_it_is_named() -> None:
    torch.manual_seed(0)
    net = Rows().eval()
    swap(net, {"softmax": approximations()["softmax"], "layer_norm": approximations()["layer_norm"]})
    with pytest.raises(UnsupportedError, match=r"^block \(TransformerEncoderLayer\): gelu has no form"):
        alone_form(net, RangedQuantizer, inputs=torch.randn(2, 1, 8, 8))


def test_another_way_than_the_calibrated_one_is_refused() -> None:
    class Two(Rows):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(self.emb(x.flatten(1, 2))[:, 0])
            return self.head(self.emb(x[:, 0]).mean(1)) if len(x) == 1 else found

    _, form, x = made(Two)
    with pytest.raises(UnsupportedError, match="this pass computes what the calibration did not"):
        form(x[:1])


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Any]:
    """A small transformer that reads digits, its data, and its accuracy in percent."""
    torch.manual_seed(0)
    data, net = digits(), Rows()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    batches = list(zip(data.train.inputs.split(64), data.train.targets.split(64), strict=True))
    for _ in range(8):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        return 100 * float((model.eval()(data.test.inputs).argmax(1) == data.test.targets).float().mean())

    return net.eval(), batches, accuracy


def test_a_recipe_writes_a_file_that_computes_in_integers_alone(trained: Any, tmp_path: Any) -> None:
    net, batches, accuracy = trained
    small = fb.compress(net, batches, evaluate=accuracy, recipe=RECIPE, progress=None)
    assert small.report.identical
    assert small.report.accuracy_before > 85
    assert small.report.accuracy_after > small.report.accuracy_before - 1.5
    small.save(tmp_path / "net.few")
    back = fb.load(tmp_path / "net.few", like=Rows())
    assert is_alone(back)
    x = digits().test.inputs
    found = program(back, x)
    with torch.no_grad():
        assert np.array_equal(found.floats(found(found.quantized(x.numpy()))), back(x).numpy())
    levels = {step.constants["weight"].tobytes() for step in found.steps if "weight" in step.constants}
    for entry in small.plan.affine.values():  # the file's own integers are what it computes with
        assert entry.levels.t().to(torch.int64).contiguous().numpy().tobytes() in levels
    with pytest.raises(UnsupportedError, match="no ONNX operators"):
        to_onnx(back, x[:1], tmp_path / "net.onnx")


def test_training_sees_the_levels_that_the_program_has(trained: Any) -> None:
    net, batches, accuracy = trained
    recipe = RECIPE | {"train": {"epochs": 1, "lr": 1e-4}}
    small = fb.compress(net, batches[:4], evaluate=accuracy, recipe=recipe, progress=None)
    assert small.report.steps == 4
    assert small.report.accuracy_after > small.report.accuracy_before - 2
    back = small.into(Rows())
    found, x = program(back, batches[0][0]), batches[0][0]
    with torch.no_grad():
        assert np.array_equal(found.floats(found(found.quantized(x.numpy()))), back(x).numpy())


def test_integers_alone_go_with_int8_and_data(trained: Any) -> None:
    net, batches, _ = trained
    with pytest.raises(RecipeError, match=r"activations\.alone goes with assign\.method int8"):
        fb.compress(net, batches, recipe=RECIPE | {"assign": {"method": "ecq"}}, progress=None)
    with pytest.raises(DataError, match="looks at batches"):
        fb.compress(net, recipe=RECIPE, progress=None)


def test_only_such_networks_have_a_program() -> None:
    with pytest.raises(UnsupportedError, match="does not compute in integers alone"):
        program(Rows(), torch.zeros(1, 1, 8, 8))
