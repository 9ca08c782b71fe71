import pytest
import torch
from torch import fx, nn

from fewbits import zoo
from fewbits.errors import RecipeError

IMAGE = (3, 32, 32)
# Name, input, classes, weights (tensors of two or more dimensions), other parameters.
# mlp-gsc and vgg16: ECQx, section 5.1. lenet-300-100 and lenet-5: Han et al. 2015, table 1 (266,200 and
# 430,500 weights). resnet-20: He et al. 2016 give 0.27 M, resnet-56 0.85 M. wrn-28-8: 23.4 M in Zagoruyko and
# Komodakis 2016. mobilenet-v2: 2.3 M.
COUNTS = [
    ("conv-net", IMAGE, 10, 905_500, 706),
    ("digits-net", (1, 8, 8), 10, 151_072, 330),
    ("fastgrnn", (6, 128), 2, 7_040, 164),
    ("lenet-300-100", (1, 28, 28), 10, 266_200, 410),
    ("lenet-5", (1, 28, 28), 10, 430_500, 580),
    ("mlp-gsc", (255,), 12, 640_000, 1_804),
    ("mobilenet-v2", IMAGE, 10, 2_261_824, 35_098),
    ("resnet-20", IMAGE, 10, 268_336, 1_386),
    ("resnet-32", IMAGE, 10, 461_872, 2_282),
    ("resnet-44", IMAGE, 10, 655_408, 3_178),
    ("resnet-56", IMAGE, 10, 848_944, 4_074),
    ("soft-hebb-net", IMAGE, 10, 5_893_152, 10),
    ("vgg16", IMAGE, 10, 14_977_728, 4_746),
    ("vgg16-bn", IMAGE, 10, 14_977_728, 14_218),
    ("wrn-22-8", IMAGE, 10, 17_147_312, 10_794),
    ("wrn-28-8", IMAGE, 10, 23_340_464, 14_378),
]


def test_every_network_is_counted():
    assert sorted(row[0] for row in COUNTS) == sorted(zoo.NETWORKS)


@pytest.mark.parametrize(("name", "shape", "classes", "weights", "others"), COUNTS)
def test_counts_shapes_and_tracing(name, shape, classes, weights, others):
    model = zoo.build(name, seed=0).eval()
    sizes = [(p.ndim >= 2, p.numel()) for p in model.parameters()]
    assert sum(n for is_weight, n in sizes if is_weight) == weights
    assert sum(n for is_weight, n in sizes if not is_weight) == others
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    traced = fx.symbolic_trace(model)
    with torch.inference_mode():
        expected = model(x)
        assert expected.shape == (2, classes)
        assert torch.isfinite(expected).all()
        assert torch.equal(traced(x), expected)


FEED_FORWARD = sorted(set(zoo.NETWORKS) - {"fastgrnn"})


@pytest.mark.parametrize("name", FEED_FORWARD)
def test_no_module_is_called_twice(name):
    """Tools that keep a record by module need one module per use."""
    graph = fx.symbolic_trace(zoo.build(name, seed=0)).graph
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert len(called) == len(set(called))
    functions = {node.target.__name__ for node in graph.nodes if node.op == "call_function"}
    triangle = {"sub", "relu", "pow"} if name == "soft-hebb-net" else set()
    assert functions <= {"add", "pad", "getitem", *triangle}


@pytest.mark.parametrize("name", sorted(set(FEED_FORWARD) - {"soft-hebb-net"}))
def test_activations_are_modules_of_their_own_and_not_in_place(name):
    relus = [module for module in zoo.build(name, seed=0).modules() if isinstance(module, nn.ReLU)]
    assert relus
    assert not any(relu.inplace for relu in relus)


def test_fastgrnn_is_its_equations_step_by_step():
    model = zoo.build("fastgrnn", seed=1, inputs=3, steps=5, hidden=4, rank_w=2, rank_u=3)
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    p = {name: value.detach() for name, value in model.named_parameters()}
    w, u = p["w.1.weight"] @ p["w.0.weight"], p["u.1.weight"] @ p["u.0.weight"]
    h = torch.zeros(2, 4)
    for t in range(5):
        z = torch.sigmoid(x[:, :, t] @ w.T + h @ u.T + p["gate_bias"])
        c = torch.tanh(x[:, :, t] @ w.T + h @ u.T + p["candidate_bias"])
        h = (torch.sigmoid(p["zeta"]) * (1 - z) + torch.sigmoid(p["nu"])) * c + z * h
    assert torch.allclose(model(x), h @ p["head.weight"].T + p["head.bias"], atol=1e-6)


