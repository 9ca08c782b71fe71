"""Curvature against brute force: Jacobians and Hessians of small networks, written out."""

from __future__ import annotations

import copy
import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from fewbits.attach import attach, fold
from fewbits.errors import DataError, MismatchError, NonFiniteError, RecipeError, SelectionError, UnsupportedError
from fewbits.measure import curvature, sensitivity
from fewbits.measure.curvature._root import Root
from fewbits.weights import select
from networks import Conv1D, Residual, plan_for, randomised

hutchinson = sys.modules["fewbits.measure.curvature._hutchinson"]  # the package's name is the function's, too
X = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 0, 1])
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]  # of different sizes


class Shared(nn.Module):
    """One convolution used twice, two layers with one weight, groups, dilation, strides, sequences, circular edges."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), padding_mode="circular")
        self.twice = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.along = nn.Conv1d(8, 5, 2, bias=False)
        self.tokens = nn.Linear(5, 5)
        self.again = nn.Linear(5, 5, bias=False)
        self.again.weight = self.tokens.weight
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        x = F.relu(self.twice(x))
        x = F.leaky_relu(self.twice(x), inplace=True) + x
        x = F.relu(self.depthwise(x)).flatten(2)
        x = self.along(x).mT  # [n, positions, 5]
        x = self.tokens(x).relu_()
        return self.head(self.again(x).relu().mean(1))


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 3, (2, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1))
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x.unsqueeze(1))).amax((2, 3, 4)))


def network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return randomised(kind()).eval()


def blocks(model: nn.Module, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Diagonals of the Gauss-Newton matrix and of the Hessian, from whole Jacobians and Hessians."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    weights = {name: w.detach() for name, w in select(model).items()}
    newton, true = {}, {}
    for name, w in weights.items():

        def logits(w: Tensor, name: str = name) -> Tensor:
            same = {other: w for other, o in select(model).items() if o is select(model)[name]}
            return functional_call(model, same, (x,))

        z = logits(w)
        p = z.softmax(1).detach()
        jacobian = torch.autograd.functional.jacobian(logits, w).reshape(*z.shape, -1)
        s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        newton[name] = torch.einsum("nkw,nkj,njw->w", jacobian, s, jacobian).reshape(w.shape) / len(x)
        hessian = torch.autograd.functional.hessian(lambda w, f=logits: F.cross_entropy(f(w), y), w)
        true[name] = hessian.reshape(w.numel(), w.numel()).diagonal().reshape(w.shape)
    return newton, true


def reduced(diagonal: Tensor, per: str) -> Tensor:
    return diagonal if per == "weight" else diagonal.flatten(1).sum(1) if per == "channel" else diagonal.sum()


CASES = {
    "residual": (Residual, X, Y),
    "shared": (Shared, X, Y % 3),
    "volume": (Volume, X[:, :, :4, :4], Y),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    kind, x, y = request.param
    model = network(kind)
    return model, x, y, *blocks(model, x, y)


@pytest.mark.parametrize("per", ["channel", "weight", "layer"])
@pytest.mark.parametrize("workspace", [1, 20_000, 1 << 25])
def test_exact_is_the_gauss_newton_diagonal(case, per, workspace):
    model, x, y, newton, _ = case
    found = curvature(model, [(x[:4], y[:4]), (x[4:], y[4:])], per=per, estimator="exact", workspace=workspace)
    assert found.samples == 6
    for name, diagonal in newton.items():
        torch.testing.assert_close(found.trace[name], reduced(diagonal, per))
        assert not found.error[name].any()
        assert found.error[name].shape == found.trace[name].shape


class Tokens(nn.Module):
    """Layers on ``[n, places, features]``, whose weights are ``[inputs, outputs]``, or the other way round."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        kind = (lambda i, o: Conv1D(o, i)) if turned else nn.Linear
        self.up, self.down, self.head = kind(6, 7), kind(7, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(F.gelu(self.up(x.flatten(1, 2)))).tanh().mean(1))


def tokens() -> tuple[nn.Module, nn.Module]:
    """The same network with weights of inputs by outputs, and with linear layers."""
    plain, turned = network(lambda: Tokens(False)), network(lambda: Tokens(True))
    state = plain.state_dict()
    turned.load_state_dict({k: v.T if k in ("up.weight", "down.weight") else v for k, v in state.items()})
    return turned, plain


