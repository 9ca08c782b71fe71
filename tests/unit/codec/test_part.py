"""Files of which only parts are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewbits import codec
from fewbits.channel_masks import ChannelMasks
from fewbits.codec import PartReader
from fewbits.errors import FileError, FormatError, MismatchError, UnsupportedError
from fewbits.plan import Affine, Clustered, Dense, Masked, Plan


def plan() -> Plan:
    draw = torch.Generator().manual_seed(0)

    def levels(*shape: int) -> torch.Tensor:
        return torch.randint(-3, 4, shape, generator=draw, dtype=torch.int16)

    numbers = torch.randn(9, 7, generator=draw)
    return Plan(
        {
            "a.weight": Clustered(levels(20, 9), 4, step=0.1),
            "a.bias": Dense(torch.randn(20, generator=draw)),
            "b.weight": Masked(numbers, numbers > 0.3),
            "b.bias": Dense(torch.randn(9, generator=draw).half()),
            "c.weight": Affine(levels(5, 6).to(torch.int8), torch.rand(5, generator=draw) + 0.1),
            "c.bias": Dense(torch.zeros(5)),
            "large": Dense(torch.randn(80, 70, generator=draw)),
            "on": Dense(torch.tensor([True, False])),
        },
        aliases={"again.weight": "a.weight"},
    )


DATA = codec.encode(plan())
WHOLE = codec.decode(DATA, codec.shapes(DATA))


@pytest.mark.parametrize("name", [*WHOLE, "again.weight"])
def test_each_tensor_can_be_had_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.few"
    path.write_bytes(DATA)
    for source in (DATA, path, str(path)):
        with PartReader(source) as reader:
            assert set(reader.names) == {*WHOLE, "again.weight"}
            head = reader.bytes_read
            found = reader.plan([name])
            assert list(found) == [name]
            assert found[name].values().equal(WHOLE.tensors()[name])
            assert reader.bytes_read == head + reader.cost([name])
            assert reader.count([name]) == WHOLE.tensors()[name].numel()
            assert reader.bytes_read < len(DATA)
            assert reader.size == len(DATA)


def test_several_come_in_the_order_of_the_file_and_all_are_the_whole() -> None:
    with PartReader(DATA) as reader:
        assert list(reader.plan(["c.bias", "a.weight"])) == ["a.weight", "c.bias"]
        assert reader.plan(reader.names).equals(WHOLE)
        assert reader.plan(["again.weight", "a.weight"]).aliases == {"a.weight": "again.weight"}
        with pytest.raises(MismatchError, match=r"no tensor 'a.weigh'; did you mean 'a.weight'"):
            reader.plan(["a.weigh"])


def test_a_shared_section_counts_with_all_that_is_in_it() -> None:
    with PartReader(DATA) as reader:
        reader.plan(["a.bias"])
        shared = 20 + int((plan()["b.weight"].values() != 0).sum()) + 5  # biases, survivors, scales; zeros are constant
        assert reader.numbers_decoded == shared
    with PartReader(DATA, limit=shared) as reader:
        with pytest.raises(FormatError, match="the limit without its network"):
            reader.plan(["a.bias"])
        reader.plan(["b.bias"])


def test_a_changed_byte_is_found_or_was_not_needed() -> None:
    asked = ["a.weight", "b.bias"]
    data = codec.encode(Plan({name: entry for name, entry in plan().items() if name != "large"}))
    with PartReader(data) as reader:
        right = reader.plan(asked)
    refused = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            with PartReader(bytes(changed)) as reader:
                found = reader.plan(asked)
        except FileError:
            refused += 1
        else:
            assert found.equals(right), at
    assert 100 < refused < len(data) - 100


def test_a_file_that_is_cut_is_refused_wherever() -> None:
    for size in range(0, len(DATA), 197):
        with pytest.raises(FormatError):
            PartReader(DATA[:size])
    with pytest.raises(FormatError, match="too many"):
        PartReader(DATA + b"\0")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        PartReader(tmp_path / "none.few")
    masks = ChannelMasks({"w": (torch.tensor([True, False, True]), None)}, {})
    narrowed = codec.encode(Plan({"w": Dense(torch.ones(2, 4))}, masks))
    with PartReader(narrowed) as reader, pytest.raises(UnsupportedError, match="load it whole"):
        reader.plan(["w"])


def test_what_a_few_bytes_declare_is_not_made() -> None:
    data = codec.encode(Plan({"zeros": Dense(torch.zeros(1 << 20)), "one": Dense(torch.ones(1))}))
    assert len(data) < 200
    with PartReader(data) as reader:
        with pytest.raises(FormatError, match="give the network, or a limit"):
            reader.plan(["zeros"])
        assert reader.plan(["one"])["one"].values().equal(torch.ones(1))
    with PartReader(data, limit=1 << 20) as reader:
        assert reader.plan(["zeros"])["zeros"].shape == (1 << 20,)