def test_a_triangle_is_what_lies_above_the_mean_of_the_channels():
    x = torch.tensor([[1.0, 2.0, 6.0]]).reshape(1, 3, 1, 1)
    assert zoo.Triangle(1.0)(x).flatten().tolist() == [0, 0, 3]
    assert zoo.Triangle(2.0)(x).flatten().tolist() == [0, 0, 9]


def test_hebbian_networks_have_sparse_masks_and_unit_samples():
    net = zoo.build("conv-net", seed=0, activation="triangle", normalise=True, sparsity=0.99)
    shares = [float((m.weight == 0).float().mean()) for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert shares == [0, pytest.approx(0.99, abs=0.002), pytest.approx(0.99, abs=0.002)]
    x = net.features[0](5 * torch.randn(4, *IMAGE) + 3).flatten(1)
    torch.testing.assert_close(x.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std(1), torch.ones(4), atol=1e-3, rtol=0)
    soft = zoo.build("soft-hebb-net", seed=0)
    lengths = torch.cat([m.weight.flatten(1).norm(dim=1) for m in soft.modules() if isinstance(m, nn.Conv2d)])
    assert float(lengths.detach().mean()) == pytest.approx(25, rel=0.02)
    for options in ({"activation": "step"}, {"filters": [1, 2, 3, 4]}, {"size": 9}):
        with pytest.raises(RecipeError):
            zoo.build("conv-net", **options)


def test_mlp_layers_are_the_papers():
    linear = [m for m in zoo.MLPGSC().modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] == [255, 512, 512, 256, 256, 128, 128]
    assert linear[-1].out_features == 12


def test_vgg16_size_is_the_papers():
    """59,929.9 kB in float32 (ECQx, table 1)."""
    assert round(sum(4 * p.numel() for p in zoo.VGG16().parameters()) / 1000, 1) == 59_929.9


def test_vgg16_bn_without_dropout_takes_the_same_weights():
    plain, dropping = zoo.build("vgg16-bn", dropout=False).train(), zoo.build("vgg16-bn").train()
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    x = torch.randn(4, *IMAGE)
    assert torch.equal(plain(x), plain(x))
    assert not torch.equal(dropping(x), dropping(x))


def test_pad_shortcut_subsamples_and_adds_zero_channels():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    out = zoo.PadShortcut(3, 7)(x)
    assert out.shape == (2, 7, 2, 2)
    assert torch.equal(out[:, 2:5], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 5:].any()


def test_pad_shortcut_can_be_a_leaf():
    class TracedGraph(fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, zoo.PadShortcut) or super().is_leaf_module(m, name)

    model = zoo.ResNet20()
    nodes = list(TracedGraph().trace(model).nodes)
    assert sum(isinstance(model.get_submodule(n.target), zoo.PadShortcut) for n in nodes if n.op == "call_module") == 2
    assert {n.target.__name__ for n in nodes if n.op == "call_function"} == {"add"}


def test_seed_fixes_the_weights_and_spares_the_global_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = zoo.build("digits-net", seed=3), zoo.build("digits-net", seed=3)
    other = zoo.build("digits-net", seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier[1].weight, other.classifier[1].weight)


def test_options_reach_the_network():
    assert zoo.build("resnet-20", classes=100).linear.out_features == 100
    model = zoo.build("lenet-5", channels=3, size=32)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet20", {}, "did you mean 'resnet-20'"),
        ("digits-net", {"clases": 3}, "did you mean 'classes'"),
        ("lenet-5", {"size": 8}, "at least 16"),
        ("mlp-gsc", {"classes": "ten"}, "cannot be built"),
        ("vgg16-bn", {"dropout": 0.5}, "true or false"),
    ],
)
def test_unusable_names_and_options(name, options, says):
    with pytest.raises(RecipeError, match=says):
        zoo.build(name, **options)


@pytest.mark.parametrize(("cls", "depth"), [(zoo.ResNet, 21), (zoo.ResNet, 2), (zoo.WideResNet, 20)])
def test_impossible_depths(cls, depth):
    with pytest.raises(ValueError, match="depth must be"):
        cls(depth, 1)


def test_vgg16_without_batchnorm_keeps_its_signal():
    """With torch's default initialisation different images give the same features to one part in 10,000."""
    model = zoo.build("vgg16", seed=0).eval()
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model.features(x).flatten(1)
    assert features.std(dim=0).mean() > 0.05 * features.mean()
