"""Rules of competing channels as a training meets them: what they leave, on which layers, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.assign import global_magnitude
from fewbits.attach import attach, background
from fewbits.errors import RecipeError, UnsupportedError
from fewbits.recipe.training import Training
from fewbits.train import fit, plain
from fewbits.train.rules import rule_of
from fewbits.train.rules._hebbian import instar, on_the_sphere, winners
from fewbits.train.rules._linear import said
from fewbits.train.rules._soft_hebb import soft_hebb_direction, soft_hebb_step
from fewbits.weights import select
from learning import Skipping, batch_of, convolutional, directions

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(6) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(5, 3)
    )


def given_to(net: nn.Sequential, number: int) -> Tensor:
    with torch.no_grad():
        return net[:number](IMAGES)


def test_hebbian_leaves_the_way_to_the_sphere_and_thresholds() -> None:
    net = network()
    found = directions(rule_of("hebbian", {"rate": [0.5, 0.2], "adapt": 2.0}), net, batch_of(net, IMAGES, CLASSES))
    for number, rate in ((0, 0.5), (3, 0.2)):
        layer, x = net[number], given_to(net, number)
        u = said(layer, layer(x)).detach()
        y = winners(u if layer.bias is None else u + layer.bias.detach().reshape(1, 1, -1, 1))
        wanted = on_the_sphere(layer.weight.detach() + rate * instar(layer, x, y) / 6)
        torch.testing.assert_close(layer.weight.detach() - found[f"{number}.weight"], wanted)
    shares = winners(said(net[0], net[0](IMAGES)) + net[0].bias.reshape(1, 1, -1, 1)).mean((0, 3)).flatten()
    torch.testing.assert_close(found["0.bias"], 2.0 * (shares - 0.25))


def test_soft_hebb_leaves_its_step() -> None:
    net = network()
    options = {"rate": [0.5, 0.2], "temperature": [0.3, 2.0]}
    found = directions(rule_of("soft-hebb", options), net, batch_of(net, IMAGES, CLASSES))
    for number, rate, temperature in ((0, 0.5, 0.3), (3, 0.2, 2.0)):
        layer, x = net[number], given_to(net, number)
        direction = soft_hebb_direction(layer, x, said(layer, layer(x)).detach(), temperature)
        torch.testing.assert_close(found[f"{number}.weight"], -soft_hebb_step(layer.weight.detach(), direction, rate))
    assert "0.bias" not in found


@pytest.mark.parametrize("rule", ["hebbian", "soft-hebb"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_gets_the_gradient_of_its_own_loss_without_the_mean(rule: str, bias: bool) -> None:
    """Times the inputs' covariance it is the loss's own gradient: it goes down, and frozen features suffice."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=bias)).double()
    x, t = torch.randn(50, 4).double() + 1, torch.arange(50) % 3
    found = directions(rule_of(rule), net, batch_of(net, x, t))
    head, features = net[2], net[:2](x).detach()
    mean = features.mean(0) if bias else torch.zeros(6).double()
    centred = features - mean
    weight = head.weight.detach().requires_grad_()
    shift = torch.zeros(3).double() if not bias else (head.bias + head.weight @ mean).detach().requires_grad_()
    loss = F.cross_entropy(centred @ weight.T + shift, t)
    slopes = torch.autograd.grad(loss, [weight, shift] if bias else [weight])
    square = centred.square().sum(1).mean()
    torch.testing.assert_close(found["2.weight"], slopes[0] / square)
    if bias:  # the outputs change as those of a layer of centred inputs do
        torch.testing.assert_close(found["2.bias"] + found["2.weight"] @ mean, slopes[1])


def test_steps_of_one_never_raise_the_loss_of_a_readout_however_long_features_are() -> None:
    torch.manual_seed(0)
    x, t = 1000 * torch.randn(200, 7) + 500, torch.arange(200) % 3
    net, losses = nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), []
    for _ in range(30):
        batch = batch_of(net, x, t)
        losses.append(float(batch.forward()[1].detach()))
        found = directions(rule_of("hebbian"), net, batch)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter -= found[name]
    assert losses == sorted(losses, reverse=True)