@pytest.mark.parametrize("estimator", ["exact", "sketched", "sampled", "empirical", "hutchinson"])
@pytest.mark.parametrize("per", ["channel", "weight", "layer"])
def test_weights_of_inputs_by_outputs_have_what_linear_layers_have(estimator, per):
    turned, plain = tokens()
    data = [(x, y % 3) for x, y in BATCHES]
    draws = {"draws": 150, "seed": 1} if estimator == "hutchinson" else {}
    found, wanted = (curvature(m, data, per=per, estimator=estimator, **draws) for m in (turned, plain))
    costs, expected = sensitivity(found, select(turned)), sensitivity(wanted, select(plain))
    for name, value in wanted.trace.items():
        flip = per == "weight" and name != "head.weight"
        trace, cost, error = (d[name].T if flip else d[name] for d in (found.trace, costs, found.error))
        assert trace.shape == value.shape
        if estimator == "hutchinson":  # draws signs in the order of the weight
            assert float(((trace - value).abs() / (error.square() + wanted.error[name].square()).sqrt()).max()) < 5
        else:
            torch.testing.assert_close(trace, value)
            torch.testing.assert_close(cost, expected[name])


def test_gauss_newton_is_the_hessian_within_a_layer_used_once(case):
    model, _, _, newton, true = case
    once = {Residual: ("conv1", "conv2", "linear"), Shared: ("stem", "depthwise", "along", "head")}
    for layer in once.get(type(model), ("conv", "head")):
        torch.testing.assert_close(newton[f"{layer}.weight"], true[f"{layer}.weight"])


def test_every_mixture_of_signs_in_turn_makes_the_exact_trace():
    """The mean over all signs of the sketch's outer product, and each column of the root, against S itself."""
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.1], [40.0, 0.0, -300.0, 1.0], [900.0, 0.0, 0.0, 0.0]])
    p = logits.double().softmax(1)
    s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    root = Root(logits)
    columns = torch.stack([root.column(k) for k in range(root.columns())], 2)
    torch.testing.assert_close(columns @ columns.mT, s, rtol=1e-9, atol=1e-16)
    mixtures = [root.mix(torch.tensor(signs).expand(3, 4)) for signs in itertools.product((-1.0, 1.0), repeat=4)]
    outer = torch.stack([m[:, :, None] * m[:, None, :] for m in mixtures]).mean(0)
    torch.testing.assert_close(outer, s, rtol=1e-9, atol=1e-16)
    assert all(m.isfinite().all() for m in mixtures)


def test_a_sketch_of_two_classes_is_exact():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    exact, sketched = (curvature(model, [(X, Y % 2)], estimator=e) for e in ("exact", "sketched"))
    torch.testing.assert_close(sketched.trace, exact.trace)


@pytest.mark.parametrize("per", ["channel", "weight", "layer"])
def test_every_label_in_turn_weighed_by_its_chance_is_the_exact_trace(case, per):
    """Squared gradients of all labels ("empirical" with each one), put together by hand."""
    model, x, _, newton, _ = case
    total = {name: torch.zeros_like(reduced(d, per)) for name, d in newton.items()}
    for n in range(len(x)):
        p = model(x[n : n + 1]).softmax(1).detach()[0]
        for k, chance in enumerate(p):
            found = curvature(model, [(x[n : n + 1], torch.tensor([k]))], per=per, estimator="empirical")
            for name in total:
                total[name] += chance * found.trace[name] / len(x)
    for name, diagonal in newton.items():
        torch.testing.assert_close(total[name], reduced(diagonal, per))


@pytest.mark.parametrize("per", ["channel", "weight", "layer"])
def test_empirical_is_the_mean_squared_gradient(per):
    model = network(Residual)
    found = curvature(model, BATCHES, per=per, estimator="empirical")
    weights = select(model)
    singles = [
        torch.autograd.grad(F.cross_entropy(model(X[n : n + 1]), Y[n : n + 1]), list(weights.values()))
        for n in range(6)
    ]
    for index, name in enumerate(weights):
        values = torch.stack([reduced(g[index].square(), per) for g in singles])
        torch.testing.assert_close(found.trace[name], values.mean(0))
        torch.testing.assert_close(found.error[name], values.std(0) / 6**0.5)


