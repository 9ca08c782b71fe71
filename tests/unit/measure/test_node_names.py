"""Names and saved tensors of autograd nodes, which are half public: each that the walk relies on is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.measure.relevance import _formulas as formulas
from fewbits.measure.relevance import _nodes as nodes
from fewbits.measure.relevance._nodes import kind, ordered

FOLDER = Path(nodes.__file__).parent
# Made by operations of GPUs or of other builds only.
ELSEWHERE = {
    *("CudnnBatchNorm", "MiopenBatchNorm", "BatchNormWithUpdate", "ConvolutionOverrideable", "MkldnnConvolution"),
    *("CudnnConvolution", "GroupedMm"),
}


def x(*shape: int) -> Tensor:
    return torch.rand(*(shape or (4, 4)), requires_grad=True) + 0.1


INDEX = torch.zeros(4, 4, dtype=torch.long)
MADE: dict[str, Callable[[], object]] = {
    "View": lambda: x().view(16),
    "ReshapeAlias": lambda: x(2, 3, 4).transpose(1, 2).reshape(2, 4, 3),  # a view of what is not contiguous
    "UnsafeView": lambda: F.linear(x(2, 3, 4).transpose(0, 1), x(5, 4)),
    "Permute": lambda: x(2, 3, 4).permute(2, 0, 1),
    "Transpose": lambda: x().transpose(0, 1),
    "T": lambda: x().t(),
    "Squeeze": lambda: x(1, 4).squeeze(),
    "Unsqueeze": lambda: x().unsqueeze(0),
    "Expand": lambda: x(1, 4).expand(4, 4),
    "Repeat": lambda: x().repeat(2, 1),
    "Slice": lambda: x()[:2],
    "Select": lambda: x()[0],
    "Diagonal": lambda: x().diagonal(),
    "Index": lambda: x()[torch.tensor([0, 1])],
    "IndexSelect": lambda: x().index_select(0, torch.tensor([0])),
    "Gather": lambda: x().gather(0, INDEX),
    "Take": lambda: torch.take(x(), INDEX),
    "Cat": lambda: torch.cat([x(), x()]),
    "Stack": lambda: torch.stack([x(), x()]),
    "Split": lambda: x().split(2),
    "SplitWithSizes": lambda: x().split([1, 3]),
    "UnsafeSplit": lambda: torch.unsafe_split(x(), 2),
    "UnsafeSplitWithSizes": lambda: torch.unsafe_split_with_sizes(x(), [1, 3]),
    "Unbind": lambda: x().unbind(),
    "Flip": lambda: x().flip(0),
    "Rot90": lambda: x().rot90(),
    "Roll": lambda: x().roll(1),
    "ConstantPadNd": lambda: F.pad(x(), (1, 1)),
    "ReflectionPad1D": lambda: F.pad(x(1, 2, 4), (1, 1), "reflect"),
    "ReflectionPad2D": lambda: F.pad(x(1, 2, 4, 4), (1, 1, 1, 1), "reflect"),
    "ReflectionPad3D": lambda: F.pad(x(1, 2, 4, 4, 4), (1,) * 6, "reflect"),
    "ReplicationPad1D": lambda: F.pad(x(1, 2, 4), (1, 1), "replicate"),
    "ReplicationPad2D": lambda: F.pad(x(1, 2, 4, 4), (1, 1, 1, 1), "replicate"),
    "ReplicationPad3D": lambda: F.pad(x(1, 2, 4, 4, 4), (1,) * 6, "replicate"),
    "Unfold": lambda: x().unfold(0, 2, 1),
    "Im2Col": lambda: F.unfold(x(1, 2, 4, 4), 2),
    "Col2Im": lambda: F.fold(x(1, 8, 9), (4, 4), 2),
    "AsStrided": lambda: x().as_strided((2, 2), (4, 1)),
    "Clone": lambda: x().clone(),
    "ToCopy": lambda: x().double(),
    "Copy": lambda: torch.zeros(4, 4).copy_(x()),
    "Alias": lambda: torch.ops.aten.alias(x()),
    "Tril": lambda: x().tril(),
    "Triu": lambda: x().triu(),
    "Trace": lambda: x().trace(),
    "MaskedFill": lambda: x().masked_fill(INDEX.bool(), 1.0),
    "MaskedSelect": lambda: x().masked_select(~INDEX.bool()),
    "MaskedScatter": lambda: x().masked_scatter(~INDEX.bool(), x()),
    "Where": lambda: torch.where(INDEX.bool(), x(), x()),
    "IndexPut": lambda: x().index_put((torch.tensor([0]),), x(4)),
    "IndexAdd": lambda: x().index_add(0, torch.tensor([0]), x(1, 4)),
    "IndexFill": lambda: x().index_fill(0, torch.tensor([0]), 1.0),
    "IndexCopy": lambda: x().index_copy(0, torch.tensor([0]), x(1, 4)),
    "Scatter": lambda: x().scatter(0, INDEX, x()),
    "ScatterAdd": lambda: x().scatter_add(0, INDEX, x()),
    "SliceScatter": lambda: x().slice_scatter(x(2, 4), end=2),
    "SelectScatter": lambda: x().select_scatter(x(4), 0, 0),
    "PixelShuffle": lambda: F.pixel_shuffle(x(1, 4, 2, 2), 2),
    "PixelUnshuffle": lambda: F.pixel_unshuffle(x(1, 1, 4, 4), 2),
    "ChannelShuffle": lambda: F.channel_shuffle(x(1, 4, 2, 2), 2),
    "Add": lambda: x() + x(),
    "Sub": lambda: x() - x(),
    "Rsub": lambda: 1 - x(),
    "Neg": lambda: -x(),
    "Sum": lambda: x().sum(),
    "Mean": lambda: x().mean(),
    "Cumsum": lambda: x().cumsum(0),
    "Lerp": lambda: torch.lerp(x(), x(), 0.5),
    "AvgPool2D": lambda: F.avg_pool2d(x(1, 1, 4, 4), 2),
    "AvgPool3D": lambda: F.avg_pool3d(x(1, 1, 4, 4, 4), 2),
    "AdaptiveAvgPool2D": lambda: F.adaptive_avg_pool2d(x(1, 1, 4, 4), 3),
    "AdaptiveAvgPool3D": lambda: F.adaptive_avg_pool3d(x(1, 1, 4, 4, 4), 3),
    "MaxPool2DWithIndices": lambda: F.max_pool2d(x(1, 1, 4, 4), 2),
    "MaxPool3DWithIndices": lambda: F.max_pool3d(x(1, 1, 4, 4, 4), 2),
    "AdaptiveMaxPool2D": lambda: F.adaptive_max_pool2d(x(1, 1, 4, 4), 2),
    "AdaptiveMaxPool3D": lambda: F.adaptive_max_pool3d(x(1, 1, 4, 4, 4), 2),
    "FractionalMaxPool2D": lambda: F.fractional_max_pool2d(x(1, 1, 4, 4), 2, output_size=2),
    "Amax": lambda: x().amax(0),
    "Amin": lambda: x().amin(0),
    "Max": lambda: x().max(),
    "Min": lambda: x().min(),
    "Maximum": lambda: torch.maximum(x(), x()),
    "Minimum": lambda: torch.minimum(x(), x()),
    "Topk": lambda: x().topk(2),
    "Sort": lambda: x().sort(),
    "Kthvalue": lambda: x().kthvalue(1),
    "Median": lambda: x().median(),
    "Relu": lambda: F.relu(x()),
    "Threshold": lambda: F.threshold(x(), 0, 0),
    "LeakyRelu": lambda: F.leaky_relu(x()),
    "RreluWithNoise": lambda: F.rrelu(x(), training=True),
    "PreluKernel": lambda: F.prelu(x(), x(1)),
    "Abs": lambda: x().abs(),
    "NativeDropout": lambda: torch.native_dropout(x(), 0.5, True)[0],
    "UpsampleNearest1D": lambda: F.interpolate(x(1, 1, 4), 8),
    "UpsampleNearest2D": lambda: F.interpolate(x(1, 1, 4, 4), 8),
    "UpsampleNearest3D": lambda: F.interpolate(x(1, 1, 4, 4, 4), 8),
    "UpsampleNearestExact1D": lambda: F.interpolate(x(1, 1, 4), 8, mode="nearest-exact"),
    "UpsampleNearestExact2D": lambda: F.interpolate(x(1, 1, 4, 4), 8, mode="nearest-exact"),
    "UpsampleLinear1D": lambda: F.interpolate(x(1, 1, 4), 8, mode="linear"),
    "UpsampleBilinear2D": lambda: F.interpolate(x(1, 1, 4, 4), 8, mode="bilinear"),
    "UpsampleBilinear2DAa": lambda: F.interpolate(x(1, 1, 4, 4), 2, mode="bilinear", antialias=True),
    "UpsampleBicubic2D": lambda: F.interpolate(x(1, 1, 4, 4), 8, mode="bicubic"),
    "UpsampleBicubic2DAa": lambda: F.interpolate(x(1, 1, 4, 4), 2, mode="bicubic", antialias=True),
    "UpsampleTrilinear3D": lambda: F.interpolate(x(1, 1, 4, 4, 4), 8, mode="trilinear"),
    "GridSampler2D": lambda: F.grid_sample(x(1, 1, 4, 4), torch.zeros(1, 2, 2, 2), align_corners=False),
    "FftR2C": lambda: torch.fft.rfft(x()),
    "FftC2C": lambda: torch.fft.fft(torch.complex(x(), x())),
    "FftC2R": lambda: torch.fft.irfft(torch.complex(x(), x())),
    "ViewAsReal": lambda: torch.view_as_real(torch.complex(x(), x())),
    "ViewAsComplex": lambda: torch.view_as_complex(x(4, 2)),
    "Complex": lambda: torch.complex(x(), x()),
    "Conj": lambda: torch.complex(x(), x()).conj(),
    "GridSampler3D": lambda: F.grid_sample(x(1, 1, 4, 4, 4), torch.zeros(1, 2, 2, 2, 3), align_corners=False),
    "Embedding": lambda: F.embedding(INDEX, x()),
    "EmbeddingBag": lambda: F.embedding_bag(INDEX, x()),
    "PackPaddedSequence": lambda: torch.nn.utils.rnn.pack_padded_sequence(x(3, 1, 4), torch.tensor([3]))[0],
    "Mul": lambda: x() * x(),
    "Mm": lambda: x() @ x(),
    "Bmm": lambda: x(2, 3, 4) @ x(2, 4, 3),
    "Addmm": lambda: F.linear(x(), x(), x(4)),
    "Baddbmm": lambda: torch.baddbmm(x(2, 3, 3), x(2, 3, 4), x(2, 4, 3)),
    "Dot": lambda: x(4) @ x(4),
    "Mv": lambda: x() @ x(4),
    "Addmv": lambda: torch.addmv(x(4), x(), x(4)),
    "Addcmul": lambda: torch.addcmul(x(), x(), x()),
    "Div": lambda: x() / x(),
    "Rsqrt": lambda: x().rsqrt(),
    "Sqrt": lambda: x().sqrt(),
    "Reciprocal": lambda: x().reciprocal(),
    "Std": lambda: x().std(),
    "Var": lambda: x().var(),
    "VarMean": lambda: torch.var_mean(x(), 0),
    "StdMean": lambda: torch.std_mean(x(), 0),
    "LinalgVectorNorm": lambda: torch.linalg.vector_norm(x()),
    "Norm": lambda: torch.norm_except_dim(x(), 2, 0),
    "Sign": lambda: x().sign(),
    "Round": lambda: x().round(),
    "Floor": lambda: x().floor(),
    "Softmax": lambda: x().softmax(0),
    "LogSoftmax": lambda: x().log_softmax(0),
    "SafeSoftmax": lambda: torch._safe_softmax(x(), 0),
    "Sigmoid": lambda: x().sigmoid(),
    "Tanh": lambda: x().tanh(),
    "NativeBatchNorm": lambda: F.batch_norm(x(2, 3, 4), torch.zeros(3), torch.ones(3), x(3), x(3)),
    "Convolution": lambda: F.conv2d(x(1, 2, 4, 4), x(3, 2, 3, 3), x(3)),
    "NativeLayerNorm": lambda: F.layer_norm(x(), (4,), x(4), x(4)),
    "NativeGroupNorm": lambda: F.group_norm(x(2, 4, 3), 2, x(4), x(4)),
    "Gelu": lambda: F.gelu(x()),
    "Glu": lambda: F.glu(x()),
    "Silu": lambda: F.silu(x()),
    "Hardswish": lambda: F.hardswish(x()),
    "Mish": lambda: F.mish(x()),
    "Elu": lambda: F.elu(x()),
    "Celu": lambda: F.celu(x()),
    "Hardsigmoid": lambda: F.hardsigmoid(x()),
    "Hardtanh": lambda: F.relu6(x()),
    "Softplus": lambda: F.softplus(x()),
    "LogSigmoid": lambda: F.logsigmoid(x()),
    "Softshrink": lambda: F.softshrink(x()),
    "Hardshrink": lambda: F.hardshrink(x()),
    "Clamp": lambda: x().clamp(0, 1),
    "ClampMin": lambda: torch.clamp_min(x(), 0),
    "ClampMax": lambda: torch.clamp_max(x(), 0),
    "Erf": lambda: x().erf(),
    "Atan": lambda: x().atan(),
}
TABLES = (
    nodes.NATIVE | nodes.MOVES | nodes.PRODUCTS | nodes.ADDENDS | nodes.SCALES | nodes.WITH_MEANS | nodes.GATES
    | nodes.BATCH_NORMS | nodes.CONVOLUTIONS | nodes.SOURCES | set(formulas.ELEMENTWISE)
)  # fmt: skip


def kinds_of(output: object) -> set[str]:
    results = output if isinstance(output, tuple | list) else [output]
    return {
        kind(node) for r in results if isinstance(r, Tensor) and r.grad_fn is not None for node in ordered(r.grad_fn)
    }


@pytest.mark.parametrize("name", sorted(TABLES - ELSEWHERE))
def test_every_name_of_the_tables_is_that_of_a_node(name: str) -> None:
    assert name in MADE, f"nothing here makes {name}"
    assert name in kinds_of(MADE[name]())


def test_a_name_is_in_one_table_or_in_its_part() -> None:
    apart = [
        nodes.NATIVE,
        nodes.PRODUCTS,
        nodes.SCALES,
        nodes.BATCH_NORMS,
        nodes.CONVOLUTIONS,
        set(formulas.ELEMENTWISE),
    ]
    assert sum(len(table) for table in apart) == len(set().union(*apart))
    assert nodes.MOVES <= nodes.NATIVE
    assert nodes.ADDENDS <= nodes.PRODUCTS
    assert nodes.SOURCES <= nodes.NATIVE


SAVED = {
    "NativeBatchNorm": "input weight running_mean running_var result1 result2 training eps",
    "Convolution": "input weight stride padding dilation transposed output_padding groups",
    "NativeLayerNorm": "input weight result1 result2 normalized_shape",
    "NativeGroupNorm": "input weight result1 result2 group",
    "Addmm": "mat1 mat2 alpha beta",
    "Mm": "self mat2",
    "Embedding": "indices",
    "Sigmoid": "result",
    "Glu": "self dim",
    "Tanh": "result",
    "Gelu": "self approximate",
    "Elu": "self alpha scale",
    "Celu": "self alpha",
    "Hardtanh": "self min_val max_val",
    "Softplus": "self beta threshold",
    "Softshrink": "self lambd",
    "Hardshrink": "self lambd",
    "Clamp": "self min max",
    "ClampMin": "self min",
    "ClampMax": "self max",
    **dict.fromkeys(("Silu", "Hardswish", "Mish", "Hardsigmoid", "LogSigmoid", "Erf", "Atan"), "self"),
}


@pytest.mark.parametrize("name", SAVED)
def test_nodes_keep_what_the_rules_read(name: str) -> None:
    output = MADE[name]()
    node = output.grad_fn  # type: ignore[attr-defined]
    assert kind(node) == name
    for part in SAVED[name].split():
        getattr(node, f"_saved_{part}")


def test_every_saved_tensor_that_is_read_is_in_the_list_above() -> None:
    read = {found for path in FOLDER.glob("*.py") for found in re.findall(r"_saved_(\w+)", path.read_text())}
    elsewhere = {"epsilon"}  # of cuDNN's batch normalisation
    assert read - elsewhere <= {part for parts in SAVED.values() for part in parts.split()} | {"result"}


def written_to_a_part() -> Tensor:
    y = x().clone()
    y[0].mul_(2)
    return y


WHOLE: dict[str, Callable[[], object]] = {
    "CopySlices": written_to_a_part,
    "AccumulateGrad": lambda: x(),
    "ScaledDotProduct": lambda: F.scaled_dot_product_attention(x(1, 2, 4, 4), x(1, 2, 4, 4), x(1, 2, 4, 4)),
}
# Of GPUs, of wrappers (with a test in test_pitfalls.py), or of newer builds, where else parts have rules.
UNMADE = {"DDPSink", "_DDPSink", "CompiledFunction", "CheckpointFunction", "CudnnRnn", "MkldnnRnnLayer", "FusedRmsNorm"}


@pytest.mark.parametrize("name", WHOLE)
def test_names_that_the_walk_asks_for_are_those_of_nodes(name: str) -> None:
    assert any(found.startswith(name) for found in kinds_of(WHOLE[name]()))


def test_every_name_that_is_compared_is_made_here_or_known_not_to_be() -> None:
    """Of the code around the tables, where a name that no node has would be a branch that nothing enters."""
    compared = re.compile(r"(?:case|[=!]=|in|\||startswith)\s*\(?((?:\"_?[A-Z]\w+\"[,\s|]*)+)")
    asked = {
        name
        for path in FOLDER.glob("*.py")
        for found in compared.findall(path.read_text())
        for name in re.findall(r"\w+", found)
    }
    assert {"Lerp", "Div", "Sigmoid", "EmbeddingBag", "ReshapeAlias", "ScaledDotProduct"} <= asked
    assert asked <= MADE.keys() | WHOLE.keys() | ELSEWHERE | UNMADE
