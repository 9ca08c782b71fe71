"""Operations for networks drawn at random: each is a line of Python, as people write it, and the layers that it needs.

An operation is a function ``(draw, v) -> expression`` over a variable of a certain number of dimensions. It may name
other variables and give the network layers (``draw.layer``) and parameters. It need not fit: a line that does not run
is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Operation = Callable[[Any, str], str]

POINTWISE = (
    "F.relu({v})", "torch.relu({v})", "{v}.relu()", "F.gelu({v})", "F.silu({v})", "torch.sigmoid({v})",
    "{v}.sigmoid()", "torch.tanh({v})", "{v}.tanh()", "F.leaky_relu({v}, 0.1)", "F.hardswish({v})", "F.elu({v})",
    "F.relu6({v})", "F.softplus({v})", "F.hardtanh({v})", "{v}.clamp(min=0)", "torch.clamp({v}, -1, 1)", "{v}.abs()",
    "{v} ** 2", "{v}.pow(2)", "{v} * 0.5", "0.5 * {v}", "1 - {v}", "-{v}", "{v} / 2", "2 / ({v}.abs() + 1)",
    "torch.exp(-{v}.abs())", "{v} + 1", "{v} - 0.5", "{v}.mul(0.5)", "{v}.add(1)", "torch.mul({v}, 0.5)",
    "F.mish({v})", "F.logsigmoid({v})", "F.hardsigmoid({v})", "{v}.square()", "({v} > 0) * {v}",
    "{v}.contiguous()", "{v}.clone()", "F.selu({v})", "F.celu({v})", "F.softsign({v})", "torch.sin({v})",
    "F.dropout({v}, 0.1, self.training)", "F.threshold({v}, 0.1, 0.0)", "torch.where({v} > 0, {v}, 0.1 * {v})",
    "{v} * torch.sigmoid({v})", "{v}.rsub(1)", "torch.rsqrt({v}.square() + 1)", "{v}.type_as({v})",
    "{v} * {v}.shape[1] ** -0.5", "{v} / {v}.size(1)", "{v} + torch.zeros_like({v})", "{v}.to({v}.dtype)",
)  # fmt: skip
IN_PLACE = (
    "F.relu({v}, inplace=True)", "{v}.mul_(0.5)", "{v}.add_(1)", "torch.relu_({v})", "{v}.clamp_(-1, 1)",
    "{v}.relu_()", "F.silu({v}, inplace=True)", "F.relu_({v})", "{v}.sigmoid_()",
)  # fmt: skip
MODULES = (
    "nn.ReLU()", "nn.ReLU(inplace=True)", "nn.ReLU6()", "nn.GELU()", "nn.SiLU()", "nn.Sigmoid()", "nn.Tanh()",
    "nn.LeakyReLU(0.1)", "nn.Hardswish()", "nn.ELU()", "nn.PReLU()", "nn.Softplus()", "nn.Hardtanh()", "nn.Mish()",
    "nn.Hardsigmoid()", "nn.Identity()", "nn.Dropout(0.1)", "nn.SELU()", "nn.LogSigmoid()", "nn.Softsign()",
    "nn.CELU()", "nn.Threshold(0.1, 0.0)", "nn.RReLU()", "nn.Softshrink(0.1)", "nn.GELU(approximate='tanh')",
)  # fmt: skip
BINARY = (
    "{v} + {w}", "torch.add({v}, {w})", "{v}.add({w})", "{v} - {w}", "{v} * {w}", "torch.mul({v}, {w})", "{v}.mul({w})",
    "torch.maximum({v}, {w})", "torch.minimum({v}, {w})", "{v} / ({w}.abs() + 1)", "{v} * torch.sigmoid({w})",
    "{v} + 0.5 * {w}", "torch.add({v}, {w}, alpha=0.5)", "torch.lerp({v}, {w}, 0.3)", "{v}.sub({w})",
    "torch.where({w} > 0, {v}, {w})", "torch.addcmul({v}, {w}, {v}, value=0.1)", "sum([{v}, {w}])",
    "torch.stack([{v}, {w}]).sum(0)", "torch.stack([{v}, {w}], dim=1).mean(1)", "torch.sub({v}, {w})",
    "torch.stack(({v}, {w}), -1).amax(-1)", "torch.div({v}, {w}.abs() + 1)", "torch.sum(torch.stack([{v}, {w}]), 0)",
)  # fmt: skip


def pointwise(d: Any, v: str) -> str:
    return d.pick(POINTWISE).format(v=v)


def in_place(d: Any, v: str) -> str:
    """What it writes over is no input, and often a fresh value."""
    fresh = d.pick(("({v} * 0.5)", "({v} + 1)", "{v}", "{v}"))
    return d.pick(IN_PLACE).format(v=(fresh if v not in d.inputs else "({v} * 0.5)").format(v=v))


def module(d: Any, v: str) -> str:
    return f"{d.layer('act', d.pick(MODULES))}({v})"


def binary(d: Any, v: str) -> str:
    return d.pick(BINARY).format(v=v, w=d.other(v, same=True))


def broadcast(d: Any, v: str) -> str:
    """Two operands of other shapes, or a vector of one over the places of the other."""
    w = d.other(v)
    if d.dims(v) == 4 and d.dims(w) == 2:
        w = d.pick(("{w}[:, :, None, None]", "{w}.unsqueeze(-1).unsqueeze(-1)", "{w}.view({w}.size(0), -1, 1, 1)"))
        w = w.format(w=d.other(v, dims=2))
    elif d.dims(v) == 3 and d.dims(w) == 2:
        w = d.pick(("{w}.unsqueeze(1)", "{w}[:, None]", "{w}[..., None]")).format(w=w)
    return d.pick(BINARY[:9]).format(v=v, w=w)


def constant(d: Any, v: str) -> str:
    """A parameter or a buffer of the network's own as an operand."""
    shape = d.shape(v)[1:]
    axis = d.number(len(shape))
    wide = [size if a == axis else 1 for a, size in enumerate(shape)]
    size = d.pick(([1], wide, [1, *wide], list(shape), wide[axis:]))
    made = d.pick((f"torch.rand({size}) + 0.5", f"torch.randn({size}) * 0.3"))
    held = d.parameter("p", made) if d.chance(0.7) else d.buffer("b", made)
    return d.pick(BINARY[:9]).format(v=v, w=held)


