"""TFLite's reference kernels for int8, in NumPy's integers: what an int8 ``.tflite`` file computes, to the bit.

Written from the kernels' arithmetic (gemmlowp's rounding; Jacob et al. 2018, arXiv 1712.05877): convolutions round
twice, fully connected layers once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbits.int8.reference import doubly, multiplier, once, twice

Array = NDArray[Any]


class Emulated:
    """A file, run sample by sample without any of its own libraries but the schema."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as s

        self.s = s
        self.model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
        self.graph = self.model.subgraphs[0]
        self.names = {code: name for name, code in vars(s.BuiltinOperator).items() if isinstance(code, int)}
        self.values: dict[int, Array] = {}

    def __call__(self, *inputs: Array) -> list[Array]:
        """int8 outputs ``[N, ...]`` for int8 inputs ``[N, ...]``."""
        found = []
        for sample in zip(*inputs, strict=True):
            self.values = dict(zip(self.graph.inputs, (value[None].astype(np.int64) for value in sample), strict=True))
            for operator in self.graph.operators:
                name = self.names[self.model.operatorCodes[operator.opcodeIndex].builtinCode]
                self.values[operator.outputs[0]] = getattr(self, name.lower())(operator, operator.builtinOptions)
            found.append([self.values[place][0].astype(np.int8) for place in self.graph.outputs])
        return [np.stack(values) for values in zip(*found, strict=True)]

    def get(self, index: int) -> Array:
        """A tensor: computed, or of the file."""
        if index in self.values:
            return self.values[index]
        tensor = self.graph.tensors[index]
        kind = np.int8 if tensor.type == self.s.TensorType.INT8 else np.dtype("<i4")
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        return data.view(kind).reshape(tensor.shape).astype(np.int64)

    def scale(self, index: int) -> Array:
        return np.asarray(self.graph.tensors[index].quantization.scale, np.float32).astype(np.float64)

    def zero(self, index: int) -> int:
        return int(self.graph.tensors[index].quantization.zeroPoint[0])

    def centred(self, index: int) -> Array:
        return self.get(index) - self.zero(index)

    def done(self, levels: Array, out: int, activation: int = 0) -> Array:
        """With the zero point, within what an activation function leaves."""
        zero, scale = self.zero(out), float(self.scale(out)[0])
        low = zero if activation in (1, 3) else -128
        high = zero + round(6 / scale) if activation == 3 else 127
        return np.clip(levels + zero, max(-128, low), min(127, high))

    def channels(self, sums: Array, operator: Any, activation: int, rounded: Any) -> Array:
        """Sums per channel, each on the grid of the output."""
        data, weight, out = operator.inputs[0], operator.inputs[1], operator.outputs[0]
        real = self.scale(data)[0] * self.scale(weight) / self.scale(out)[0]
        real = np.broadcast_to(real, sums.shape[-1:])
        levels = [rounded(sums[..., c], float(real[c])) for c in range(sums.shape[-1])]
        return self.done(np.stack(levels, -1), out, activation)

    def windows(self, x: Array, options: Any, kernel: tuple[int, int], fill: float) -> Array:
        """[1, H, W, kernel height, kernel width, C] of a padded image."""
        dilation = getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)
        steps, pads = (options.strideH, options.strideW), []
        for size, k, s, d in zip(x.shape[1:3], kernel, steps, dilation, strict=True):
            same = options.padding == self.s.Padding.SAME
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0) if same else 0
            pads.append((total // 2, total - total // 2))
        x = np.pad(x.astype(float), ((0, 0), *pads, (0, 0)), constant_values=fill)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        seen = np.lib.stride_tricks.sliding_window_view(x, reach, (1, 2))[:, :: steps[0], :: steps[1]]
        return seen[..., :: dilation[0], :: dilation[1]].transpose(0, 1, 2, 4, 5, 3)

    # -- operations --------------------------------------------------------------------------------------

    def conv_2d(self, operator: Any, options: Any) -> Array:
        data, weight, bias = operator.inputs
        w = self.get(weight)
        seen = self.windows(self.centred(data), options, w.shape[1:3], 0).astype(np.int64)
        sums = np.tensordot(seen, w, ((3, 4, 5), (1, 2, 3))) + self.get(bias)
        return self.channels(sums, operator, options.fusedActivationFunction, twice)

    def depthwise_conv_2d(self, operator: Any, options: Any) -> Array:
        data, weight, bias = operator.inputs
        w = self.get(weight)[0]
        seen = self.windows(self.centred(data), options, w.shape[:2], 0).astype(np.int64)
        seen = np.repeat(seen, options.depthMultiplier, -1)
        sums = (seen * w).sum((3, 4)) + self.get(bias)
        return self.channels(sums, operator, options.fusedActivationFunction, twice)

    def fully_connected(self, operator: Any, options: Any) -> Array:
        data, weight, bias = operator.inputs
        sums = self.centred(data) @ self.get(weight).T + self.get(bias)
        return self.channels(sums, operator, options.fusedActivationFunction, once)

    def max_pool_2d(self, operator: Any, options: Any) -> Array:
        kernel = options.filterHeight, options.filterWidth
        return self.windows(self.get(operator.inputs[0]), options, kernel, -np.inf).max((3, 4)).astype(np.int64)

    def average_pool_2d(self, operator: Any, options: Any) -> Array:
        kernel = options.filterHeight, options.filterWidth
        seen = self.windows(self.get(operator.inputs[0]), options, kernel, np.nan)
        sums, count = np.nansum(seen, (3, 4)).astype(np.int64), (~np.isnan(seen)).sum((3, 4))
        return np.where(sums > 0, (sums + count // 2) // count, -((-sums + count // 2) // count))

    def mean(self, operator: Any, options: Any) -> Array:
        data, out = operator.inputs[0], operator.outputs[0]
        axes = tuple(int(axis) for axis in self.get(operator.inputs[1]))
        x = self.centred(data)
        count = int(np.prod([x.shape[axis] for axis in axes]))
        whole, exponent = multiplier(float(self.scale(data)[0] / self.scale(out)[0]))
        shift = min(count.bit_length() - 1, 32, 31 + exponent)
        sums = doubly(x.sum(axes, keepdims=True), (whole << shift) // count, exponent - shift)
        return self.done(sums, out)

    def add(self, operator: Any, options: Any) -> Array:
        first, second, out = *operator.inputs, operator.outputs[0]
        largest = 2 * max(self.scale(first)[0], self.scale(second)[0])
        parts = [twice(self.centred(i) << 20, float(self.scale(i)[0] / largest)) for i in (first, second)]
        sums = twice(parts[0] + parts[1], float(largest / (2**20 * self.scale(out)[0])))
        return self.done(sums, out, options.fusedActivationFunction)

    def quantize(self, operator: Any, options: Any, activation: int = 0) -> Array:
        data, out = operator.inputs[0], operator.outputs[0]
        return self.done(twice(self.centred(data), float(self.scale(data)[0] / self.scale(out)[0])), out, activation)

    def relu(self, operator: Any, options: Any) -> Array:
        return self.quantize(operator, options, 1)

    def relu6(self, operator: Any, options: Any) -> Array:
        return self.quantize(operator, options, 3)

    def reshape(self, operator: Any, options: Any) -> Array:
        return self.get(operator.inputs[0]).reshape(self.get(operator.inputs[1]))

    def transpose(self, operator: Any, options: Any) -> Array:
        return self.get(operator.inputs[0]).transpose(self.get(operator.inputs[1]))

    def concatenation(self, operator: Any, options: Any) -> Array:
        return np.concatenate([self.get(i) for i in operator.inputs], options.axis)

    def strided_slice(self, operator: Any, options: Any) -> Array:
        x, *ends = (self.get(i) for i in operator.inputs)
        return x[tuple(slice(*map(int, part)) for part in zip(*ends, strict=True))]

    def pad(self, operator: Any, options: Any) -> Array:
        data, amounts = operator.inputs[:2]
        return np.pad(self.get(data), self.get(amounts), constant_values=self.zero(data))

    def padv2(self, operator: Any, options: Any) -> Array:
        data, amounts, fill = operator.inputs
        return np.pad(self.get(data), self.get(amounts), constant_values=int(self.get(fill)[0]))
