"""Which channels go together, told by hand, and by Torch-Pruning."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from channel_networks import Attention, Drawn
from fewbits import zoo
from fewbits.attach import attach
from fewbits.channels import Dependencies, dependencies
from fewbits.errors import SelectionError, UnsupportedError
from networks import plan_for


def sizes(found: Dependencies) -> list[int]:
    return sorted(len(group) for group in found.groups)


def test_a_residual_sum_ties_its_branches() -> None:
    found = dependencies(Drawn(["residual"], 4, flat=True), (2, 6, 6))
    assert sizes(found) == [4, 4]
    stream = found.members(int(found.axes["stem.0.weight"][0][1]))
    assert ("parts.0.1.weight", 0, 1) in stream
    assert ("parts.0.0.0.weight", 1, 1) in stream
    assert {i for name, dim, i in stream if (name, dim) == ("head.weight", 1)} == set(range(16, 32))
    assert not any(name.startswith("parts.0.0.0") and dim == 0 for name, dim, _ in stream)


def test_the_shortcut_that_pads_channels_loses_padding() -> None:
    """16 channels come from the first stage and 16 are new: half of these before them, half behind."""
    found = dependencies(zoo.build("resnet-20"), (3, 32, 32))
    before, after = found.paddings["layer2.0.shortcut.pad"]
    second = found.axes["layer2.0.conv2.weight"][0]
    assert torch.equal(second, torch.cat([before, found.axes["conv1.weight"][0], after]))
    assert found.fixed == {"linear.weight": "it is an output of the network"}


def test_inputs_and_outputs_stay() -> None:
    found = dependencies(Drawn(["plain"], 4, flat=False), (2, 6, 6))
    assert bool((found.axes["stem.0.weight"][1] == -1).all())
    assert "head.bias" not in found.axes
    assert bool((found.axes["head.weight"][0] == -1).all())


@pytest.mark.parametrize(("heads", "size", "units"), [(3, -1, 4), (-1, 4, 3), (3, 4, 0)])
def test_attention_gives_up_what_its_reshape_leaves_open(heads: int, size: int, units: int) -> None:
    found = dependencies(Attention(heads, size), (7, 5))
    vectors = [found.axes[f"{name}.weight"][0] for name in ("q", "k", "v") if f"{name}.weight" in found.axes]
    assert len(vectors) == (3 if units else 0)
    # q and k are multiplied along the places of a head, and weights of a head are for its values.
    assert [len(torch.unique(v)) for v in vectors] == [units] * len(vectors)
    if size == 4 and heads == -1:
        assert torch.equal(vectors[0], vectors[1])
        assert torch.equal(vectors[0], vectors[2])
        assert torch.equal(vectors[0], vectors[0][:1].expand(4).repeat(3) + torch.arange(3).repeat_interleave(4))
    if size == -1:
        assert torch.equal(vectors[0], vectors[1])
        assert not set(vectors[0].tolist()) & set(vectors[2].tolist())
    assert "up.weight" in found.axes  # the MLP's hidden channels
    assert "LayerNorm" in found.fixed["embed.weight"]
    assert ("fixed sizes" in found.fixed.get("q.weight", "")) == (units == 0)


def test_fused_attention_scales_by_the_size_of_a_query() -> None:
    found = dependencies(Attention(3, -1, fused=True), (7, 5))
    assert "v.weight" in found.axes
    assert "length of a query" in found.fixed["q.weight"]
    heads = dependencies(Attention(-1, 4, fused=True), (7, 5))
    assert "q.weight" in heads.axes


class Uses(nn.Module):
    """Two linear layers around any operation."""

    def __init__(self, between: object, width: int = 6, after: int = 6) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, width), nn.Linear(after, 2), between
        self.extra = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self, torch.relu(self.first(x))))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("between", "word"),
    [
        (lambda m, x: torch.softmax(x, 1), "normalises"),
        (lambda m, x: x[:, :6], None),
        (lambda m, x: torch.cat([x[:, 3:], x[:, :3]], 1), "numbers"),
        (lambda m, x: x * m.extra, None),
        (lambda m, x: torch.cumsum(x, 1), "runs over"),
        (lambda m, x: torch.fft.rfft(x).real[:, [0, 1, 2, 3, 0, 1]], "no rule"),
        (lambda m, x: x.view(-1, 6), "fixed sizes"),
        (lambda m, x: x.view(x.size(0), -1), None),
        (lambda m, x: x.reshape(x.shape[0], x.shape[1] // 2, 2).flatten(1), None),
        (lambda m, x: F.pad(x, (0, 0)), None),
        (lambda m, x: torch.cat(tensors=[x], dim=1), None),
        (lambda m, x: x.view(x.shape[:1][0], -1), None),
        (lambda m, x: F.layer_norm(x, (6,)), "normalises"),
        (lambda m, x: x - x.mean(1, keepdim=True), "runs over"),
        (lambda m, x: x.unsqueeze(1).expand(-1, 2, -1).mean(1), None),
    ],
)
def test_what_an_operation_allows(between: object, word: str | None) -> None:
    if word is None:
        found = dependencies(Uses(between), (4,))
        assert found.count in (6, 3)
        assert "first.weight" in found.axes
        return
    with pytest.raises(UnsupportedError, match=word) as caught:
        dependencies(Uses(between), (4,))
    assert "first.weight" in str(caught.value)


def test_multi_head_attention_of_torch_stays_whole() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.attention = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.down(torch.relu(self.up(x))).mean(1)

    found = dependencies(Block(), (7, 5))
    assert found.count == 16
    assert "MultiheadAttention" in found.fixed["embed.weight"]
    assert not any(name.startswith("attention") for name in found.axes)


def test_shared_layers_and_weights_are_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.head = (nn.Linear(4, 4) for _ in range(4))
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.c(self.b(self.b(torch.relu(self.a(x))))))

    found = dependencies(Twice(), (4,))
    assert torch.equal(found.axes["b.weight"][0], found.axes["b.weight"][1])
    assert torch.equal(found.axes["b.weight"][0], found.axes["c.weight"][0])
    assert torch.equal(found.axes["a.weight"][0], found.axes["c.bias"][0])


def test_a_network_that_carries_a_plan_is_refused() -> None:
    model = Drawn(["plain"], 4, flat=False)
    attach(model, plan_for(model))
    with pytest.raises(SelectionError, match="fold it"):
        dependencies(model, (2, 6, 6))


CHAINS = [["residual", "plain"], ["concat"], ["depthwise"], ["plain", "residual", "concat"], ["split"]]


# Behind a concatenation or a split, Torch-Pruning 1.6.1 takes wrong columns of a layer that flattens; there, only the
# property tests judge.
@pytest.mark.parametrize(("blocks", "flat"), [(b, False) for b in CHAINS] + [(CHAINS[0], True), (CHAINS[2], True)])
def test_groups_are_those_of_torch_pruning(blocks: list[str], flat: bool) -> None:
    """For every channel of every layer the same members as a library finds that reads autograd."""
    tp = pytest.importorskip("torch_pruning")
    model = Drawn(blocks, 4, flat).eval()
    found = dependencies(model, (2, 6, 6))
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=torch.randn(1, 2, 6, 6))
    names = {module: path for path, module in model.named_modules()}
    conv, depthwise = tp.prune_conv_out_channels, tp.prune_depthwise_conv_out_channels
    outputs = {f.__func__ for f in (conv, depthwise, tp.prune_linear_out_channels, tp.prune_batchnorm_out_channels)}
    grouped = {f"{path}.weight" for path, m in model.named_modules() if getattr(m, "groups", 1) > 1}
    compared = 0
    for layer in found.outputs:
        path = layer.removesuffix(".weight")
        units = found.axes.get(layer, (None,))[0]
        if units is None or path == "head":
            continue
        module = model.get_submodule(path)
        for index, unit in enumerate(units.tolist()):
            theirs = set()
            for dependency, indices in graph.get_pruning_group(
                module, depthwise if layer in grouped else conv, [index]
            ):
                target = dependency.target.module
                if target in names and any(True for _ in target.parameters(recurse=False)):
                    dim = 0 if dependency.handler.__func__ in outputs else 1
                    theirs.update((f"{names[target]}.weight", dim, int(i)) for i in indices)
            theirs = {member for member in theirs if not (member[0] in grouped and member[1] == 1)}
            mine = {member for member in found.members(unit) if member[0].endswith(".weight")}
            assert mine == theirs, (layer, index)
            compared += 1
    assert compared > 4