def test_a_learning_rate_of_one_applies_the_formula_and_zeros_stay() -> None:
    net = network()
    with torch.no_grad():
        net[3].weight[:, :2] = 0
    settings = Training(epochs=3, lr=1.0, schedule="constant")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    fit(net, [(IMAGES, CLASSES)], plain(), optimizer, settings, rule=rule_of("hebbian"))
    for number in (0, 3):
        torch.testing.assert_close(net[number].weight.flatten(1).norm(dim=1), torch.ones(len(net[number].weight)))
    assert not net[3].weight[:, :2].any()
    found = directions(rule_of("hebbian", {"keep_zeros": False}), net, batch_of(net, IMAGES, CLASSES))
    assert found["3.weight"][:, :2].any()


def test_residual_networks_learn_in_every_layer() -> None:
    torch.manual_seed(0)
    net = Skipping()
    found = directions(rule_of("soft-hebb"), net, batch_of(net, IMAGES, CLASSES))
    assert {name for name in found if name.endswith("weight")} == {
        "stem.weight", "inner.weight", "outer.weight", "head.weight"
    }  # fmt: skip
    assert all(bool(slope.any()) for slope in found.values())


def test_directions_go_through_masks_to_background_weights() -> None:
    net = network()
    weights, assigner = select(net), global_magnitude(0.5)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    attach(net, plan)
    net[0].parametrizations.weight.original.requires_grad_(False)
    batch = batch_of(net, IMAGES, CLASSES)
    rule_of("soft-hebb").update(net, batch, rule_of("soft-hebb").init(net))
    slopes = {name: w.grad for name, w in background(net).items()}
    assert slopes["0.weight"] is None, "frozen"
    assert slopes["3.weight"].any()
    assert slopes["5.weight"].any()


def test_what_cannot_be_learnt_is_refused_by_its_name() -> None:
    depthwise = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 3))
    attention = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    for net, inputs, message in (
        (depthwise, IMAGES, "^1: each of its channels sees other inputs"),
        (attention, torch.ones(6, dtype=torch.long), r"^0 \(Embedding, weight\) is no linear or convolutional layer"),
        (nn.Sequential(nn.Flatten()), IMAGES, "has no linear or convolutional layer"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            directions(rule_of("hebbian"), net, batch_of(net, inputs, CLASSES))
    depthwise[1].requires_grad_(False)
    assert "1.weight" not in directions(rule_of("hebbian"), depthwise, batch_of(depthwise, IMAGES, CLASSES))


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("hebbian", {"rate": [0.1, 0.2, 0.3]}, "rate has 3 values, and 2 hidden layers of the network learn"),
        ("soft-hebb", {"temperature": 0}, "rule soft-hebb: temperature"),
        ("soft-hebb", {"temperatur": 1}, "no option 'temperatur'; did you mean 'temperature'"),
        ("hebbian", {"count": 0}, "rule hebbian: count"),
    ],
)
def test_impossible_options_are_refused(rule: str, options: dict[str, object], message: str) -> None:
    net = convolutional()
    with pytest.raises(RecipeError, match=message):
        directions(rule_of(rule, options), net, batch_of(net, IMAGES, CLASSES))


class TwoHeads(nn.Module):
    """An auxiliary head that is called before layers it has nothing to do with; in place where one may write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.aux = nn.Linear(5, 6), nn.Linear(6, 3)
        self.second, self.main = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x))
        side = self.aux(x)
        return side + self.main(torch.relu_(self.second(x)))


@pytest.mark.parametrize("name", ["hebbian", "soft-hebb"])
def test_an_auxiliary_head_learns_by_the_loss(name: str) -> None:
    """It gets the direction that the same layer gets as the last one of a network without the other head."""
    torch.manual_seed(0)
    net, x = TwoHeads(), torch.randn(12, 5)
    rule, batch = rule_of(name, {"rate": [0.01, 0.02]}), batch_of(net, x, torch.arange(12) % 3)
    state = rule.init(net)
    _, _, state = rule.update(net, batch, state)
    assert (state["order"], state["heads"]) == (["first", "aux", "second", "main"], ["aux", "main"])
    features = torch.relu(net.first(x)).detach()
    outputs = net(x)
    (error,) = torch.autograd.grad(batch.loss_of(outputs), outputs)
    mean = features.mean(0)
    square = features.square().sum(1).mean() - mean.square().sum()
    torch.testing.assert_close(net.aux.weight.grad, error.T @ (features - mean) / square, rtol=1e-4, atol=1e-6)


def test_a_hidden_layer_that_the_outputs_read_too_is_no_head() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.main = nn.Linear(5, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x + self.main(x)

    net, rule = Skip(), rule_of("hebbian")
    _, _, state = rule.update(net, batch_of(net, torch.randn(6, 5), torch.arange(6) % 3), rule.init(net))
    assert state["heads"] == ["main"]
