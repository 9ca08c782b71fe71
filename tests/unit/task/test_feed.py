"""Batches of every kind become inputs and targets, or an error that says what does not fit."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, IterableDataset

from fewbits.errors import DataError, RecipeError
from fewbits.task import Fed, Feed, Inputs, fed, handing, measured_over, run
from fewbits.task.stream import Stream
from fewbits.train.loop import endless


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Two(One):
    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:  # type: ignore[override]
        return self.layer(left) - scale * self.layer(right)


class Listed(One):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:  # type: ignore[override]
        return torch.stack([self.layer(x).sum() for x in images])


class Named(One):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Any = None) -> Tensor:  # type: ignore[override]
        assert labels is None
        return self.layer(input_ids if attention_mask is None else input_ids * attention_mask)


class Whole(One):
    def forward(self, pair: Any) -> Tensor:  # type: ignore[override]
        return self.layer(pair.left) - self.layer(pair.right)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(3, 4), nn.Linear(4, 2)

    def forward(self, x: PackedSequence) -> Tensor:
        assert isinstance(x, PackedSequence)
        return self.head(self.layer(x)[1][0])


class Options(One):
    def forward(self, x: Tensor, mask: Tensor | None = None, features: bool = False, mode: str = "a") -> Tensor:  # type: ignore[override]
        return self.layer(x if mask is None else x * mask)


class Anything(One):
    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:  # type: ignore[override]
        return self.layer(sum([*args, *kwargs.values()]))  # type: ignore[arg-type]


@dataclass
class Sample:
    x: Tensor
    y: Tensor


Pair = namedtuple("Pair", ["x", "target"])
PACKED = pack_sequence([torch.randn(n, 3) for n in (4, 3, 3, 1)])
Sides = namedtuple("Sides", ["left", "right"])
A, B, Y = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 0, 1])

GOOD: dict[str, tuple[type[nn.Module], Any, Callable[[nn.Module], Tensor]]] = {
    "pair": (One, (A, Y), lambda net: net(A)),
    "list": (One, [A, Y], lambda net: net(A)),
    "arrays": (One, (A.numpy(), Y.numpy()), lambda net: net(A)),
    "doubles": (One, (A.double(), Y), lambda net: net(A.double().float())),
    "dict": (One, {"picture": A, "label": Y}, lambda net: net(A)),
    "data class": (One, Sample(A, Y), lambda net: net(A)),
    "named tuple": (One, Pair(A, Y), lambda net: net(A)),
    "user dict": (Named, UserDict(input_ids=A, attention_mask=B, labels=Y), lambda net: net(A, B)),
    "extra names": (Named, {"input_ids": A, "labels": Y, "text": ["a"] * 4}, lambda net: net(A)),
    "three": (Two, (A, B, Y), lambda net: net(A, B)),
    "no option": (Options, (A, B, Y), lambda net: net(A, B)),
    "named tuple as one input": (Whole, (Sides(A, B.double()), Y), lambda net: net(Sides(A, B))),
    "named tuple as two": (Two, (Sides(A, B), Y), lambda net: net(A, B)),
    "packed": (Packed, (PACKED, Y), lambda net: net(PACKED)),
    "nested": (Two, ((A, B), Y), lambda net: net(A, B)),
    "nested list": (Two, [[A, B], Y], lambda net: net(A, B)),
    "nested names": (Two, ({"right": B, "left": A}, Y), lambda net: net(A, B)),
    "list of pictures": (Listed, ([A[0], A[1]], Y), lambda net: net([A[0], A[1]])),
    "anything": (Anything, ((A, B), Y), lambda net: net(A, B)),
}


@pytest.mark.parametrize("kind", list(GOOD))
def test_a_batch_is_split_as_the_network_takes_it(kind: str) -> None:
    maker, batch, call = GOOD[kind]
    net = maker()
    found = Feed(net)(batch)
    assert torch.equal(run(net, found.inputs), call(net))
    assert torch.equal(found.targets, Y)


class Translator(nn.Module):
    """An encoder-decoder as transformers has them."""

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1].clamp_min(0)], 1)

    def forward(
        self, input_ids: Tensor, decoder_input_ids: Tensor | None = None, decoder_inputs_embeds: Tensor | None = None
    ) -> Tensor:
        raise NotImplementedError


def test_a_decoder_reads_the_labels_moved_by_a_place() -> None:
    ids, labels = torch.arange(6).view(2, 3), torch.tensor([[4, 5, 1], [6, 1, -100]])
    moved = torch.tensor([[0, 4, 5], [0, 6, 1]])
    for given in ({}, {"targets": "labels"}):
        for wrapped in (Translator(), nn.DataParallel(Translator())):
            found = Feed(wrapped, **given)({"input_ids": ids, "labels": labels})
            assert torch.equal(found.inputs.kwargs["decoder_input_ids"], moved)
            assert torch.equal(found.targets, labels)
    for own in ("decoder_input_ids", "decoder_inputs_embeds"):
        found = Feed(Translator())({"input_ids": ids, own: ids + 9, "labels": labels}).inputs.kwargs
        assert found.keys() == {"input_ids", own}
        assert torch.equal(found[own], ids + 9)
    assert torch.equal(Feed(Translator(), "input_ids")({"input_ids": ids, "labels": labels}).inputs, ids)  # as told
    assert Feed(Translator())({"input_ids": ids}).inputs.kwargs.keys() == {"input_ids"}


def test_no_part_is_taken_for_an_option() -> None:
    """As a dataset that also gives the number of each sample would have labels for one, and numbers for labels."""
    batch = (A, B, Y, torch.arange(4))
    with pytest.raises(
        DataError, match=r"a batch has 4 parts, .*takes \(x, mask, features, mode\): say which are what"
    ):
        Feed(Options())(batch)
    net = Options()
    found = Feed(net, (0, 1), 2)(batch)
    assert torch.equal(found.targets, Y)
    assert torch.equal(run(net, found.inputs), net(A, B))
    flagged = Feed(net, (0, 1, 2), 3)(batch)
    assert len(flagged.inputs.args) == 3, "as told"


def test_parts_may_be_named() -> None:
    net = Two()
    for batch, inputs, targets in [
        ((Y, A, B), (1, 2), 0),
        ({"p": A, "q": B, "z": Y}, ("p", "q"), "z"),
        ({"p": A, "q": B, "z": Y}, lambda b: (b["p"], b["q"]), lambda b: b["z"]),
        ({"p": A, "q": B, "z": Y}, lambda b: {"left": b["p"], "right": b["q"]}, "z"),
        ({"left": A, "right": B, "z": Y}, None, "z"),
        ({"left": A, "right": B, "z": Y}, ("right", "left"), "z"),
        ((Y, A, B), None, 0),
    ]:
        found = Feed(net, inputs, targets)(batch)
        assert torch.equal(run(net, found.inputs), net(A, B))
        assert torch.equal(found.targets, Y)


BAD: dict[str, tuple[type[nn.Module], Any, dict[str, Any], str]] = {
    "too many": (One, (A, B, Y), {}, r"3 parts.*takes \(x\).*inputs=0, targets=1"),
    "too few": (Two, {"left": A, "y": Y}, {}, "forward of Two takes"),
    "names": (Two, {"left": A, "label": Y, "rigth": B}, {}, "'rigth'.*forward of Two takes .left, right"),
    "no such name": (One, {"x": A, "y": Y}, {"targets": "lable"}, "'lable'.*it has 'x', 'y'"),
    "no such place": (One, (A, Y), {"inputs": 0, "targets": 5}, "targets=5"),
    "no tensor": (One, ("words", Y), {}, "no tensor among the inputs"),
    "empty tuple": (One, (), {}, "empty tuple"),
    "empty": (One, (A[:0], Y[:0]), {}, r"is empty: its inputs have shape \[0, 3\]"),
    "nan": (One, (torch.full((4, 3), torch.nan), Y), {}, "12 of its inputs are NaN"),
    "nan targets": (One, (A, torch.full((4,), torch.nan)), {}, "4 of its targets are NaN"),
}


def first(data: Fed) -> Any:
    """The outputs of the network on the first batch."""
    batch = next(iter(data))
    net = One()
    with handing(net, batch.inputs, data.place):
        return run(net, batch.inputs)


@pytest.mark.parametrize("kind", list(BAD))
def test_what_does_not_fit_is_named(kind: str) -> None:
    maker, batch, given, words = BAD[kind]
    with pytest.raises(DataError, match=words) as caught:
        first(fed(maker(), [batch], **given))
    assert "batch 1 of the training data" in str(caught.value)


def test_what_a_network_does_not_take_is_told_with_its_shapes() -> None:
    with pytest.raises(DataError, match=r"batch 1 of .*: One does not take inputs of \[4, 5\] float32: RuntimeError"):
        first(fed(One(), [(torch.zeros(4, 5), Y)]))
    with pytest.raises(DataError, match=r"uint8.*x\.float\(\) / 255"):
        first(fed(One(), [(torch.zeros(4, 3, dtype=torch.uint8), Y)]))


def test_only_what_can_be_read_again_is_trained_on() -> None:
    net = One()
    for batches, words in [
        (iter([(A, Y)]), "read only once"),
        ((pair for pair in [(A, Y)]), "generator is read only once"),
        ("mine.npy", "holds no batches"),
        ({"train": [(A, Y)]}, "holds no batches"),
        (A, "holds no batches"),
        (3, "holds no batches"),
    ]:
        with pytest.raises(DataError, match=words):
            fed(net, batches)  # type: ignore[arg-type]
    assert len(list(measured_over(net, iter([(A, Y), (A[:0], Y[:0])])))) == 1
    with pytest.raises(RecipeError, match="both 'x'"):
        fed(net, [(A, Y)], inputs="x", targets="x")


class Sized:
    """A loader that says another length than it has."""

    def __init__(self, said: int, has: int) -> None:
        self.said, self.has = said, has

    def __len__(self) -> int:
        return self.said

    def __iter__(self) -> Any:
        return iter([(A, Y)] * self.has)


@pytest.mark.parametrize(("said", "has"), [(3, 2), (2, 3), (3, 0)])
def test_a_wrong_length_is_an_error_and_no_endless_loop(said: int, has: int) -> None:
    data = fed(One(), Sized(said, has))
    with pytest.raises(DataError, match=f"{said} batches"):
        for _ in zip(range(10), endless(data), strict=False):
            pass


class Numbers(IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return iter([(torch.full((3,), float(i)), i % 2) for i in range(self.count)])


def test_a_stream_has_as_many_batches_as_are_asked_for() -> None:
    stream = Stream(DataLoader(Numbers(6), batch_size=2), 5)
    seen = [float(batch.inputs[0, 0]) for batch in fed(One(), stream)]
    assert seen == [0.0, 2.0, 4.0, 0.0, 2.0]
    assert len(stream) == 5
    with pytest.raises(DataError, match="yields no batch"):
        list(Stream(DataLoader(Numbers(0), batch_size=2), 5))
    for steps in (0, -1, 2.5, True):
        with pytest.raises(RecipeError, match="whole number"):
            Stream([], steps)  # type: ignore[arg-type]


def test_wrappers_are_looked_through() -> None:
    net = nn.DataParallel(Two())
    assert Feed(net)(((A, B), Y)).inputs == Inputs((A, B), {})
    assert isinstance(fed(One(), Fed([(A, Y)], Feed(One()), "x")), Fed)


def test_big_endian_and_unsigned_arrays() -> None:
    found = Feed(One())((np.arange(12, dtype=">f4").reshape(4, 3), np.array([0, 1, 0, 1], dtype=np.uint16)))
    assert torch.equal(found.inputs, torch.arange(12.0).reshape(4, 3))
    assert torch.equal(found.targets, Y)