def joined(d: Any, v: str) -> str:
    others = [d.other(v, dims=d.dims(v)) for _ in range(d.pick((1, 1, 2)))]
    parts = ", ".join([v, *others] if d.chance(0.6) else [*others, v])
    axis = d.pick((1, 1, 1, -1, d.dims(v) - 1, 2))
    return d.pick(
        (f"torch.cat([{parts}], {axis})", f"torch.cat(({parts}), dim={axis})", f"torch.concat([{parts}], {axis})")
    )


def parts(d: Any, v: str) -> str:
    """Split, and joined or added again."""
    axis = d.pick((1, 1, 1, -1, 2))
    size = d.shape(v)[axis] if axis < d.dims(v) else 2
    made = d.pick((
        f"{v}.chunk(2, {axis})", f"torch.chunk({v}, 2, dim={axis})", f"{v}.split({max(1, size // 2)}, {axis})",
        f"torch.split({v}, {max(1, size // 2)}, dim={axis})", f"{v}.split([1, {size - 1}], {axis})",
        f"torch.split({v}, [{size - 2}, 2], {axis})", f"{v}.chunk(3, dim={axis})", f"{v}.tensor_split(2, {axis})",
        f"torch.tensor_split({v}, [1], dim={axis})",
        f"{v}.unbind({axis})[:2]",
    ))  # fmt: skip
    halves = d.line(made)
    return d.pick((
        f"{halves}[0]", f"{halves}[1]", f"{halves}[0] + {halves}[1]", f"{halves}[0] * torch.sigmoid({halves}[1])",
        f"torch.cat([{halves}[1], {halves}[0]], {axis})", f"torch.cat([F.relu({halves}[0]), {halves}[1]], {axis})",
        f"torch.cat({halves}, {axis})", f"torch.cat([h * 0.5 for h in {halves}], {axis})", f"sum({halves})",
        f"{halves}[-1]",
    ))  # fmt: skip


