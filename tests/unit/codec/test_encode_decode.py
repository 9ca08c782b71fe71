"""What encode refuses, what decode compares, and what inspect tells."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.codec import decode, encode, inspect
from fewbits.errors import FewbitsError, MismatchError, NonFiniteError, RecipeError
from fewbits.plan import Clustered, Dense, Masked, Plan


def clustered(*levels: int, **grid: object) -> Clustered:
    return Clustered(torch.tensor(levels, dtype=torch.int16), **({"bits": 4, "step": 0.5} | grid))  # type: ignore[arg-type]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)


def net_plan(net: nn.Module) -> Plan:
    return Plan(
        {
            name: Clustered((t * 10).round().to(torch.int16), 4, step=0.1) if t.dim() > 1 else Dense(t.clone())
            for name, t in net.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
    )


def test_a_module_serves_as_skeleton_and_its_counter_may_be_missing() -> None:
    torch.manual_seed(0)
    plan = net_plan(Net())
    assert decode(encode(plan), Net()).equals(plan)


def test_a_written_counter_is_read_back() -> None:
    plan = net_plan(Net()).updated({"bn1.num_batches_tracked": Dense(torch.tensor(7))})
    assert decode(encode(plan), Net())["bn1.num_batches_tracked"].values().item() == 7


def test_a_missing_tensor_is_named_with_its_neighbour() -> None:
    plan = net_plan(Net())
    short = Plan({name: entry for name, entry in plan.items() if name != "conv1.bias"})
    with pytest.raises(MismatchError, match=r"'conv1\.bias' of shape \[4\], which the file lacks"):
        decode(encode(short), Net())


def test_a_foreign_tensor_is_named_with_the_nearest_valid_name() -> None:
    plan = net_plan(Net()).updated({"conv1.weigth": clustered(1, 0)})
    with pytest.raises(MismatchError, match=r"'conv1\.weigth' of shape \[2\].*did you mean 'conv1\.weight'"):
        decode(encode(plan), Net())


def test_a_different_shape_is_named_from_both_sides() -> None:
    plan = net_plan(Net()).updated({"bn1.bias": Dense(torch.arange(5.0))})
    with pytest.raises(MismatchError, match=r"'bn1\.bias' has shape \[5\] in the file and \[4\] in the network"):
        decode(encode(plan), Net())


@pytest.mark.parametrize("like", [None, 3, "w"])
def test_decode_needs_a_skeleton(like: object) -> None:
    with pytest.raises(RecipeError, match="like="):
        decode(encode(Plan({})), like)  # type: ignore[arg-type]


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_refused_and_masks_made_of_infinity_are_kept(dtype: torch.dtype) -> None:
    with pytest.raises(NonFiniteError, match=r"'fc\.bias'"):
        encode(Plan({"fc.bias": Dense(torch.tensor([0.0, torch.nan], dtype=dtype))}))
    mask = torch.tensor([0.0, torch.inf, -torch.inf], dtype=dtype)
    for plan in (Plan({"mask": Dense(mask)}), Plan({"mask": Dense(mask.repeat(3000))})):
        assert decode(encode(plan), like={"mask": plan["mask"].values()}).equals(plan)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_survivors_of_pruning_are_finite(bad: float, dtype: torch.dtype) -> None:
    numbers = torch.tensor([0.0, bad, 1.0], dtype=dtype)
    with pytest.raises(NonFiniteError, match="'w'"):
        encode(Plan({"w": Masked(numbers, torch.tensor([False, True, True]))}))


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        (clustered(0, 8), RecipeError, r"'w' has levels 0\.\.8, outside its 4-bit grid -7\.\.7"),
        (clustered(-8, 0), RecipeError, r"-8\.\.0"),
        (clustered(0, 1, step=0.0), RecipeError, "not positive"),
        (clustered(0, 1, step=-1.0), RecipeError, "not positive"),
        (clustered(0, 1, step=1e-60), RecipeError, "not positive in float32"),
        (clustered(0, 1, step=1e38), NonFiniteError, "multiples are beyond float32"),
        (clustered(0, 1, step=1e60), NonFiniteError, "not finite in float32"),
        (clustered(0, 1, step=float("nan")), NonFiniteError, "step"),
        (clustered(0, step=None, codebook=(1.0, float("nan"))), NonFiniteError, "codebook value"),
        (clustered(0, 2, step=None, codebook=(1.0, 2.0)), RecipeError, r"grid 0\.\.1"),
        (clustered(0, step=None, codebook=()), RecipeError, "0 codebook values"),
        (clustered(0, step=None, bits=2, codebook=(1.0,) * 5), RecipeError, "5 codebook values at 2 bits"),
        (clustered(0, step=None, codebook=(1.0, 2.0), lowest=32767), RecipeError, "impossible level"),
        (Dense(torch.zeros(2, dtype=torch.complex64)), RecipeError, "complex64.*no file holds; keep it as real"),
        (Dense(torch.eye(3).to_sparse()), RecipeError, "sparse"),
    ],
)
def test_what_no_file_can_hold_is_refused(entry: object, error: type[FewbitsError], words: str) -> None:
    with pytest.raises(error, match=words):
        encode(Plan({"w": entry}))  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["a\0b", "x" * 1025, "\ud800"])
def test_names_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="name"):
        encode(Plan({name: Dense(torch.zeros(1))}))


@pytest.mark.parametrize(
    "header",
    [{"a": float("nan")}, {"a": {1, 2}}, {1: "a"}, {"a": (1, 2)}, {"a": "x" * (1 << 20)}, {"a": "\ud800"}],
)
def test_headers_that_json_cannot_hold_are_refused(header: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="header"):
        encode(Plan({}), header=header)


def test_a_header_that_contains_itself_is_refused() -> None:
    header: dict[str, object] = {}
    header["me"] = header
    with pytest.raises(RecipeError, match="header"):
        encode(Plan({}), header=header)


def test_the_step_comes_back_as_its_float32() -> None:
    plan = Plan({"w": clustered(1, 0, 2, step=0.1)})
    decoded = decode(encode(plan), plan.tensors())
    assert decoded.clustered["w"].step == float(np.float32(0.1)) != 0.1
    assert decoded.equals(plan)


def test_the_same_plan_gives_the_same_bytes() -> None:
    plan = net_plan(Net())
    assert encode(plan, header={"a": 1}) == encode(Plan(dict(plan.items())), header={"a": 1})


def test_views_are_written_as_they_look() -> None:
    base = torch.arange(24, dtype=torch.int16).reshape(4, 6) % 5
    numbers = torch.linspace(0, 1, 24).reshape(4, 6)
    plan = Plan({"w": Clustered(base.T, 4, step=1.0), "v": Dense(numbers[:, ::2]), "s": Dense(numbers[1, 1])})
    assert decode(encode(plan), plan.tensors()).equals(plan)


def test_summary() -> None:
    plan = Plan(
        {
            "w": clustered(0, 3, -1, 0, 0, 2),
            "t": clustered(0, 1, step=None, bits=2, codebook=(-1.0, 0.0, 1.0), lowest=-1),
            "a": Dense(torch.tensor([1.5, 2.5])),
            "b": Dense(torch.tensor([0.5, 3.5, 7.0])),
            "ones": Dense(torch.ones(9, dtype=torch.float16)),
        }
    )
    data = encode(plan, header={"epoch": 3})
    summary = inspect(data)
    w, t, a, b, ones = summary.tensors
    assert (w.name, w.kind, w.shape, w.bits, w.step, w.clusters, w.dtype) == (
        "w", "clustered", (6,), 4, 0.5, 15, None,
    )  # fmt: skip
    assert (t.clusters, t.bits, t.step) == (3, 2, None)
    assert (a.kind, a.dtype, a.bits, a.clusters) == ("dense", "float32", 32, None)
    assert b.coded_bytes >= a.coded_bytes > 0
    assert (ones.coded_bytes, ones.dtype, ones.count) == (0, "float16", 9)
    assert summary.count == 6 + 2 + 2 + 3 + 9
    assert (summary.version, summary.header, summary.file_bytes) == (1, {"epoch": 3}, len(data))


def test_constant_tensors_cost_one_element() -> None:
    small = encode(Plan({"w": Dense(torch.full((4,), 0.25))}))
    large = encode(Plan({"w": Dense(torch.full((400, 1000), 0.25))}))
    assert len(large) <= len(small) + 6
    assert decode(large, {"w": torch.empty(400, 1000)}).tensors()["w"].eq(0.25).all()
    pruned = Plan({"w": Clustered(torch.zeros(400, 1000, dtype=torch.int16), 4, step=0.5)})
    assert len(encode(pruned)) <= len(small) + 6


def test_negative_zero_is_kept() -> None:
    plan = Plan({"w": Dense(torch.tensor([0.0, -0.0]))})
    decoded = decode(encode(plan), plan.tensors()).tensors()["w"]
    assert torch.signbit(decoded).tolist() == [False, True]


def test_the_largest_step_whose_outermost_level_is_a_float32() -> None:
    step = float(np.float32(3e38))  # twice that overflows, but two bits have one level on each side
    plan = Plan({"w": Clustered(torch.tensor([1, 0, -1], dtype=torch.int16), 2, step=step)})
    assert decode(encode(plan), {"w": torch.zeros(3)})["w"].values().tolist() == [step, 0.0, -step]
