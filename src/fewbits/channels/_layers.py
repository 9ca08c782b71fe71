"""What layers do to labels of channels, and to which of their tensors these belong."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewbits.channels import _rules as rules
from fewbits.channels._ledger import Ledger
from fewbits.channels.surgery import PADDING, TRANSPOSED
from fewbits.graph.traced import Kind, kind_of_module

_SPATIAL = ("Pool", "Pad1d", "Pad2d", "Upsample")


def layer_rule(ledger: Ledger, module: nn.Module, path: str, x: Tensor, result: Any, why: str) -> Any:
    """Labels of a layer's result, or ``NotImplemented``."""
    known, kind = ledger.known, kind_of_module(module)
    shape = tuple(result.shape) if isinstance(result, Tensor) else ()
    if isinstance(module, TRANSPOSED) and type(module).forward in [cls.forward for cls in TRANSPOSED]:
        return _transposed(ledger, module, x, shape, why)
    if type(module) is nn.Embedding and module.max_norm is None and isinstance(result, Tensor):
        return rules.spread(ledger.axis(module.weight, 1), len(shape) - 1, shape)
    if isinstance(module, nn.RNNBase):
        return _recurrent(ledger, module, path, x, result, why)
    if type(module) is nn.LayerNorm:
        return layer_norm(ledger, x, len(module.normalized_shape), (module.weight, module.bias), why)
    if kind is None or not isinstance(result, Tensor):
        return NotImplemented
    if kind is Kind.WEIGHTED:
        return weighted(ledger, module, path, x, shape, why)
    if kind is Kind.NORM:
        vector = rules.channel_vector(known, x, 1, why)
        for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
            if isinstance(tensor, Tensor):
                ledger.join(tensor, 0, vector, why)
        return rules.spread(known.roots(vector), 1, shape)
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        vector = rules.channel_vector(known, x, 1, why)
        ledger.join(module.weight, 0, vector, why)
        return rules.spread(known.roots(vector), 1, shape)
    if kind is Kind.PASS:
        return known.roots(x)
    if isinstance(module, nn.PixelShuffle):
        return rules.pixels(known, module(known.roots(x)), why)
    if isinstance(module, nn.Flatten | nn.PixelUnshuffle):
        return rules.settled(known, module(known.roots(x)), [True] * len(shape), why)
    if isinstance(module, nn.ChannelShuffle):
        return module(rules.shuffled(known, x, module.groups, why))
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin):
        return rules.softened(known, x, module.dim, why) if isinstance(module.dim, int) else NotImplemented
    if isinstance(module, nn.GLU):
        return rules.chunked(known, x, known.roots(x).chunk(2, module.dim), module.dim, why)[0]
    if isinstance(module, PADDING) and x.dim() == 4 and module.value == 0:  # of images it pads channels
        before, after = module.padding[4:]
        if min(before, after) < 0:
            return NotImplemented
        if path not in ledger.paddings:
            ledger.paddings[path] = known.fresh(before), known.fresh(after)
        vector = rules.channel_vector(known, x, 1, why)
        return rules.padded(*ledger.paddings[path], rules.spread(vector, 1, (1, len(vector))), 1, shape)
    if any(word in type(module).__name__ for word in _SPATIAL):
        same = rules.channel_vector(known, x, 1, why)
        return rules.spread(same, 1, shape) if len(same) == shape[1] else NotImplemented
    return NotImplemented