@pytest.mark.parametrize("per", ["channel", "layer", "weight"])
def test_probes_find_the_hessian_within_their_stated_error(case, per):
    model, x, y, _, true = case
    found = curvature(model, [(x[:4], y[:4]), (x[4:], y[4:])], per=per, estimator="hutchinson", draws=200, seed=3)
    off = torch.cat(
        [((found.trace[n] - reduced(d, per)) / found.error[n].clamp(min=1e-12)).flatten() for n, d in true.items()]
    )
    assert float(off.abs().max()) < 6
    rms = float(off.square().mean().sqrt())  # in standard errors
    assert (0.3 if per == "layer" else 0.6) < rms < 1.5  # a handful of layers says less


def test_a_probe_is_exact_where_the_hessian_is_diagonal():
    """One weight, so nothing disturbs it: v^2 h = h for either sign."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    x = torch.randn(5, 1, dtype=torch.float64)
    with torch.no_grad():
        model[1].weight[1] = 0
    p = model(x).softmax(1).detach()[:, 0]
    exact = (x[:, 0].square() * p * (1 - p)).mean()
    found = curvature(model, [(x, torch.zeros(5, dtype=torch.long))], per="weight", estimator="hutchinson", draws=64)
    # Two weights whose logits differ only in their difference: H = h [[1, -1], [-1, 1]], and v.Hv is 0 or 4 h in sum.
    signs = found.trace["1.weight"].flatten() / exact
    torch.testing.assert_close(signs[0], signs[1])
    assert float(signs[0]) == pytest.approx(1, abs=0.4)
    torch.testing.assert_close(
        curvature(model, [(x, torch.zeros(5, dtype=torch.long))], per="weight", estimator="exact").trace["1.weight"],
        exact.expand(2, 1),
    )


def over_seeds(draw, seeds: int) -> tuple[Tensor, Tensor]:
    """True spread of the traces over seeds, and the root mean square of the stated errors, one vector each."""
    traces, errors = [], []
    for seed in range(seeds):
        found = draw(seed)
        traces.append(torch.cat([t.flatten() for t in found.trace.values()]))
        errors.append(torch.cat([e.flatten() for e in found.error.values()]))
    return torch.stack(traces).std(0), torch.stack(errors).square().mean(0).sqrt()


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)).double()


def samples(seed: int, count: int = 40) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [
        (x[: count // 2], torch.zeros(count // 2, dtype=torch.long)),
        (x[count // 2 :], torch.ones(count // 2).long()),
    ]


@pytest.mark.parametrize("per", ["channel", "layer"])
def test_the_stated_error_of_probes_is_their_spread_over_seeds(plain, per):
    data = samples(0)
    true, stated = over_seeds(
        lambda seed: curvature(plain, data, per=per, estimator="hutchinson", draws=5, seed=seed), 200
    )
    assert float((stated / true).median()) == pytest.approx(1, abs=0.1)
    assert (stated / true).sub(1).abs().max() < 0.3


@pytest.mark.parametrize("estimator", ["sketched", "sampled"])
@pytest.mark.parametrize("per", ["channel", "weight", "layer"])
def test_the_stated_error_of_several_draws_is_their_spread_over_seeds(plain, estimator, per):
    data, options = samples(0), {"estimator": estimator, "per": per, "draws": 4}
    true, stated = over_seeds(lambda seed: curvature(plain, data, seed=seed, **options), 150)
    used = true > 1e-9
    assert used.float().mean() > 0.8
    assert float((stated / true)[used].median()) == pytest.approx(1, abs=0.2)
    assert (stated / true)[used].sub(1).abs().max() < 0.5


@pytest.mark.parametrize("estimator", ["sketched", "sampled"])
def test_the_stated_error_of_one_draw_bounds_its_spread_over_seeds(plain, estimator):
    data = samples(0)
    true, stated = over_seeds(lambda seed: curvature(plain, data, estimator=estimator, seed=seed), 150)
    assert (stated / true).min() > 0.85
    assert float((stated / true).median()) < (2 if estimator == "sampled" else 4)  # no empty promise


@pytest.mark.parametrize("estimator", ["sketched", "sampled"])
@pytest.mark.parametrize("per", ["channel", "weight"])
def test_the_stated_error_of_one_draw_is_its_spread_over_new_data(plain, estimator, per):
    options = {"estimator": estimator, "per": per}
    true, stated = over_seeds(lambda seed: curvature(plain, samples(1000 + seed), seed=seed, **options), 200)
    assert float((stated / true).median()) == pytest.approx(1, abs=0.1)
    assert (stated / true).sub(1).abs().max() < 0.4


@pytest.mark.parametrize("estimator", ["sketched", "sampled"])
def test_random_passes_are_unbiased(plain, estimator):
    data = samples(0)
    exact = curvature(plain, data, estimator="exact")
    found = curvature(plain, data, estimator=estimator, draws=400)
    for name, trace in exact.trace.items():
        assert ((found.trace[name] - trace) / found.error[name]).abs().max() < 4
        assert (found.trace[name] >= 0).all()


def test_a_single_probe_states_no_error(plain):
    found = curvature(plain, samples(0)[:1], estimator="hutchinson", draws=1)
    assert all(error.isnan().all() for error in found.error.values())


@given(
    classes=st.integers(2, 4), fan=st.integers(1, 4), positions=st.integers(1, 5), groups=st.sampled_from([1, 2]),
    count=st.integers(1, 5), cut=st.integers(1, 5), workspace=st.sampled_from([1, 500, 1 << 20]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=25)
def test_streaming_and_chunks_change_nothing(classes, fan, positions, groups, count, cut, workspace, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv1d(fan * groups, 4, 1, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(4 * positions, classes)
    ).double()
    x = torch.randn(count, fan * groups, positions, dtype=torch.float64)
    y = torch.randint(classes, (count,))
    for estimator, per in itertools.product(("exact", "sketched", "sampled", "empirical"), ("channel", "weight")):
        whole = curvature(model, [(x, y)], estimator=estimator, per=per, seed=seed)
        parts = curvature(
            model, [(x[:cut], y[:cut]), (x[cut:], y[cut:])][: 1 + (cut < count)], estimator=estimator, per=per,
            workspace=workspace, seed=seed,
        )  # fmt: skip
        for name in whole.trace:
            torch.testing.assert_close(parts.trace[name], whole.trace[name])
            torch.testing.assert_close(parts.error[name], whole.error[name], equal_nan=True, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_finds_the_same_with_the_same_probes(precision):
    """Entry by entry of one ``v * Hv``: sums would cancel."""
    model = network(Residual).float()
    options = {"per": "weight", "estimator": "hutchinson", "draws": 1, "seed": 5}
    wide = curvature(model, [(X.float(), Y)], **options)
    low = curvature(model, [(X.float(), Y)], **options, precision=precision)
    for name, trace in wide.trace.items():
        assert low.trace[name].dtype == torch.float32
        error = float((low.trace[name] - trace).norm() / trace.norm())
        assert 0 < error < (0.15 if precision == "bfloat16" else 0.02), name


@pytest.mark.parametrize("start", [1.0, 2.0**12, 2.0**28], ids=["small", "default", "overflowing"])
def test_the_scale_of_float16_is_divided_out_and_backs_off(start, monkeypatch):
    model = network(Residual).float()
    options = {"per": "weight", "estimator": "hutchinson", "draws": 2}
    wide = curvature(model, [(X.float(), Y)], **options)
    monkeypatch.setattr(hutchinson, "_SCALE", start)
    low = curvature(model, [(X.float(), Y)], **options, precision="float16")
    for name, trace in wide.trace.items():
        assert float((low.trace[name] - trace).norm() / trace.norm()) < 0.02, name


def test_a_probe_that_overflows_is_done_again_with_a_smaller_vector():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    with torch.no_grad():
        model[1].weight.mul_(1e-4)
    loud = [(2e4 * X.float(), Y)]  # v x is beyond 65504
    options = {"per": "weight", "estimator": "hutchinson", "draws": 2}
    wide, low = (curvature(model, loud, **options, precision=p) for p in ("float32", "float16"))
    for name, trace in wide.trace.items():
        assert float((low.trace[name] - trace).norm() / trace.norm()) < 0.02


def test_what_no_scale_helps_is_an_error():
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    with pytest.raises(NonFiniteError, match="NaN or infinite in float16"):
        curvature(model, [(1e6 * X.float(), Y)], estimator="hutchinson", precision="float16")


def test_the_same_seed_the_same_result(plain):
    for estimator in ("sketched", "sampled", "hutchinson"):
        one, same, other = (curvature(plain, samples(0), estimator=estimator, seed=s) for s in (1, 1, 2))
        for name in one.trace:
            assert torch.equal(one.trace[name], same.trace[name])
            assert not torch.equal(one.trace[name], other.trace[name])


@pytest.mark.parametrize("estimator", ["sketched", "sampled", "exact", "hutchinson", "empirical"])
def test_the_network_is_as_it_was(estimator):
    model = randomised(Residual()).float().train()
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    curvature(model, [(X.float(), Y)], estimator=estimator, draws=2 if estimator == "hutchinson" else None)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(m.training for m in model.modules())
    assert not model.conv1.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("estimator", ["sketched", "sampled", "exact", "hutchinson"])
def test_attached_and_folded_networks_have_the_same_curvature(estimator):
    model = network(Residual).float()
    attach(model, plan_for(model))
    folded = copy.deepcopy(model)
    fold(folded)
    found, plainly = (curvature(m, [(X.float(), Y)], estimator=estimator) for m in (model, folded))
    for name in plainly.trace:
        torch.testing.assert_close(found.trace[name], plainly.trace[name], rtol=1e-4, atol=1e-6)


def test_a_chosen_part_and_unused_layers():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare, self.ignored = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            z = self.used(x)
            self.ignored(z)
            return z

    data = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))]
    for estimator in ("exact", "sketched", "sampled", "hutchinson"):
        found = curvature(Spare(), data, estimator=estimator)
        assert found.trace["used.weight"].any()
        assert not found.trace["spare.weight"].any()
        assert not found.trace["ignored.weight"].any()
        assert list(curvature(Spare(), data, estimator=estimator, include=["used*"]).trace) == ["used.weight"]
    with pytest.raises(SelectionError, match="matches no weight"):
        curvature(Spare(), data, include=["other*"])


def test_sensitivity_is_the_second_order_cost_of_zeroing():
    model = network(Residual)
    weights = select(model)
    by = {per: curvature(model, BATCHES, per=per, estimator="exact") for per in ("weight", "channel", "layer")}
    costs = {per: sensitivity(found, weights)["conv2.weight"] for per, found in by.items()}
    w, diagonal = weights["conv2.weight"].detach(), by["weight"].trace["conv2.weight"]
    torch.testing.assert_close(costs["weight"], diagonal * w.square() / 2)
    torch.testing.assert_close(costs["channel"][2], diagonal[2].mean() * w[2].square().sum() / 2)
    torch.testing.assert_close(costs["layer"], diagonal.mean() * w.square().sum() / 2)
    with pytest.raises(MismatchError, match=r"conv2\.weight"):
        sensitivity(by["layer"], {name: w for name, w in weights.items() if name != "conv2.weight"})


@pytest.mark.parametrize("estimator", ["sketched", "sampled", "exact"])
def test_a_softmax_regression_in_closed_form(estimator):
    """Diagonal E[x_i^2 p_c (1 - p_c)], whatever the labels are."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4, bias=False)
    x = torch.randn(40_000, 3)
    p = model(x).softmax(1).detach()
    expected = torch.einsum("ni,nc->ci", x.square(), p * (1 - p)) / len(x)
    wrong = torch.zeros(20_000, dtype=torch.long)
    found = curvature(model, [(x[:20_000], wrong), (x[20_000:], wrong)], per="weight", estimator=estimator)
    torch.testing.assert_close(found.trace["weight"], expected, rtol=0.1, atol=0)
    by_layer = curvature(model, [(x[:20_000], wrong), (x[20_000:], wrong)], per="layer", estimator=estimator)
    assert float(by_layer.trace["weight"].sum()) == pytest.approx(float(expected.sum()), rel=0.05)


