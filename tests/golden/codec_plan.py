"""The plan behind ``codec_v1.few``: every kind of entry, made by arithmetic alone."""

import torch

from fewbits.approximation import Approximation, Pieces
from fewbits.channel_masks import ChannelMasks
from fewbits.codec import Base
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan

HEADER = {"recipe": "golden", "note": "ünïcode", "seeds": [0, 1, 2]}


def scattered(shape: tuple[int, ...], span: int, every: int) -> torch.Tensor:
    """Levels in ``[-span, span]``, one in ``every`` about non-zero, from a linear congruence."""
    state, levels = 12345, []
    for _ in range(int(torch.Size(shape).numel())):
        state = (state * 1103515245 + 12345) % 2**31
        draw = state >> 12
        levels.append((draw // every % (2 * span + 1)) - span if draw % every == 0 else 0)
    return torch.tensor(levels, dtype=torch.int16).reshape(shape)


def golden_plan() -> Plan:
    """The plan that the golden file holds."""
    ramp = torch.arange(24, dtype=torch.float32)
    return Plan(
        {
            "conv.weight": Clustered(scattered((8, 3, 3, 3), 7, 3), bits=4, step=0.03125),
            "conv.bias": Dense(ramp[:8] * 0.37 - 1.0),
            "bn.weight": Dense(torch.ones(8)),
            "bn.running_var": Dense(ramp[:8] * 0.11 + 0.5),
            "bn.num_batches_tracked": Dense(torch.tensor(781, dtype=torch.int64)),
            "ternary.weight": Clustered(scattered((6, 10), 1, 2), bits=2, codebook=(-0.5, 0.0, 0.625), lowest=-1),
            "wide.weight": Clustered(scattered((4, 8), 32767, 2), bits=16, step=1e-4),
            "pruned.weight": Clustered(torch.zeros(5, 5, dtype=torch.int16), bits=4, step=0.1),
            "half": Dense((ramp / 7).to(torch.float16).reshape(4, 6)),
            "brain": Dense((ramp - 11).to(torch.bfloat16)),
            "double": Dense(ramp[:3].double() / 3),
            "flags": Dense(ramp % 3 == 0),
            "bytes": Dense((ramp * 5).to(torch.uint8)),
            "small": Dense((ramp - 12).to(torch.int8)),
            "index": Dense((ramp * 1000).to(torch.int32)),
            "scalar": Dense(torch.tensor(2.5)),
            "nothing": Dense(torch.zeros(0, 4)),
        }
    )


def masked_plan() -> Plan:
    """The plan of ``codec_masked.few``: every way in which a masked tensor can stand in a file."""
    ramp = torch.arange(5200, dtype=torch.float32)
    return Plan(
        {
            "conv.weight": Masked((ramp[:216] * 0.37 - 30).reshape(8, 3, 3, 3), scattered((8, 3, 3, 3), 3, 2) != 0),
            "conv.bias": Dense(ramp[:8] * 0.37 - 1.0),
            "half.weight": Masked((ramp[:60] / 7 - 3).to(torch.float16).reshape(6, 10), scattered((6, 10), 1, 2) != 0),
            "brain.weight": Masked((ramp[:24] - 11).to(torch.bfloat16), ramp[:24] % 5 == 0),
            "large.weight": Masked((ramp // 650 + 0.5).reshape(52, 100), ramp.reshape(52, 100) % 6 != 0),
            "whole.weight": Masked(ramp[:12].reshape(3, 4), torch.ones(3, 4, dtype=torch.bool)),
            "gone.weight": Masked(ramp[:12].reshape(3, 4), torch.zeros(3, 4, dtype=torch.bool)),
            "nothing": Masked(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.bool)),
            "other.weight": Clustered(scattered((6, 10), 3, 2), bits=3, step=0.25),
        }
    )


def affine_plan() -> Plan:
    """The plan of ``codec_affine.few``: weights with scales along either dimension, and a quantizer."""
    ramp = torch.arange(24, dtype=torch.float32)
    return Plan(
        {
            "conv.weight": Affine(scattered((6, 2, 3, 3), 127, 1).to(torch.int8), (ramp[:6] + 1) / 512),
            "conv.bias": Dense((ramp[:6] * 0.37 - 1.0).to(torch.float16)),
            "turned.weight": Affine(scattered((4, 6), 7, 2).to(torch.int8), (ramp[:6] + 3) / 64, axis=1, bits=4),
            "flat.weight": Affine(torch.full((3, 3), 5, dtype=torch.int8), torch.full((3,), 0.25)),
            "quantizers.x.scale": Dense(torch.tensor(0.0173)),
            "quantizers.x.zero_point": Dense(torch.tensor(113, dtype=torch.uint8)),
        }
    )


def aliases_plan() -> Plan:
    """The plan of ``codec_aliases.few``: tensors of every kind under several names, one of them narrowed."""
    ramp = torch.arange(24, dtype=torch.float32)
    rows = torch.arange(9) % 3 != 1
    return Plan(
        {
            "conv.weight": Clustered(scattered((6, 4), 3, 2), bits=3, step=0.25),
            "pruned.weight": Masked(ramp[:20].reshape(4, 5) - 7, scattered((4, 5), 1, 2) != 0),
            "int8.weight": Affine(scattered((4, 6), 127, 1).to(torch.int8), (ramp[:4] + 1) / 512),
            "bias": Dense(ramp[:6] / 3 - 1),
        },
        ChannelMasks({"conv.weight": (rows, None), "head.weight": (rows, None)}, {}),
        {"head.weight": "conv.weight", "other.bias": "bias", "again.weight": "pruned.weight", "b.bias": "bias"},
    )


def operations_plan() -> Plan:
    """The plan of ``codec_operations.few``: approximations of every kind, with all that they may have."""
    lines = Pieces((-4.0, -0.5, 0.0, 4.0), ((0.0, 0.25), (-0.125, 0.5), (0.5, 1.0)), 2.0, (0.0, 0.0), (0.0, 1.0))
    refusing = Pieces((-0.6875, 0.0), ((0.75, 0.375, 0.09375, 0.015625),), 0.5)
    whole = Pieces((-128.0, 0.0, 127.0), ((-2048.0, 0.0), (2048.0, 4096.0)), 1.0, (0.0, 0.0), (0.0, 0.0), 12)
    core = Pieces((0.0, 0.5, 1.0), ((1.1875, 0.1875), (1.6875, 0.3125)), 0.25, (1.0, 0.0), (2.0, 0.0))
    made = (
        Approximation("gelu", "lines", lines, bound=0.25, outside=0.0625),
        Approximation("exp", "polynomial", refusing, bound=0.125),
        Approximation("silu", "integer", whole, bits=8, units=(0.0625, 0.03125), bound=0.5),
        Approximation("softmax", "table", core, True, bound=0.375, outside=0.375),
        Approximation("layer_norm", "integer", bits=9, units=(0.001953125, 0.015625)),
        Approximation("rms_norm", "polynomial", core, True, bound=0.5, relative=True, outside=0.5),
        Approximation("tanh", "squared-relu"),
    )
    entries = {"conv.weight": Clustered(scattered((6, 10), 3, 2), bits=3, step=0.25), "bias": Dense(torch.ones(6))}
    return Plan(entries, aliases={"other.weight": "conv.weight"}, approximations={one.operation: one for one in made})


def narrowed_plan() -> Plan:
    """The plan of ``codec_narrowed.few``: what is left of every kind of tensor, by a mask that is new or known."""
    ramp = torch.arange(60, dtype=torch.float32)
    rows, columns = ramp[:20] % 3 != 1, ramp[:9] > 3  # 13 of 20, 5 of 9
    return Plan(
        {
            "conv.weight": Clustered(scattered((13, 5, 3, 3), 3, 2), bits=3, step=0.25),
            "conv.bias": Dense((ramp[:13] / 3 - 1).to(torch.float16)),
            "book.weight": Clustered(scattered((4, 13), 1, 2), bits=2, codebook=(-0.5, 0.0, 0.75), lowest=-1),
            "pruned.weight": Masked(ramp[:20].reshape(4, 5) - 7, scattered((4, 5), 1, 2) != 0),
            "mean": Dense(torch.zeros(13)),
            "other": Dense(ramp[:4]),
        },
        ChannelMasks(
            {
                "conv.weight": (rows, columns, None, None),
                "conv.bias": (rows,),
                "book.weight": (None, rows),
                "pruned.weight": (None, columns),
                "mean": (rows,),
            },
            {"shortcut.pad": (3, 0)},
        ),
    )


def difference_base_plan() -> Plan:
    """The plan whose file (``codec_difference_base``, made in the test) the differences below are to."""
    ramp = torch.arange(24, dtype=torch.float32)
    return Plan(
        {
            "conv.weight": Clustered(scattered((8, 3, 3, 3), 7, 3), bits=4, step=0.03125),
            "conv.bias": Dense((ramp[:8] * 0.37 - 1.0).to(torch.float16)),
            "bn.weight": Dense(torch.ones(8)),
            "bn.running_var": Dense(ramp[:8] * 0.11 + 0.5),
            "ternary.weight": Clustered(scattered((6, 10), 1, 2), bits=2, codebook=(-0.5, 0.0, 0.625), lowest=-1),
            "pruned.weight": Masked(ramp[:20].reshape(4, 5) - 7, scattered((4, 5), 1, 2) != 0),
            "index": Dense((ramp * 1000).to(torch.int32)),
            "count": Dense(torch.tensor(7)),
            "head.weight": Dense(ramp.reshape(4, 6) / 7),
        },
        aliases={"tied.weight": "conv.weight", "head.tied": "head.weight"},
    )


def difference_plan(base: Base) -> Plan:
    """The plan of ``codec_difference.few``: a tensor that differs by each kind, the same, absent and alone."""
    ramp = torch.arange(80, dtype=torch.float32)
    bases = base.tensors
    entries: dict[str, Entry] = {
        "conv.weight": Clustered(scattered((8, 3, 3, 3), 3, 5), bits=3, step=0.0078125, base=bases["conv.weight"]),
        "conv.bias": Clustered(scattered((8,), 7, 2), bits=4, step=0.015625, base=bases["conv.bias"]),
        "bn.weight": Dense(torch.zeros(8), bases["bn.weight"]),
        "bn.running_var": Dense((ramp[:8] * 0.25 - 1).to(torch.float16), bases["bn.running_var"]),
        "ternary.weight": Clustered(
            scattered((6, 10), 1, 4), bits=2, codebook=(-0.25, 0.0, 0.5), lowest=-1, base=bases["ternary.weight"]
        ),
        "pruned.weight": Masked(ramp[:20].reshape(4, 5) / 8, scattered((4, 5), 1, 3) != 0, base=bases["pruned.weight"]),
        "index": Dense(bases["index"]),
        "head.weight": Clustered(scattered((5, 6), 3, 2), bits=3, step=0.25),
        "head.bias": Dense(ramp[:5] / 4),
    }
    return Plan(entries, aliases={"tied.weight": "conv.weight", "head.tied": "head.weight", "b": "conv.bias"})