def taken(d: Any, v: str) -> str:
    """Slices and picks."""
    size = d.shape(v)[1]
    half = max(1, size // 2)
    return d.pick((
        f"{v}[:, :{half}]", f"{v}[:, {half}:]", f"{v}[:, ::2]", f"{v}[..., :-1]", f"{v}[..., 1:]",
        f"{v}[:, [0, {size - 1}]]",
        f"{v}.narrow(1, 0, {half})", f"torch.narrow({v}, 1, 0, {half})", f"{v}[:, 0]", f"{v}[:, -1]", f"{v}[:]",
        f"{v}.index_select(1, torch.tensor([0, {size - 1}]))", f"{v}[:, : {v}.shape[1] // 2]", f"{v}[:, 0:1]",
        f"torch.flip({v}, [1])", f"{v}.roll(1, 1)", f"torch.roll({v}, 1, -1)", f"{v}.flip(-1)", f"{v}.select(1, 0)",
        f"{v}.repeat_interleave(2, 1)", f"{v}.repeat(1, 2{', 1' * (d.dims(v) - 2)})",
        f"torch.tile({v}, (1, 2{', 1' * (d.dims(v) - 2)}))",
        f"{v}.index_select(1, {d.buffer('order', f'torch.randperm({size})')})",
    ))  # fmt: skip


def softmax(d: Any, v: str) -> str:
    return d.pick((
        f"F.softmax({v}, dim=-1)", f"{v}.softmax(1)", f"torch.softmax({v}, 1)", f"F.log_softmax({v}, dim=1)",
        f"{d.layer('softmax', 'nn.Softmax(dim=1)')}({v})", f"F.glu({v}, 1)", f"{d.layer('glu', 'nn.GLU(dim=1)')}({v})",
        f"F.normalize({v}, dim=1)", f"{v} / {v}.norm(dim=1, keepdim=True).clamp_min(0.1)", f"{v}.cumsum(1)",
        f"{v} - {v}.mean(1, keepdim=True)", f"{v} * torch.rsqrt({v}.pow(2).mean(-1, keepdim=True) + 0.1)",
    ))  # fmt: skip


# -- images [n, c, h, w] ----------------------------------------------------------------------------------------------


def convolution(d: Any, v: str) -> str:
    channels = d.shape(v)[1]
    kind = d.pick(("plain", "plain", "plain", "grouped", "depthwise", "multiplied", "transposed", "functional"))
    kernel = d.pick((1, 3, 3, 2))
    more = d.pick(
        ("", "", ", stride=2", ", dilation=2", ", padding='same'", ", padding=1", ", padding=1", ", padding=1")
    )
    more += d.pick(("", "", ", bias=False"))
    outputs = d.pick((4, 6, 8, channels))
    if kind == "functional":
        held = d.parameter("w", f"torch.randn({outputs}, {channels}, {kernel}, {kernel}) * 0.2")
        return f"F.conv2d({v}, {held}, padding={kernel // 2})"
    if kind == "transposed":
        groups = d.pick((1, 1, 2, channels))
        return f"{d.layer('up', f'nn.ConvTranspose2d({channels}, {channels}, 2, stride=2, groups={groups})')}({v})"
    groups, outputs = {
        "plain": (1, outputs), "grouped": (2, 2 * d.pick((2, 3, 4))), "depthwise": (channels, channels),
        "multiplied": (channels, 2 * channels),
    }[kind]  # fmt: skip
    if d.chance(0.1):
        more = ", padding=1, padding_mode='reflect'"
    made = f"nn.Conv2d({channels}, {outputs}, {kernel}{more}" + (f", groups={groups})" if groups > 1 else ")")
    if d.chance(0.25):
        made = f"nn.Sequential({made}, nn.BatchNorm2d({outputs}), {d.pick(MODULES)})"
    return f"{d.layer('conv', made)}({v})"


def norm_2d(d: Any, v: str) -> str:
    c, h, w = d.shape(v)[1:]
    return d.layer("norm", d.pick((
        f"nn.BatchNorm2d({c})", f"nn.BatchNorm2d({c})", f"nn.BatchNorm2d({c})", f"nn.BatchNorm2d({c}, affine=False)",
        f"nn.BatchNorm2d({c}, track_running_stats=False)", f"nn.GroupNorm(2, {c})", f"nn.GroupNorm(1, {c})",
        f"nn.InstanceNorm2d({c}, affine=True)", f"nn.LayerNorm([{c}, {h}, {w}])", f"nn.LayerNorm({w})",
        "nn.LocalResponseNorm(2)", f"nn.PReLU({c})", "nn.Softmax2d()",
    ))) + f"({v})"  # fmt: skip


def pool_2d(d: Any, v: str) -> str:
    return d.pick((
        f"{d.layer('pool', 'nn.MaxPool2d(2)')}({v})", f"F.max_pool2d({v}, 2)", f"F.avg_pool2d({v}, 2)",
        f"{d.layer('pool', 'nn.AvgPool2d(3, 1, 1)')}({v})", f"F.adaptive_avg_pool2d({v}, 2)",
        f"{d.layer('pool', 'nn.AdaptiveMaxPool2d(2)')}({v})", f"{d.layer('pool', 'nn.AdaptiveAvgPool2d((2, 3))')}({v})",
        f"F.max_pool2d({v}, 3, stride=1, padding=1)", f"F.adaptive_max_pool2d({v}, 2)",
        f"F.lp_pool2d({v}.abs() + 0.1, 2, 2)",
        f"{d.layer('pool', 'nn.MaxPool2d(2, ceil_mode=True)')}({v})", f"F.max_pool2d({v}, 2, return_indices=True)[0]",
    ))  # fmt: skip


def resized_2d(d: Any, v: str) -> str:
    c = d.shape(v)[1]
    return d.pick((
        f"F.interpolate({v}, scale_factor=2)", f"F.interpolate({v}, size=(4, 4), mode='bilinear')",
        f"{d.layer('up', 'nn.Upsample(scale_factor=2)')}({v})", f"F.pad({v}, (1, 1, 1, 1))",
        f"F.pad({v}, (0, 0, 0, 0, 1, 1))", f"F.pad({v}, (1, 0), mode='replicate')", f"F.pad({v}, (1, 1), value=0.5)",
        f"{d.layer('pad', 'nn.ZeroPad2d(1)')}({v})", f"{d.layer('pad', 'nn.ReflectionPad2d(1)')}({v})",
        f"{d.layer('pad', 'nn.ConstantPad2d(1, 0.5)')}({v})",
        f"{d.layer('pad', 'nn.ZeroPad3d((0, 0, 0, 0, 1, 1))')}({v})",
        f"{d.layer('shuffle', 'nn.PixelShuffle(2)')}({v})", f"{d.layer('shuffle', 'nn.ChannelShuffle(2)')}({v})",
        f"F.pixel_shuffle({v}, 2)", f"F.pixel_unshuffle({v}, 2)", f"F.channel_shuffle({v}, 2)",
        f"F.interpolate({v}, size={v}.shape[2:])", f"F.pad({v}, [0, 1, 0, 1])",
        f"{d.layer('drop', 'nn.Dropout2d(0.1)')}({v})", f"F.dropout2d({v}, 0.1, self.training)",
        f"{v}.view({v}.size(0), 2, {c} // 2, {v}.size(2), {v}.size(3)).transpose(1, 2).reshape({v}.shape)",
        f"{v}.view({v}.size(0), 2, -1, {v}.size(2), {v}.size(3)).transpose(1, 2).flatten(1, 2)",
        f"{v}.unflatten(1, (2, -1)).sum(1)", f"{v}.unflatten(1, (2, {c // 2})).amax(2)",
        f"F.unfold({v}, 2, stride=2)",
    ))  # fmt: skip


def moved_4d(d: Any, v: str) -> str:
    c, h, w = d.shape(v)[1:]
    return d.pick((
        f"{v}.flatten(2)", f"{v}.flatten(2).transpose(1, 2)", f"{v}.permute(0, 2, 3, 1)", f"{v}.transpose(1, 2)",
        f"{v}.reshape({v}.shape[0], -1, {v}.shape[3])", f"{v}.view({v}.size(0), {c}, -1)", f"torch.flatten({v}, 1)",
        f"{v}.view({v}.size(0), -1)", f"{v}.reshape(-1, {c * h * w})", f"{d.layer('flat', 'nn.Flatten()')}({v})",
        f"{v}.flatten(1)", f"torch.permute({v}, (0, 3, 1, 2))", f"{v}.mT", f"{v}.swapaxes(1, 3)", f"{v}.movedim(1, -1)",
        f"{v}.permute(0, 2, 3, 1).reshape({v}.shape[0], -1, {c})", f"torch.einsum('nchw->nhwc', {v})",
        f"{v}.unfold(2, 2, 1).mean(-1)", f"{v}.reshape({v}.size(0), {c} * 2, -1)",
    ))  # fmt: skip


def reduced_4d(d: Any, v: str) -> str:
    return d.pick((
        f"{v}.mean((2, 3))", f"{v}.mean([2, 3], keepdim=True)", f"torch.mean({v}, dim=(-1, -2))", f"{v}.amax((2, 3))",
        f"{v}.mean(1, keepdim=True)", f"{v}.sum(1)", f"{v}.mean(dim=-1)", f"{v}.max(1, keepdim=True)[0]", f"{v}.std(1)",
        f"torch.max({v}, 2).values", f"F.adaptive_avg_pool2d({v}, 1).flatten(1)", f"{v}.var((2, 3), keepdim=True)",
        f"{v}.sum(dim=[2, 3])", f"{v}.max(dim=1)[0]", f"F.adaptive_avg_pool2d({v}, 1).squeeze(-1).squeeze(-1)",
        f"torch.logsumexp({v}, 1)", f"torch.amax({v}, 1, True)", f"{v}.prod(1)", f"{v}.median(1)[0]",
    ))  # fmt: skip


def excited(d: Any, v: str) -> str:
    """A gate per channel."""
    c = d.shape(v)[1]
    down, up = d.layer("squeeze", f"nn.Conv2d({c}, 3, 1)"), d.layer("excite", f"nn.Conv2d(3, {c}, 1)")
    mean = d.pick((f"{v}.mean((2, 3), keepdim=True)", f"F.adaptive_avg_pool2d({v}, 1)"))
    gate = d.line(f"{d.pick(('torch.sigmoid', 'F.hardsigmoid'))}({up}(F.relu({down}({mean}))))")
    return d.pick(
        (
            f"{v} * {gate}",
            f"{gate} * {v}",
            f"{v} * {gate}.expand_as({v})",
            f"{v}.mul({gate})",
            f"torch.mul({v}, {gate})",
        )
    )


def residual(d: Any, v: str) -> str:
    c = d.shape(v)[1]
    first = d.layer(
        "res", f"nn.Sequential(nn.Conv2d({c}, {d.pick((4, 6))}, 1, bias=False), nn.BatchNorm2d({d.last}), nn.ReLU())"
    )
    second = d.layer("res", f"nn.Conv2d({d.last}, {c}, 3, padding=1, bias=False)")
    norm = d.layer("norm", f"nn.BatchNorm2d({c})")
    made = d.line(f"{norm}({second}({first}({v})))")
    return d.pick((f"F.relu({v} + {made})", f"{made} + {v}", f"F.relu({made}.add_({v}))", f"F.relu_({v} + {made})"))


# -- sequences [n, t, c] ----------------------------------------------------------------------------------------------


def linear(d: Any, v: str) -> str:
    size = d.shape(v)[-1]
    outputs = d.pick((4, 6, 8, size))
    if d.chance(0.1):
        held = d.parameter("w", f"torch.randn({outputs}, {size}) * 0.2")
        return d.pick((f"F.linear({v}, {held})", f"{v} @ {held}.t()", f"torch.matmul({v}, {held}.T)"))
    made = f"nn.Linear({size}, {outputs}{d.pick(('', '', ', bias=False'))})"
    if d.chance(0.2):
        made = f"nn.Sequential({made}, {d.pick(MODULES)}, nn.Linear({outputs}, {size}))"
    return f"{d.layer('fc', made)}({v})"


def convolution_1d(d: Any, v: str) -> str:
    c = d.shape(v)[1]
    groups, outputs = d.pick(((1, 4), (1, 6), (1, c), (2, 4), (c, c), (c, 2 * c)))
    more = d.pick((", padding=1", "", ", padding=2, dilation=2", ", stride=2, padding=1"))
    return f"{d.layer('conv', f'nn.Conv1d({c}, {outputs}, 3{more}, groups={groups})')}({v})"


def norm_3d(d: Any, v: str) -> str:
    t, c = d.shape(v)[1:]
    return d.layer("norm", d.pick((
        f"nn.LayerNorm({c})", f"nn.LayerNorm({c})", f"nn.BatchNorm1d({t})", f"nn.GroupNorm(1, {t})", f"nn.RMSNorm({c})",
        f"nn.InstanceNorm1d({t})", f"nn.PReLU({t})", f"nn.LayerNorm([{t}, {c}])",
    ))) + f"({v})"  # fmt: skip


def attention(d: Any, v: str) -> str:
    c = d.shape(v)[2]
    kind = d.pick(("open", "numbers", "sizes", "fused", "one", "module", "layer"))
    if kind == "module":
        return f"{d.layer('mha', f'nn.MultiheadAttention({c}, 2, batch_first=True)')}({v}, {v}, {v})[0]"
    if kind == "layer":
        return f"{d.layer('block', f'nn.TransformerEncoderLayer({c}, 2, 8, 0.0, batch_first=True)')}({v})"
    q, k, w = (d.line(f"{d.layer(name, f'nn.Linear({c}, 8)')}({v})") for name in "qkv")
    if kind == "one":
        return f"torch.softmax({q} @ {k}.transpose(1, 2) * 0.3, -1) @ {w}"
    size = {"open": "-1, 4", "fused": "-1, 4", "numbers": "2, 4", "sizes": "2, -1"}[kind]
    heads = [d.line(f"{x}.view({x}.size(0), {x}.size(1), {size}).transpose(1, 2)") for x in (q, k, w)]
    if kind == "fused":
        return f"F.scaled_dot_product_attention({', '.join(heads)}).transpose(1, 2).flatten(2)"
    made = f"torch.softmax({heads[0]} @ {heads[1]}.transpose(-2, -1) * 0.5, dim=-1) @ {heads[2]}"
    return f"({made}).transpose(1, 2).flatten(2)"


def recurrent(d: Any, v: str) -> str:
    c = d.shape(v)[2]
    return d.pick((
        f"{d.layer('cell', f'nn.LSTM({c}, 6, batch_first=True)')}({v})[0]",
        f"{d.layer('cell', f'nn.GRU({c}, 4, batch_first=True, bidirectional=True)')}({v})[0]",
        f"{d.layer('cell', f'nn.RNN({c}, 4, batch_first=True)')}({v})[1][-1]",
    ))  # fmt: skip


def moved_3d(d: Any, v: str) -> str:
    t, c = d.shape(v)[1:]
    return d.pick((
        f"{v}.transpose(1, 2)", f"{v}.permute(0, 2, 1)", f"{v}.mT", f"{v}.flatten(1)", f"{v}.unsqueeze(1)",
        f"{v}.unsqueeze(-1)", f"{v}.reshape({v}.size(0), {t * c})", f"{v}.view({v}.shape[0], -1)",
        f"{v}.reshape({v}.size(0), {t}, 2, -1)", f"F.pad({v}, (1, 1))", f"F.max_pool1d({v}, 2)",
        f"F.avg_pool1d({v}, 2)",
        f"{d.layer('pool', 'nn.AdaptiveAvgPool1d(4)')}({v})", f"F.interpolate({v}, scale_factor=2)",
        f"{v}.mean(1)", f"{v}.mean(-1)", f"{v}.max(1)[0]", f"{v}[:, -1]", f"{v}.amax(dim=1)", f"{v}.sum(2)",
        f"{d.layer('up', f'nn.ConvTranspose1d({t}, 4, 2, stride=2)')}({v})", f"torch.bmm({v}, {v}.transpose(1, 2))",
    ))  # fmt: skip


# -- rows [n, c] ------------------------------------------------------------------------------------------------------


def norm_1d(d: Any, v: str) -> str:
    c = d.shape(v)[1]
    return (
        d.layer(
            "norm",
            d.pick((f"nn.BatchNorm1d({c})", f"nn.BatchNorm1d({c})", f"nn.LayerNorm({c})", f"nn.GroupNorm(1, {c})")),
        )
        + f"({v})"
    )


def moved_2d(d: Any, v: str) -> str:
    c = d.shape(v)[1]
    return d.pick((
        f"{v}[:, :, None, None]", f"{v}.unsqueeze(1)", f"{v}.view(-1, {c}, 1, 1)", f"{v}.unsqueeze(-1)",
        f"{v}.view({v}.size(0), 2, -1)", f"{v}.reshape(-1, 2, {c // 2})", f"{v}[:, None, :] * {v}[:, :, None]",
        f"{v}.unflatten(1, (2, {c // 2}))", f"{v}[:, :, None, None].expand(-1, -1, 3, 3)",
        f"{v}.reshape({v}.shape[0], {c}, 1, 1)", f"torch.outer({v}.mean(1), {v}.mean(0))",
        f"torch.cat([{v}, {v}.flip(1)], 1)",
    ))  # fmt: skip


# -- anything ---------------------------------------------------------------------------------------------------------


def again(d: Any, v: str) -> str:
    """A layer that is called already, once more."""
    return f"{d.known_layer()}({v})"


def same_weight(d: Any, v: str) -> str:
    """A layer of its own with another one's weight."""
    return f"{d.tied()}({v})"


def unused(d: Any, v: str) -> str:
    """Something that nothing reads, before."""
    d.line(d.operation(v))
    return f"{v} * 1.0"


def bilinear(d: Any, v: str) -> str:
    w = d.other(v, dims=2)
    return f"{d.layer('pair', f'nn.Bilinear({d.shape(v)[1]}, {d.shape(w)[1]}, 5)')}({v}, {w})"


ANY: tuple[tuple[int, Operation], ...] = (
    (5, pointwise), (1, in_place), (5, module), (5, binary), (3, broadcast), (2, constant), (4, joined), (4, parts),
    (2, taken), (1, softmax), (2, again), (1, same_weight), (1, unused),
)  # fmt: skip
OPERATIONS: dict[int, tuple[tuple[int, Operation], ...]] = {
    2: (*ANY, (8, linear), (3, norm_1d), (2, moved_2d), (1, bilinear)),
    3: (*ANY, (5, linear), (3, convolution_1d), (3, norm_3d), (3, attention), (1, recurrent), (4, moved_3d)),
    4: (
        *ANY, (14, convolution), (6, norm_2d), (3, pool_2d), (3, resized_2d), (1, moved_4d), (1, reduced_4d),
        (2, excited), (3, residual),
    ),
}  # fmt: skip