def test_a_layer_that_is_never_active_has_no_curvature():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    with torch.no_grad():
        model[1].bias.fill_(-1e3)  # no unit is ever active
    for per in ("layer", "channel"):
        found = curvature(model, [(X, Y)], per=per)
        assert not found.trace["1.weight"].any()


class TimeFirst(nn.Module):
    """The layer's first dimension is time, as long as the batch in the test."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:, 0, : len(x)].transpose(0, 1)[..., :2]).transpose(0, 1).sum(1)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.reshape(-1, 6)).reshape(len(x), -1, 2).sum(1)


class Borrowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(72, 72)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.inner(x.flatten(1)), self.inner.weight)


class Odd(nn.Module):
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, 2 * self.weight)

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.Scaled(72, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1))


class Doubling(Odd):
    class Scaled(Conv1D):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.Scaled(2, 72)


class Overwritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(72, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).clone()
        z = self.inner(x)
        with torch.no_grad():
            x.mul_(2)
        return z


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TimeFirst(), r"inner.weight: its gradient for one sample depends on the other samples"),
        (Flat(), r"inner.weight: its input has shape \(\d+, 6\) where the batch has 6 samples"),
        (Borrowed(), r"inner.weight: the network uses this weight outside of its layer's forward \(1 of 2"),
        (Odd(), r"inner.weight: Scaled has a forward of its own"),
        (Doubling(), r"inner.weight: Scaled has a forward of its own"),
        (Overwritten(), r"inner.weight: the layer's input is overwritten"),
        (
            nn.Sequential(
                nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 4)
            ),
            r"1.weight: its gradient for one sample depends on the other samples",
        ),
    ],
    ids=["time", "flat", "borrowed", "odd", "doubling", "overwritten", "batch statistics"],
)
def test_what_cannot_be_told_by_sample_is_an_error_that_names_the_layer(model, message):
    with pytest.raises(UnsupportedError, match=message):
        curvature(model.double(), [(X, Y % 2)])


@pytest.mark.parametrize("model", [Flat(), Borrowed(), Odd()], ids=["flat", "borrowed", "odd"])
def test_probes_take_those_too(model):
    found = curvature(model.double(), [(X, Y % 2)], estimator="hutchinson", draws=100, per="layer")
    w = model.inner.weight.detach().clone()

    def loss(w: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, {"inner.weight": w}, (X,)), Y % 2)

    if w.numel() > 1000:
        assert found.trace["inner.weight"].isfinite()
        return
    true = jacrev(jacrev(loss))(w).reshape(w.numel(), w.numel()).trace()
    assert float((found.trace["inner.weight"] - true.detach()).abs() / found.error["inner.weight"]) < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": "chanel"}, "per must be one of .* did you mean 'channel'"),
        ({"estimator": "hutch"}, "estimator must be one of"),
        ({"estimator": "hutchinson", "precision": "float8"}, "precision must be one of"),
        ({"precision": "bfloat16"}, "precision 'bfloat16' is for estimator 'hutchinson'"),
        ({"estimator": "exact", "draws": 2}, "leave draws out"),
        ({"draws": 0}, "draws must be a whole number of at least 1"),
        ({"workspace": 0}, "workspace must be at least 1 byte"),
    ],
)
def test_impossible_options(plain, options, message):
    with pytest.raises(RecipeError, match=message):
        curvature(plain, samples(0), **options)


@pytest.mark.parametrize("estimator", ["sampled", "hutchinson"])
def test_data_that_does_not_fit(plain, estimator):
    with pytest.raises(DataError, match="at least one sample"):
        curvature(plain, [], estimator=estimator)
    with pytest.raises(DataError, match="has class 4"):
        curvature(plain, [(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([4]))], estimator=estimator)


def test_empty_batches_are_passed_over() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    full = torch.randn(6, 3), torch.zeros(6, dtype=torch.long)
    empty = full[0][:0], full[1][:0]
    expected = curvature(model, [full], estimator="exact")
    found = curvature(model, [empty, full, empty], estimator="exact")
    assert found.samples == 6
    assert all(torch.equal(found.trace[n], expected.trace[n]) for n in expected.trace)
    with pytest.raises(DataError, match="at least one sample"):
        curvature(model, [empty])
    with pytest.raises(RecipeError, match="whole number"):
        curvature(model, [full], draws=1.5)