def weighted(ledger: Ledger, module: nn.Module, path: str, x: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
    """A convolution or a linear layer."""
    known, weight = ledger.known, module.weight
    assert isinstance(weight, Tensor)
    linear = isinstance(module, nn.Linear)
    axis = len(shape) - 1 if linear else 1
    inputs = rules.channel_vector(known, x, axis, why)
    groups = 1 if linear else int(module.groups)  # type: ignore[arg-type]
    ledger.outputs.setdefault(id(weight), f"{path}.weight")
    outputs = ledger.axis(weight, 0)
    if groups == 1:
        ledger.join(weight, 1, inputs, why)
    elif weight.shape[1] == 1:  # depthwise: an input goes with its own outputs
        rows = outputs.reshape(groups, -1)
        known.join(inputs[:, None].expand_as(rows), rows, why)
        known.fix(ledger.axis(weight, 1), why)
    else:  # the same places of all groups, so that these stay equal
        ledger.join(weight, 1, inputs.reshape(groups, -1)[0], why)
        for vector in (inputs, outputs):
            rows = vector.reshape(groups, -1)
            known.join(rows[:1].expand_as(rows), rows, why)
    if isinstance(module.bias, Tensor):
        ledger.join(module.bias, 0, outputs, why)
    return rules.spread(known.roots(outputs), axis, shape)


def layer_norm(ledger: Ledger, x: Tensor, axes: int, own: tuple[Tensor | None, ...], why: str) -> Tensor:
    """Layer normalisation over the last axes, which no channel may leave."""
    for tensor in own:
        if tensor is not None:
            ledger.fix(tensor, f"{why} normalises or runs over channels")
    for axis in range(x.dim() - axes, x.dim()):
        x = rules.softened(ledger.known, x, axis, why)
    return ledger.known.roots(x)


def _recurrent(ledger: Ledger, module: nn.RNNBase, path: str, x: Tensor, result: Any, why: str) -> Any:
    """A hidden unit is a row of each gate. It goes from all layers and directions, as one number says how many it has.

    A unit whose rows are zero stays zero, as it begins: gates of zero move it towards tanh(0), or relu(0).
    """
    plain = type(module) in (nn.RNN, nn.LSTM, nn.GRU) and not module.proj_size
    if not plain or not isinstance(result[0], Tensor) or x.dim() not in (2, 3):
        return NotImplemented
    known = ledger.known
    weights = dict(module.named_parameters(recurse=False))
    inputs = rules.channel_vector(known, x, x.dim() - 1, why)
    units = ledger.axis(weights["weight_hh_l0"], 1)
    gates, directions = len(weights["weight_hh_l0"]) // len(units), 1 + int(module.bidirectional)
    for name, tensor in weights.items():
        ledger.join(tensor, 0, units.repeat(gates), why)
        if name.startswith("weight_"):
            ledger.outputs.setdefault(id(tensor), f"{path}.{name}")
        if name.startswith("weight_hh"):
            ledger.join(tensor, 1, units, why)
        elif name.startswith("weight_ih"):
            first = name.removesuffix("_reverse") == "weight_ih_l0"
            ledger.join(tensor, 1, inputs if first else units.repeat(directions), why)

    def of(tensor: Tensor) -> Tensor:
        vector = known.roots(units).repeat(tensor.shape[-1] // len(units))
        return rules.spread(vector, tensor.dim() - 1, tuple(tensor.shape))

    output, states = result
    return of(output), tuple(map(of, states)) if isinstance(states, tuple) else of(states)


def _transposed(ledger: Ledger, module: Any, x: Tensor, shape: tuple[int, ...], why: str) -> Any:
    """Weights ``[inputs, outputs of a group, ...]``. Outputs go where another layer's go with them."""
    known, weight = ledger.known, module.weight
    inputs = rules.channel_vector(known, x, 1, why)
    if module.groups == 1:
        ledger.join(weight, 0, inputs, why)
        outputs = ledger.axis(weight, 1)
    elif weight.shape[:2] == (module.groups, 1):  # depthwise
        ledger.join(weight, 0, inputs, why)
        known.fix(ledger.axis(weight, 1), why)
        outputs = known.roots(inputs)
    else:
        return NotImplemented
    if module.bias is not None:
        ledger.join(module.bias, 0, outputs, why)
    return rules.spread(known.roots(outputs), 1, shape)


def fixed(ledger: Ledger, module: nn.Module, why: str) -> None:
    """A layer without a rule keeps all it has."""
    for tensor in (*module.parameters(), *module.buffers()):
        ledger.fix(tensor, why)
